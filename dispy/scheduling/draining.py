"""Nodes that are drained: they get no new jobs, and what runs there ends. As pure as the core."""

from dispy.scheduling.actions import Action
from dispy.scheduling.placement import Placement
from dispy.scheduling.recalls import call_all_back
from dispy.scheduling.records import Node, NodeId

KEPT = 100_000  # reasons: most of nodes that have ended by then


class Drains:
    """Takes nodes out of use, and back; the next `place` heeds it.

    A node that is lost and comes back is drained still.
    """

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self.reasons: dict[NodeId, str] = {}  # why nodes are drained, those that are lost too

    def drain(self, node: Node, why: str) -> list[Action]:
        """Give a node no new jobs of anybody, for this reason; "": give it some again.

        What it has not begun is called back, but for what is pinned to it.
        """
        self.reasons.pop(node.node_id, None)
        if why:
            self.reasons[node.node_id] = why
            if len(self.reasons) > KEPT:
                del self.reasons[next(iter(self.reasons))]
        node.drained = why
        if why and node.reserved is not None:
            self._placement.reservations.release(node)
        recalls = list[Action]()
        for allocation in list(node.allocations.values()):
            self._placement.reshaped(allocation)
            recalls += call_all_back(allocation)
        return recalls
