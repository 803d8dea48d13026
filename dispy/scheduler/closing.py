"""Computations that are set up on nodes, and closed there: what is told of it, who waits for it.

Three ways to be closed: with the whole cluster; on one node for good; on one node in order to be
set up again there. A node that is closing a computation gets nothing of it until it has said
CLOSED, or came back after a broken link without it.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dispy.model.statuses import Status
from dispy.model.texts import legible, one_line
from dispy.protocol.messages import Kind
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.owner import JobsOwner
from dispy.scheduling.actions import Action, Leave
from dispy.scheduling.core import Scheduling

CLOSED_THERE = "close_node has closed it there; allocate_node brings it back"


class Closing:
    """Works on its scheduler's core and nodes, on the same hub."""

    def __init__(
        self,
        core: Scheduling,
        nodes: Mapping[str, RemoteNode],
        owner: JobsOwner,
        perform: Callable[[Sequence[Action], RemoteNode], None],
    ) -> None:
        self._core, self._nodes, self._owner, self._perform = core, nodes, owner, perform
        self._cleaning: dict[int, set[str]] = {}  # closed cluster -> nodes where cleanup runs
        self._names: dict[int, str] = {}  # of those clusters

    # -- setup

    def ready(
        self, node: RemoteNode, cluster_id: int, name: str, error: str | None, told: dict[str, Any]
    ) -> None:
        """Take the node's word on whether a computation is set up there."""
        if cluster_id in node.closing:
            return  # they crossed
        self._note_output(cluster_id, node, f"setup of {name} on node {node.name}", error, told)
        if error is not None:
            error = self._owner.refusal(node, error)
            node.opened.discard(cluster_id)
            node.refused[cluster_id] = error
            text = f"node {node.name} cannot run {name!r}: {error}"
            self._owner.noted(cluster_id, node, logging.ERROR, text)
            actions = self._core.cluster_refused_on(node.node_id, cluster_id, error)
            self._perform(actions, node)
            node.ready.discard(cluster_id)
            self._owner.node_changed(cluster_id, node, Status.Closed, error)
            return
        if cluster_id in node.ready:
            return  # said again after a broken link
        node.ready.add(cluster_id)
        self._core.cluster_ready_on(node.node_id, cluster_id)
        self._owner.node_changed(cluster_id, node, Status.Initialized)

    def forgive(self, node: RemoteNode, cluster_id: int) -> None:
        """Let a node be tried again that could not be used, or was left."""
        for table in (node.leaving, node.closing):
            if cluster_id in table:
                table[cluster_id] = True
        node.refused.pop(cluster_id, None)

    # -- one node

    def leave(self, node: RemoteNode, cluster_id: int, again: bool, terminate: bool) -> None:
        """Close a cluster's computation on a node once its jobs there have ended.

        `terminate`: they are stopped. `again`: it is then set up again.
        """
        if cluster_id in node.closing:
            node.closing[cluster_id] = again
            return
        node.leaving[cluster_id] = again
        if not again:
            node.refused[cluster_id] = CLOSED_THERE
        refusal = None if again else CLOSED_THERE
        actions = self._core.cluster_leaves(node.node_id, cluster_id, terminate, refusal)
        self._perform(actions, node)

    def close(self, order: Leave) -> None:
        """Tell a node to close a computation of which it has no jobs any more."""
        node = self._nodes[order.node_id]
        again = node.leaving.pop(order.cluster_id, False)
        node.ready.discard(order.cluster_id)
        node.closing[order.cluster_id] = again
        if order.cluster_id not in node.opened:
            self.closed(node, order.cluster_id, "", None, {})  # it was refused there
            return
        node.opened.discard(order.cluster_id)
        node.tell(Kind.CLOSE, [order.cluster_id])

    def closed(
        self, node: RemoteNode, cluster_id: int, name: str, error: str | None, told: dict[str, Any]
    ) -> None:
        """Take a node's word that it has closed a computation: its cleanup has ended too."""
        if cluster_id not in node.closing:
            return  # nobody waits for it
        name = name or self._names.get(cluster_id, "a computation")
        what = f"cleanup of {name} on node {node.name}"
        self._note_output(cluster_id, node, what, error, told)
        if error is not None:
            self._owner.noted(cluster_id, node, logging.ERROR, f"{what} failed: {error}")
        again = node.closing.pop(cluster_id)
        if cluster_id in self._names:
            self._cleaned(node, cluster_id)
            return
        self._core.cluster_left(node.node_id, cluster_id)
        if not again:
            self._owner.node_changed(cluster_id, node, Status.Closed, error)
            return
        node.refused.pop(cluster_id, None)
        self._owner.node_free(cluster_id, node)

    # -- the whole cluster

    def close_everywhere(self, cluster_id: int, name: str, cleans_up: bool) -> None:
        """Close a cluster's computation on all nodes; the owner is told when they have cleaned."""
        waited = set[str]()
        for node in self._nodes.values():
            for table in (node.leaving, node.refused, node.own):
                table.pop(cluster_id, None)
            if cluster_id in node.opened:
                node.opened.discard(cluster_id)
                node.ready.discard(cluster_id)
                if cleans_up:
                    node.closing[cluster_id] = False
                if node.settled:  # else it is told when it is back
                    node.tell(Kind.CLOSE, [cluster_id])
            if cleans_up and cluster_id in node.closing:
                waited.add(node.node_id)
        self._cleaning[cluster_id], self._names[cluster_id] = waited, name
        if not waited:
            self._over(cluster_id)

    def _cleaned(self, node: RemoteNode, cluster_id: int) -> None:
        waited = self._cleaning.get(cluster_id)
        if waited is not None:
            waited.discard(node.node_id)
            if not waited:
                self._over(cluster_id)

    def _over(self, cluster_id: int) -> None:
        del self._cleaning[cluster_id], self._names[cluster_id]
        self._owner.cleaned_up(cluster_id)

    def waits_for(self, cluster_id: int) -> list[str]:
        """Return the names of the nodes where a closed cluster's cleanup runs."""
        nodes = self._cleaning.get(cluster_id, set())
        return [node.name for node in self._nodes.values() if node.node_id in nodes]

    # -- links

    def settled(self, node: RemoteNode, computations: Sequence[int]) -> None:
        """Say again, on a new link, what may have been lost with the old one."""
        for cluster_id in list(node.closing):
            if cluster_id not in computations:
                self.closed(node, cluster_id, "", None, {})
            else:
                node.tell(Kind.CLOSE, [cluster_id])

    def lost(self, node: RemoteNode) -> None:
        """Wait no more for a node that is gone."""
        for cluster_id in list(node.closing):
            del node.closing[cluster_id]
            self._cleaned(node, cluster_id)

    # -- what they wrote

    def _note_output(
        self, cluster_id: int, node: RemoteNode, what: str, error: str | None, told: dict[str, Any]
    ) -> None:
        """Note what setup or cleanup wrote, and threads that it has left behind."""
        level = logging.DEBUG if error is None else logging.WARNING
        for stream in ("stdout", "stderr"):
            if isinstance(told.get(stream), str):
                text = legible(told[stream]).rstrip("\n")
                self._owner.noted(cluster_id, node, level, f"{what} wrote to {stream}:\n{text}")
        threads = told.get("threads")
        if isinstance(threads, list):
            names = one_line(", ".join(str(name) for name in threads))
            text = (
                f"{what} has left threads running ({names}): jobs run in forked processes, which "
                f"have none of them, and may hang on locks that they held"
            )
            self._owner.noted(cluster_id, node, logging.WARNING, text)
