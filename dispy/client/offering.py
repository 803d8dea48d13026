"""Which nodes a session offers to its clusters, and what these make of the offer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dispy.client.nodes import NodeAllocate

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster
    from dispy.client.session import Session
    from dispy.scheduler.nodes import RemoteNode


class Offering:
    """Brings nodes to clusters and takes them away again; on the hub."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        # Clusters that were to be offered a node while its link was broken, by node and number.
        self._put_off: dict[str, dict[int, JobCluster]] = {}

    def offer_known(
        self,
        cluster: "JobCluster",
        wanted: Sequence[NodeAllocate] = (),
        again: Sequence[str] = (),
    ) -> None:
        """Offer a cluster the nodes that are there already: all, or those that `wanted` means and
        those to be tried `again`, also when they failed before."""
        scheduler = self._session.scheduler
        fits, everything = cluster._search.wanted.fits, not wanted and not again
        for node in list(scheduler.nodes.values()):
            meant = any(fits(allocation, node.ip_addr, node.port) for allocation in wanted)
            if meant or node.node_id in again:
                scheduler.closing.forgive(node, cluster._number)
            elif not everything:
                continue  # what was said of it stays as it is
            if node.settled:
                self.offer(cluster, node)
            else:
                self._put_off.setdefault(node.node_id, {})[cluster._number] = cluster

    def found(self, node: "RemoteNode") -> None:
        """Offer a node to every cluster."""
        self._put_off.pop(node.node_id, None)
        for cluster in list(self._session.clusters.values()):
            self.offer(cluster, node)

    def back(self, node: "RemoteNode") -> None:
        """Offer a node, whose link is made anew, to those that came while it was broken."""
        for number, cluster in self._put_off.pop(node.node_id, {}).items():
            if number in self._session.clusters:
                self.offer(cluster, node)

    def lost(self, node: "RemoteNode") -> None:
        """Forget what was put off: when it comes back it is found anew."""
        self._put_off.pop(node.node_id, None)

    def offer(self, cluster: "JobCluster", node: "RemoteNode") -> None:
        """Ask the cluster's allocations, ours here, a user's own on the callbacks' thread."""
        if all(allocation.is_default for allocation in cluster.allocations):
            self._ask(cluster, node)
        else:
            self._session.callbacks.put(self._ask, cluster, node)

    def _ask(self, cluster: "JobCluster", node: "RemoteNode") -> None:
        cpus, own = cluster._allocate(node)
        self._session.hub.post(lambda: self.allocate(cluster, node.node_id, cpus, own))

    def allocate(
        self, cluster: "JobCluster", node_id: str, cpus: int, own: dict[str, Any] | None = None
    ) -> None:
        """Let a cluster use `cpus` processors of a node from now on; `own`: its own settings."""
        scheduler = self._session.scheduler
        if cpus and node_id in scheduler.nodes:
            self._session.recording.used(cluster, scheduler.nodes[node_id])
        scheduler.allocate(cluster._number, node_id, cpus, own)

    def deallocate(self, cluster: "JobCluster", node_id: str) -> None:
        """Give a node no more jobs of a cluster, but those for it alone."""
        cluster._take_fresh()  # what is pinned there comes before
        self._session.scheduler.deallocate(cluster._number, node_id)

    def leave(self, cluster: "JobCluster", node_id: str, again: bool, terminate: bool) -> None:
        """Close a cluster's computation on one node, and set it up `again`."""
        cluster._take_fresh()  # what is pinned there goes with it
        self._session.scheduler.leave(cluster._number, node_id, again, terminate)
