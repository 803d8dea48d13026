"""Nodes that are drained: they get no new jobs, and what runs there ends. As pure as the core."""

from dispy.scheduling.actions import Action
from dispy.scheduling.placement import Placement
from dispy.scheduling.recalls import call_all_back
from dispy.scheduling.records import Node


class Drains:
    """Takes nodes out of use, and back; the next `place` heeds it."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def drain(self, node: Node, why: str) -> list[Action]:
        """Give a node no new jobs of anybody, for this reason; "": give it some again.

        What it has not begun is called back, but for what is pinned to it.
        """
        node.drained = why
        if why and node.reserved is not None:
            self._placement.reservations.release(node)
        recalls = list[Action]()
        for allocation in list(node.allocations.values()):
            self._placement.reshaped(allocation)
            recalls += call_all_back(allocation)
        return recalls
