"""Which waiting job goes to which node next: the indexes, and the one pass over what is dirty.

A cluster keeps a lazy heap of its allocations with room, nodes with idle slots first. An
allocation that finds no idle slot stands in its node's line (`Node.watching`); when a slot comes
free the line is served, the cluster with the fewest jobs out first. Who joins a line has looked at
that node itself, and leaves it when it is looked at again: so an event costs O(log nodes), and a
step for each cluster that has looked at the node since; clusters that want nothing cost nothing.

A cluster whose jobs differ in width has a lane, with a heap of its own, for each width; the lane
with the oldest head goes first. A job that needs more slots than are idle where its turn has come
has the node reserved: nobody else gets free slots there until the job fits (`dispy.scheduling.
reserving`).
"""

import heapq
import sys
from collections.abc import Sequence
from itertools import islice

from dispy.scheduling.actions import RunBatch
from dispy.scheduling.recalls import Recalls
from dispy.scheduling.records import (
    Allocation,
    Cluster,
    JobNumber,
    Lane,
    Node,
    Reservation,
)
from dispy.scheduling.reserving import Reservations, lane_load, pinned_width

FAIR_LOOK = 8  # clusters in line that are compared for a free slot: bounds the cost of a look
STALE_ENTRIES = 64  # of a heap that are tolerated beyond those that count
_NOBODY = sys.maxsize  # younger than every job


class Placement:
    """Knows what is dirty, and turns it into batches."""

    def __init__(self, recalls: Recalls) -> None:
        self._recalls = recalls
        self._clusters: dict[int, Cluster] = {}
        self._nodes: dict[str, Node] = {}
        self.reservations = Reservations(self)

    @property
    def is_dirty(self) -> bool:
        """Whether `place` has anything to look at."""
        return bool(self._clusters or self._nodes)

    # -- what has changed

    def queue_grew(self, cluster: Cluster) -> None:
        """Have a cluster looked at that has jobs to place."""
        self._clusters[cluster.cluster_id] = cluster

    def changed(self, allocation: Allocation) -> None:
        """Take note of an allocation whose jobs, limit or state is another now."""
        node = allocation.node
        was_ahead = node.count > node.busy
        idle, load = allocation.recount()
        if not allocation.listed or load < allocation.listed_load or allocation.pinned_waiting:
            self._offer(allocation, idle, load)
        if (
            (node.watching and (node.busy < node.slots or (node.ahead and not was_ahead)))
            or node.reserved is not None
            or node.narrow
        ):
            self.look_at(node)

    def reshaped(self, allocation: Allocation) -> None:
        """Take note that how many slots there are, or for whom, is another number now."""
        self.offer(allocation)
        self.changed(allocation)

    def look_at(self, node: Node) -> None:
        """Have a node looked at that may have free slots for those who wait for them."""
        self._nodes[node.node_id] = node

    def offer(self, allocation: Allocation) -> None:
        """Put an allocation where it will be found: listed, in line, or neither when full."""
        self._offer(allocation, *allocation.recount())

    def _offer(self, allocation: Allocation, idle: int, load: float) -> None:
        node, cluster_id = allocation.node, allocation.cluster.cluster_id
        if node.watching:
            node.watching.pop(cluster_id, None)
        self._unlist(allocation)
        if node.reserved is not None:
            self.reservations.check(allocation)
        if not allocation.is_usable:
            return
        if allocation.pinned_waiting and (idle or allocation.ahead_room):
            node.pinning[cluster_id] = allocation
            self._nodes[node.node_id] = node
        elif idle and not node.watching:
            self._list(allocation, idle, load)
            return
        if (
            allocation.counted < allocation.cap
        ):  # a full one is offered again when a job of its own ends
            node.watching[cluster_id] = allocation
            if idle:
                self._nodes[node.node_id] = node
        if not idle and allocation.ahead_room:
            self._list(allocation, idle, load)

    def _list(self, allocation: Allocation, idle: int, load: float) -> None:
        """Enter it into its cluster's heaps of allocations with room."""
        cluster = allocation.cluster
        self._unlist(allocation)
        if cluster.plain and not allocation.pinned_only:
            allocation.listed = cluster.plain
        else:
            allocation.listed = self._lanes_with_room(allocation, idle)
        allocation.listed_load = load
        for lane in allocation.listed:
            heap, first = lane.candidates, load
            if lane.width > 1:
                first = lane_load(allocation, lane, idle, load)
            heapq.heappush(heap, (first, allocation.node.order, allocation.version, allocation))
            lane.listed += 1
            if lane.queued:
                self._clusters[cluster.cluster_id] = cluster
            if len(heap) > STALE_ENTRIES + 4 * lane.listed:
                heap[:] = [entry for entry in heap if _counts(entry)]
                heapq.heapify(heap)

    def _lanes_with_room(self, allocation: Allocation, idle: int) -> tuple[Lane, ...]:
        """Return the lanes for which it has room, or idle slots from which a room can be made."""
        slots, ahead = allocation.node.slots, 0 if idle else allocation.ahead_room
        lanes = [
            lane
            for lane in allocation.cluster.lanes.values()
            if allocation.may_run(lane.width) and (idle or ahead >= min(lane.width, slots))
        ]
        if idle and any(min(lane.width, slots) > idle for lane in lanes):
            allocation.node.narrow[allocation.cluster.cluster_id] = allocation
        return tuple(lanes)

    def _unlist(self, allocation: Allocation) -> None:
        allocation.version += 1
        for lane in allocation.listed:
            lane.listed -= 1
        allocation.listed = ()
        if allocation.node.narrow:
            allocation.node.narrow.pop(allocation.cluster.cluster_id, None)

    def lane_added(self, cluster: Cluster) -> None:
        """List a cluster's nodes for a width that is new to it; costs O(its nodes)."""
        for allocation in cluster.allocations.values():
            self.offer(allocation)

    def forget(self, allocation: Allocation) -> None:
        """Take out an allocation that is no more; its jobs have been taken from it before."""
        node, cluster_id = allocation.node, allocation.cluster.cluster_id
        allocation.ready = False
        self.changed(allocation)
        self.reservations.check(allocation)
        self._unlist(allocation)
        node.watching.pop(cluster_id, None)
        node.pinning.pop(cluster_id, None)
        node.allocations.pop(cluster_id, None)
        allocation.cluster.allocations.pop(node.node_id, None)

    def forget_cluster(self, cluster: Cluster) -> None:
        """Place nothing more of this cluster."""
        self._clusters.pop(cluster.cluster_id, None)

    def forget_node(self, node: Node) -> None:
        """Place nothing more on this node."""
        self._nodes.pop(node.node_id, None)

    # -- placing

    def place(self, now: float) -> list[RunBatch]:
        """Give waiting jobs to nodes until none has room for them."""
        batches: list[RunBatch] = []
        while self._clusters or self._nodes:
            while self._nodes:
                self._serve(self._nodes.popitem()[1], now, batches)
            if len(self._clusters) == 1:  # nearly always; and jobs of one are not sorted
                self._fill(self._clusters.popitem()[1], now, batches)
                continue
            for cluster in sorted(self._clusters.values(), key=_fewest_out):
                self._clusters.pop(cluster.cluster_id, None)
                self._fill(cluster, now, batches)
        return batches

    def _serve(self, node: Node, now: float, batches: list[RunBatch]) -> None:
        """Give a node's room to pinned jobs, then its idle slots to those in line."""
        if node.reserved is not None and not self._serve_reserved(node.reserved, now, batches):
            return
        while node.pinning:
            self._send_pinned(node.pinning.popitem()[1], now, batches)
        line = node.watching
        while node.busy < node.slots and line and node.reserved is None:
            chosen = min(islice(line.values(), FAIR_LOOK), key=_next_in_line)
            del line[chosen.cluster.cluster_id]
            if chosen.pinned_waiting and chosen.room:
                self._send_pinned(chosen, now, batches)
            elif chosen.room and not self._serve_next(chosen, now, batches):
                self._list(chosen, *chosen.recount())  # it wants nothing now: it leaves the line
        if node.narrow and node.busy < node.slots:
            for allocation in list(node.narrow.values()):
                self.offer(allocation)  # there may be slots enough now
        if node.ahead and line:  # jobs wait there, so those in line may send some to wait too
            for allocation in list(line.values()):
                if allocation.pinned_waiting:
                    self._send_pinned(allocation, now, batches)
                elif allocation.ahead_room and not allocation.listed:
                    self._list(allocation, *allocation.recount())

    def _serve_next(self, chosen: Allocation, now: float, batches: list[RunBatch]) -> bool:
        """Give the first in line its part of a node's idle slots; False: it wants none."""
        cluster, node = chosen.cluster, chosen.node
        lanes = cluster.in_turn()
        for at, lane in enumerate(lanes):
            if not chosen.may_run(lane.width):
                continue
            line = islice(node.watching.values(), FAIR_LOOK)
            part = -(-chosen.room // (1 + sum(a.cluster.has_queued for a in line)))
            width = min(lane.width, node.slots)
            until = _first_of(lanes[at + 1 :])
            if fit := part // width or min(1, chosen.jobs_that_fit(width, chosen.idle_room)):
                self._send(chosen, lane, _take(lane, fit, until), now, batches)
                return True
            if chosen.idle_room and self.reservations.are_wanted(lane, until):
                self.reservations.make(chosen, lane)
                return True
        return False

    def _serve_reserved(
        self, reservation: Reservation, now: float, batches: list[RunBatch]
    ) -> bool:
        """Send the job that a node is reserved for; False: its slots are still kept for it."""
        allocation, lane = reservation.allocation, reservation.lane
        allocation.recount()
        if not self.reservations.fits(reservation):
            return False
        self.reservations.release(allocation.node)
        if lane is None:
            self._send_pinned(allocation, now, batches)
        else:
            self._send(allocation, lane, _take(lane, 1), now, batches)
        return True

    def _send_pinned(self, allocation: Allocation, now: float, batches: list[RunBatch]) -> None:
        cluster = allocation.cluster
        while allocation.pinned_waiting and (room := allocation.room):
            if cluster.plain:
                self._send(allocation, None, _take_pinned(allocation, room), now, batches)
                continue
            width = pinned_width(allocation)
            if room < width and allocation.idle_room:
                self.reservations.make(allocation, None)
                return
            if room < width:
                return  # it is offered again when there is more
            self._send(allocation, None, _take_pinned(allocation, 1), now, batches)

    def _fill(self, cluster: Cluster, now: float, batches: list[RunBatch]) -> None:
        """Give a cluster's jobs to its least loaded nodes; O(log nodes) for each batch."""
        lanes = several = cluster.in_turn()
        while lanes:
            lane, *others = lanes
            self._fill_lane(cluster, lane, _first_of(others), now, batches)
            if not others:
                break
            if lane.queued and lane.head < _first_of(others):
                lanes = others  # it is stuck; younger jobs of another width may fit somewhere
            else:
                lanes = sorted((lane for lane in lanes if lane.queued), key=lambda lane: lane.head)
        if len(several) > 1:  # what no older job has taken is there for all
            for lane in cluster.in_turn():
                self._fill_lane(cluster, lane, _NOBODY, now, batches)
        self._clusters.pop(cluster.cluster_id, None)

    def _fill_lane(
        self, cluster: Cluster, lane: Lane, until: JobNumber, now: float, batches: list[RunBatch]
    ) -> None:
        """Give jobs of one width to nodes, those older than the job `until`."""
        heap, width = lane.candidates, lane.width
        while lane.queued and heap and (until is _NOBODY or lane.head < until):
            listed_load, _, version, allocation = heap[0]
            if allocation.version != version:
                heapq.heappop(heap)
                continue
            idle, load = allocation.recount()
            if width == 1:
                room, true_load = idle or allocation.ahead_room, load
            else:
                room = allocation.jobs_that_fit(width, idle)
                true_load = lane_load(allocation, lane, idle, load)
            if true_load > listed_load or not (room or idle) or not allocation.is_usable:
                heapq.heappop(heap)
                self._offer(allocation, idle, load)
            elif room:
                even_part = -(-len(lane.queued) // lane.listed)
                jobs = _take(lane, min(room, even_part), until)
                self._send(allocation, lane, jobs, now, batches)
            elif self.reservations.are_wanted(lane, until):
                self.reservations.make(allocation, lane)
            else:
                return  # it fits nowhere now, and enough room is being made

    def _send(
        self,
        allocation: Allocation,
        lane: Lane | None,
        jobs: list[JobNumber],
        now: float,
        batches: list[RunBatch],
    ) -> None:
        """Send jobs that were taken from their lane, or (None) from those pinned there."""
        cluster, there = allocation.cluster, allocation.jobs
        if not there:
            allocation.progress = now
        fills, counted = allocation.fills, allocation.counted
        there.update(dict.fromkeys(jobs, now))
        cluster.placed.update(dict.fromkeys(jobs, allocation))
        if cluster.widths:
            allocation.note_widths(jobs, 1)
        self.changed(allocation)
        if lane is not None and lane.reservations:
            self.reservations.release_surplus(lane)
        waits = allocation.fills - fills < allocation.counted - counted
        if waits or allocation.node.busy > allocation.node.slots:
            allocation.sent_ahead = True
            self._recalls.watch(allocation, now)
        batches.append(RunBatch(allocation.node.node_id, cluster.cluster_id, tuple(jobs)))

    def has_idle(self, cluster: Cluster, width: int) -> bool:
        """Whether a job of this cluster and width, if it had one waiting, would begin at once."""
        heap = cluster.lanes[width].candidates
        while heap and heap[0][0] < 1:
            _, _, version, allocation = heap[0]
            if allocation.version == version:
                if allocation.is_usable and allocation.idle_room >= min(
                    width, allocation.node.slots
                ):
                    return True
                self.offer(allocation)
            if heap[0][3].version != heap[0][2]:
                heapq.heappop(heap)
        return False


def _counts(entry: tuple[float, int, int, Allocation]) -> bool:
    return entry[3].version == entry[2]


def _first_of(lanes: Sequence[Lane]) -> JobNumber:
    """Return the first job of these lanes, which the first of them has."""
    return lanes[0].head if lanes else _NOBODY


def _fewest_out(cluster: Cluster) -> tuple[int, int]:
    return cluster.slots_out, cluster.cluster_id


def _next_in_line(allocation: Allocation) -> tuple[bool, int]:
    """Order for a free slot: pinned jobs, who only stands in the way, then by slots out."""
    wants = allocation.cluster.has_queued and not allocation.pinned_waiting
    return wants, allocation.cluster.slots_out


def _take(lane: Lane, count: int, until: JobNumber | None = None) -> list[JobNumber]:
    """Take the first `count` jobs of a lane, those before `until`, passing over cancelled ones."""
    queue, queued = lane.queue, lane.queued
    if len(queue) == len(queued) and until in (None, _NOBODY):  # no cancelled ones
        jobs = [queue.popleft() for _ in range(min(count, len(queue)))]
        queued.difference_update(jobs)
        return jobs
    jobs = []
    while len(jobs) < count and queued:
        job = lane.head
        if until is not None and job >= until:
            break
        queue.popleft()
        queued.discard(job)
        jobs.append(job)
    return jobs


def _take_pinned(allocation: Allocation, count: int) -> list[JobNumber]:
    """Take the first `count` jobs that are pinned there, passing over cancelled ones."""
    jobs: list[JobNumber] = []
    while len(jobs) < count and allocation.pinned_waiting:
        job = allocation.pinned.popleft()
        if allocation.cluster.pinned.get(job) is allocation:
            allocation.pinned_waiting -= 1
            jobs.append(job)
    return jobs
