"""Computations that leave a node: first their jobs there, then the order to close them.

What a node has not begun is called back; what runs ends by itself or is stopped. Only an
allocation without jobs, on a node that both sides agree with, is told to be closed: so no job
meets a node that closes its computation.
"""

from dispy.scheduling.actions import Leave
from dispy.scheduling.records import Allocation, ClusterId, NodeId


class Departures:
    """Knows the allocations that leave and have not been told so."""

    def __init__(self) -> None:
        self._leaving: dict[tuple[NodeId, ClusterId], Allocation] = {}

    def begin(self, allocation: Allocation, terminate: bool) -> None:
        """Have an allocation left by its jobs; `terminate`: they do not end by themselves."""
        allocation.ready = False
        allocation.leaving = True
        allocation.terminating = allocation.terminating or terminate
        self._leaving[allocation.node.node_id, allocation.cluster.cluster_id] = allocation

    def forget(self, allocation: Allocation) -> None:
        """Order nothing for an allocation that is no more, or has left."""
        allocation.leaving = allocation.terminating = False
        self._leaving.pop((allocation.node.node_id, allocation.cluster.cluster_id), None)

    @property
    def is_due(self) -> bool:
        """Whether some computation can be closed now; a step for each that leaves."""
        return any(allocation.is_left for allocation in self._leaving.values())

    def due(self) -> list[Leave]:
        """Return the orders for those that can be closed now, each once."""
        left = [place for place, allocation in self._leaving.items() if allocation.is_left]
        for place in left:
            del self._leaving[place]
        return [Leave(*place) for place in left]
