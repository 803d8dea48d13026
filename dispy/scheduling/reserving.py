"""How a job that needs several slots of one node gets them, though each is wanted when it is free.

The node where the job's turn came is reserved for it: its free slots are collected, and nobody
else gets one, until the job fits. A node is reserved for one job at a time, a job has one node, and
each lane has at most as many reservations as queued jobs. So no two wide jobs wait for each other,
and one starts when at most as many slots as its node has have come free there since. It may start
on another node before; then the youngest reservation too many is given up.
"""

from typing import Protocol

from dispy.scheduling.queues import JobTurn
from dispy.scheduling.records import Allocation, Cluster, Lane, Node, Reservation


class Looks(Protocol):
    """Who looks again at what has changed, and has allocations where they will be found."""

    def look_at(self, node: Node) -> None:
        """Have a node looked at."""

    def queue_grew(self, cluster: Cluster) -> None:
        """Have a cluster looked at."""

    def offer(self, allocation: Allocation) -> None:
        """Put an allocation where it will be found."""

    def settle(self, cluster: Cluster) -> None:
        """Count what is reserved for its owner."""


class Reservations:
    """Makes them and gives them up; each is with its node and its lane."""

    def __init__(self, looks: Looks) -> None:
        self._looks = looks

    def are_wanted(self, lane: Lane, until: JobTurn) -> bool:
        """Whether a lane has a job that goes before `until` and that no node is reserved for."""
        reserved = len(lane.reservations)
        if lane.width == 1 or reserved >= len(lane.queued):
            return False
        return lane.turn < until and lane.turn_at(reserved) < until

    def make(self, allocation: Allocation, lane: Lane | None) -> None:
        """Reserve a node for the next job of a lane, or (None) for the next one pinned to it."""
        node = allocation.node
        assert node.reserved is None, "a node is reserved for one job at a time"
        slots = pinned_width(allocation) if lane is None else lane.width
        node.reserved = Reservation(allocation, lane, slots)
        allocation.cluster.reserved += slots
        if lane is not None:
            lane.reservations[node.node_id] = allocation
        self._looks.settle(allocation.cluster)
        self._looks.offer(allocation)

    def fits(self, reservation: Reservation) -> bool:
        """Whether slots enough are free now for the job."""
        allocation, lane = reservation.allocation, reservation.lane
        wide = pinned_width(allocation) if lane is None else min(lane.width, allocation.node.slots)
        return allocation.free_room >= wide

    def check(self, allocation: Allocation) -> None:
        """Give a node's reservation up if it is this one's, and of no use any more."""
        reservation = allocation.node.reserved
        if reservation is None or reservation.allocation is not allocation:
            return
        if reservation.lane is None:
            is_good = allocation.pinned_waiting > 0 and allocation.limit > 0
        else:
            is_good = allocation.may_run(reservation.lane.width)
        if not (is_good and allocation.is_usable):
            self.release(allocation.node)

    def release(self, node: Node) -> None:
        """Free a node; whoever waits for it, or for a node like it, is looked at again."""
        reservation, node.reserved = node.reserved, None
        assert reservation is not None, "who releases has looked"
        reservation.allocation.cluster.reserved -= reservation.slots
        self._looks.settle(reservation.allocation.cluster)
        if reservation.lane is not None:
            del reservation.lane.reservations[node.node_id]
            if reservation.lane.queued:
                self._looks.queue_grew(reservation.allocation.cluster)
        self._looks.look_at(node)

    def release_surplus(self, lane: Lane) -> None:
        """Give up what is more than the lane has jobs, the youngest first."""
        while len(lane.reservations) > len(lane.queued):
            self.release(next(reversed(lane.reservations.values())).node)


def pinned_width(allocation: Allocation) -> int:
    """Return how many slots the next job that is pinned there needs, of those it may use."""
    pinned, mine = allocation.pinned, allocation.cluster.pinned
    while not pinned.queue or mine.get(pinned.queue[0]) is not allocation:
        pinned.go_on()  # cancelled
    return min(allocation.cluster.width_of(pinned.queue[0]), allocation.cap)


def lane_load(allocation: Allocation, lane: Lane, idle: int, load: float) -> float:
    """Return the load by which a lane of wide jobs finds an allocation: below 1 if one fits."""
    return load if not idle or idle >= min(lane.width, allocation.node.slots) else 1 + load
