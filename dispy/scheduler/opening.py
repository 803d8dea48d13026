"""Clusters that are opened on nodes: which node is sent which settings, code, and limit.

A node is sent a cluster's computation when processors of it are allocated, and again whenever it
comes back without it; its limit each time. What is said of one node alone, and code for a node
with another Python, comes in here. How a computation ends there is the affair of `Closing`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gevent import get_hub

from dispy.model.errors import DispyError
from dispy.protocol.messages import Kind
from dispy.scheduler.closing import Closing
from dispy.scheduler.given import Given
from dispy.scheduler.heartbeat import Heartbeat
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.owner import JobsOwner
from dispy.scheduling.actions import Action
from dispy.scheduling.core import Scheduling


@dataclass(frozen=True, slots=True)
class _Opened:
    """What all nodes are sent of a cluster, unless they need something else."""

    name: str
    settings: dict[str, Any]
    content: bytes


class Openings:
    """Works on its scheduler's core and nodes, on the same hub.

    perform: carries out the core's orders about a node. plan_pass: has what is dirty placed.
    """

    def __init__(
        self,
        core: Scheduling,
        owner: JobsOwner,
        closing: Closing,
        heartbeat: Heartbeat,
        perform: Callable[[Sequence[Action], RemoteNode], None],
        plan_pass: Callable[[], None],
        given: Given,
    ) -> None:
        self._given = given
        self._core, self._owner, self._closing = core, owner, closing
        self._heartbeat, self._perform, self._plan_pass = heartbeat, perform, plan_pass
        self._clusters: dict[int, _Opened] = {}

    def add(self, cluster_id: int, name: str, settings: dict[str, Any], content: bytes) -> None:
        """Take in a cluster; nothing is sent before `allocate`."""
        self._clusters[cluster_id] = _Opened(name, settings, content)

    def forget(self, cluster_id: int) -> tuple[str, bool]:
        """Open a cluster nowhere any more; return its name, and whether nodes clean up after it."""
        opened = self._clusters.pop(cluster_id, None)
        return (
            ("", False) if opened is None else (opened.name, bool(opened.settings.get("cleans_up")))
        )

    def name_of(self, cluster_id: int) -> str:
        """Return a cluster's name; "" if it is closed."""
        opened = self._clusters.get(cluster_id)
        return "" if opened is None else opened.name

    def allocate(
        self, node: RemoteNode, cluster_id: int, cpus: int, own: dict[str, Any] | None
    ) -> None:
        """Let a cluster use `cpus` processors of a node; see `Scheduler.allocate`."""
        if cluster_id not in self._clusters or cluster_id in node.closing:
            return  # closed while it was being decided
        if cluster_id in node.opened:
            self._send_limit(node, cluster_id, cpus)
        elif cpus and cluster_id not in node.refused:
            node.opened.add(cluster_id)
            node.own[cluster_id] = own or {}
            self._send(node, cluster_id)
            self._send_limit(node, cluster_id, cpus)
        else:
            why = "no processor of it was allocated"
            self._perform(self._core.cluster_refused_on(node.node_id, cluster_id, why), node)
            return
        self._perform(self._core.cluster_allocated(node.node_id, cluster_id, cpus), node)
        self._plan_pass()

    def answered(
        self, node: RemoteNode, cluster_id: int, error: str | None, told: dict[str, Any]
    ) -> None:
        """Take the node's word on whether a computation is set up there; for `told` see READY."""
        if cluster_id in self._clusters:  # else it was closed meanwhile
            self._closing.ready(node, cluster_id, self.name_of(cluster_id), error, told)

    def settled(self, node: RemoteNode, computations: Sequence[int]) -> None:
        """Send a node on a new link what it lacks of these, and what it may have missed."""
        for cluster_id in set(computations) - self._clusters.keys():
            node.tell(Kind.CLOSE, [cluster_id])
        self._closing.settled(node, computations)
        limits = self._core.nodes[node.node_id].allocations
        for cluster_id in node.opened:
            if cluster_id not in computations:
                self._send(node, cluster_id)
            elif self._is_foreign(node, self._own(node, cluster_id)):
                node.translated.add(cluster_id)  # an earlier scheduler has opened it there
            self._send_limit(node, cluster_id, limits[cluster_id].limit)

    def _send(self, node: RemoteNode, cluster_id: int) -> None:
        opened = self._clusters[cluster_id]
        content, own = opened.content, self._own(node, cluster_id)
        if not node.settled:
            return  # it is sent when the node has said what it has
        if self._is_foreign(node, own):
            node.translated.add(cluster_id)
            try:
                own, content = self._owner.opening_for(node, cluster_id, own, content)
            except DispyError as error:  # told once the core knows of the allocation
                get_hub().loop.run_callback(self.answered, node, cluster_id, str(error), {})
                return
        self._heartbeat.expect(node, cluster_id)
        self._given.opened(node.node_id, cluster_id, own.get("files", ()))
        node.tell(Kind.OPEN, [cluster_id, opened.name, own], [content])

    def _own(self, node: RemoteNode, cluster_id: int) -> dict[str, Any]:
        """Return a cluster's settings on a node."""
        return {**self._clusters[cluster_id].settings, **node.own.get(cluster_id, {})}

    def _is_foreign(self, node: RemoteNode, own: Mapping[str, Any]) -> bool:
        return node.python != f"{own.get('implementation')} {own.get('python')}"

    def _send_limit(self, node: RemoteNode, cluster_id: int, cpus: int) -> None:
        if node.settled:
            node.tell(Kind.LIMIT, [cluster_id, cpus])

    def restore(
        self, node: RemoteNode, cluster_id: int, cpus: int, own: dict[str, Any] | None
    ) -> None:
        """Have a cluster on a node that was opened there by an earlier scheduler, perhaps."""
        node.opened.add(cluster_id)
        node.own[cluster_id] = own or {}
        files = self._own(node, cluster_id).get("files", ())
        self._given.opened(node.node_id, cluster_id, files)
        self._core.cluster_allocated(node.node_id, cluster_id, cpus)
