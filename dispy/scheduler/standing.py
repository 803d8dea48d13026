"""How things stand between a scheduler's clusters and nodes: told, or put back after a restart."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

from dispy.protocol.handshake import Hello
from dispy.scheduler.columns import differing
from dispy.scheduler.given import Given
from dispy.scheduler.journal_entries import NodeKnown
from dispy.scheduler.keeping import Keepers
from dispy.scheduler.nodes import Away, Nodes, RemoteNode
from dispy.scheduler.opening import Openings
from dispy.scheduler.owner import JobsOwner
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Node

RESTARTED = "the scheduler was restarted"


class Standing:
    """Of one scheduler, on its hub. What is put back comes before all else that happens."""

    def __init__(
        self,
        core: Scheduling,
        owner: JobsOwner,
        nodes: Nodes,
        keepers: Keepers,
        given: Given,
        openings: Openings,
    ) -> None:
        self._core, self._owner, self._nodes = core, owner, nodes
        self._keepers, self._given, self._openings = keepers, given, openings

    def of(self, cluster_id: int) -> Iterator[tuple[RemoteNode, bool, list[int]]]:
        """Yield the nodes of a cluster, whether it is set up there, and its jobs that are there."""
        cluster = self._core.clusters.get(cluster_id)
        for node_id, allocation in cluster.allocations.items() if cluster is not None else ():
            node = self._nodes[node_id]
            yield node, cluster_id in node.ready, list(allocation.jobs)

    def nodes_of(self, cluster_id: int) -> Collection[str]:
        """Return the ids of the nodes that a cluster may use."""
        cluster = self._core.clusters.get(cluster_id)
        return {} if cluster is None else cluster.allocations

    def jobs_at(self, cluster_id: int, node_id: str) -> Collection[int]:
        """Return the jobs of a cluster that a node has."""
        cluster = self._core.clusters.get(cluster_id)
        allocation = None if cluster is None else cluster.allocations.get(node_id)
        return () if allocation is None else allocation.jobs

    def has_waiting(self, cluster_id: int) -> bool:
        """Whether jobs of a cluster wait for any of its nodes."""
        cluster = self._core.clusters.get(cluster_id)
        return cluster is not None and cluster.has_queued

    def by_idleness(self, node_ids: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return those of the nodes that have idle slots, and the others; none that is drained."""
        idle, busy = list[str](), list[str]()
        for node_id in node_ids:
            node = self._core.nodes[node_id]
            if not node.drained:
                (idle if node.idle else busy).append(node_id)
        return idle, busy

    def put_node(self, known: NodeKnown, heard: float) -> None:
        """Have a node that an earlier scheduler had, as if it had been heard at that second."""
        hello = Hello("node", known.identity, known.name, python="", implementation="")
        node = RemoteNode(known.node_id, known.name, known.host, known.port, 1, hello, None, 1)
        node.away = Away(RESTARTED, heard, heard)
        node.said = node.results_seen = known.said
        self._nodes.take_in(node)
        self._given.came(node)
        self._core.node_joined(
            Node(node.node_id, node.name, 1, settled=False, results_seen=known.said)
        )
        self._keepers.keep(node.ip_addr, node.port, True, node)

    def put_cluster(
        self, cluster_id: int, node_id: str, cpus: int, own: dict[str, Any] | None
    ) -> None:
        """Let a cluster use a node."""
        self._openings.restore(self._nodes[node_id], cluster_id, cpus, own)

    def put_jobs(self, cluster_id: int, node_id: str, jobs: Sequence[int], pinned: bool) -> None:
        """Have jobs on a node; `pinned`: they are for it alone."""
        self._given.newest = max(self._given.newest, *jobs)
        options = self._owner.options
        own = (differing(options, jobs, name) for name in ("cpus", "retries", "priority"))
        widths, retries, priorities = own
        allocation = self._core.clusters[cluster_id].allocations[node_id]
        self._core.restoring.place(
            allocation, jobs, jobs if pinned else (), widths, retries, priorities, monotonic()
        )

    def put_past(
        self,
        cluster_id: int,
        attempts: Mapping[int, int],
        deaths: Mapping[int, int],
        cancelling: Collection[int],
    ) -> None:
        """Count runs of jobs that were cut short, and know those that must not run again."""
        cluster = self._core.clusters[cluster_id]
        self._core.restoring.note(cluster, attempts, deaths, cancelling)
