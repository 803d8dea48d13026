"""Which waiting job goes to which node next: the one pass over what is dirty.

When a slot of a node comes free, the line of those that found none idle there is served, the
cluster with the fewest jobs out first; a cluster with jobs goes to the nodes in its heaps
(`dispy.scheduling.listing`), the least loaded first.

Of a cluster whose jobs differ in width the lane with the job whose turn it is goes first. A job
that needs more slots than are idle where its turn has come has the node reserved: nobody else gets
free slots there until the job fits (`dispy.scheduling.reserving`).

All this is for the policy by load. Where turns are strict (`dispy.scheduling.turns`) the line is
served in turn, its first says whether jobs may be sent to wait, and clusters that are looked at
together get parts in turn. Who may not start jobs at all (`dispy.scheduling.gates`) wants nothing.
"""

import heapq
from itertools import islice

from dispy.scheduling.actions import RunBatch
from dispy.scheduling.gates import Gates
from dispy.scheduling.lanes import first_of, take, take_pinned
from dispy.scheduling.listing import Listing
from dispy.scheduling.policies import Policy
from dispy.scheduling.queues import NOBODY, JobTurn
from dispy.scheduling.recalls import Recalls
from dispy.scheduling.records import (
    Allocation,
    Cluster,
    ClusterId,
    JobNumber,
    Lane,
    Node,
    Reservation,
)
from dispy.scheduling.reserving import lane_load, pinned_width
from dispy.scheduling.turns import Turn, Turns

FAIR_LOOK = 8  # clusters in line that are compared for a free slot: bounds the cost of a look
ALL_LOOKED_AT, PART_SENT, MAY_NOT_START = range(3)  # how a look for nodes ended


class Placement(Listing):
    """Turns what is dirty into batches."""

    def __init__(self, recalls: Recalls, policy: Policy, gates: Gates) -> None:
        super().__init__(policy, gates)
        self._recalls = recalls
        self.hungry: set[ClusterId] = set()  # had jobs left at their last look for nodes

    def place(self, now: float) -> list[RunBatch]:
        """Give waiting jobs to nodes until none has room for them."""
        batches: list[RunBatch] = []
        while self.is_dirty:
            while self._nodes:
                self._serve(self._nodes.popitem()[1], now, batches)
            if not self._clusters:
                for cluster in islice(self._gates.woken(self._turn_of), 1):
                    self.let_in(cluster)
                continue
            if len(self._clusters) == 1:  # nearly always; and jobs of one are not sorted
                self._fill(self._clusters.popitem()[1], now, batches)
                continue
            if self.turns is not None:
                self._fill_in_turn(self.turns, now, batches)
                continue
            for cluster in sorted(self._clusters.values(), key=_fewest_out):
                self._clusters.pop(cluster.cluster_id, None)
                self._fill(cluster, now, batches)
        return batches

    def _fill_in_turn(self, turns: Turns, now: float, batches: list[RunBatch]) -> None:
        """Give jobs of several clusters to their nodes: a batch of the first, and so on."""
        waiting = [(turns.turn_of(c), c) for c in self._clusters.values()]
        heapq.heapify(waiting)
        while waiting:
            while self._nodes:
                self._serve(self._nodes.popitem()[1], now, batches)
            cluster = heapq.heappop(waiting)[1]
            most = None if self.policy.takes_all else 1 + len(waiting)
            if self._fill(cluster, now, batches, most):
                heapq.heappush(waiting, (turns.turn_of(cluster), cluster))

    def _serve(self, node: Node, now: float, batches: list[RunBatch]) -> None:
        """Give a node's room to pinned jobs, then its idle slots to those in line."""
        if node.reserved is not None and not self._serve_reserved(node.reserved, now, batches):
            return
        while node.pinning:
            self._send_pinned(node.pinning.popitem()[1], now, batches)
        line = node.watching
        while node.busy < node.slots and line and node.reserved is None:
            if self.turns is None:
                chosen = min(islice(line.values(), FAIR_LOOK), key=_next_in_line)
            else:
                chosen = self.turns.choose(node)
            del line[chosen.cluster.cluster_id]
            if chosen.pinned_waiting and chosen.room:
                self._send_pinned(chosen, now, batches)
            elif chosen.room and not self._serve_next(chosen, now, batches):
                self._list(chosen, *chosen.recount())  # it wants nothing now: it leaves the line
        if node.narrow and node.busy < node.slots:
            for allocation in list(node.narrow.values()):
                self.offer(allocation)  # there may be slots enough now
        if self.turns is None and node.ahead and line:  # so those in line may have some wait too
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
            if not (cluster.is_free or self._may_start(cluster, lane.width)):
                return False
            part = chosen.room
            if part > 1 and not (self.policy.strict and self.policy.takes_all):
                line = islice(node.watching.values(), FAIR_LOOK)
                part = -(-part // (1 + sum(a.cluster.has_queued for a in line)))
            width = min(lane.width, node.slots)
            until = first_of(lanes[at + 1 :])
            if fit := part // width or min(1, chosen.jobs_that_fit(width, chosen.idle_room)):
                count = chosen.turn(fit) if width == 1 else fit
                jobs = take(lane, min(count, cluster.may_start(lane.width)), until)
                self._send(chosen, lane, jobs, now, batches, fit * width)
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
            width = min(lane.width, allocation.node.slots)
            self._send(allocation, lane, take(lane, 1), now, batches, width)
        return True

    def _send_pinned(self, allocation: Allocation, now: float, batches: list[RunBatch]) -> None:
        cluster = allocation.cluster
        while allocation.pinned_waiting and (room := allocation.room):
            if not (cluster.is_free or self._may_start(cluster, pinned_width(allocation))):
                cluster.kept[allocation.node.node_id] = allocation
                return
            if cluster.plain:
                room = min(room, cluster.may_start(1))
                idle = allocation.idle_room
                self._send(allocation, None, take_pinned(allocation, room), now, batches, idle)
                continue
            width = pinned_width(allocation)
            if room < width and allocation.idle_room:
                self.reservations.make(allocation, None)
                return
            if room < width:
                return  # it is offered again when there is more
            given = width if allocation.idle_room else 0
            self._send(allocation, None, take_pinned(allocation, 1), now, batches, given)

    def _fill(
        self,
        cluster: Cluster,
        now: float,
        batches: list[RunBatch],
        parts: int | None = None,
    ) -> bool:
        """Give a cluster's jobs to its least loaded nodes; O(log nodes) for each batch.

        parts: send one batch, of that part of a node's idle slots; True: there may be more to send.
        """
        lanes = several = cluster.in_turn()
        while lanes:
            lane, *others = lanes
            end = self._fill_lane(cluster, lane, first_of(others), now, batches, parts)
            if end == PART_SENT:
                return True
            if end == MAY_NOT_START or not others:
                break
            if lane.queued and lane.turn < first_of(others):
                lanes = others  # it is stuck; younger jobs of another width may fit somewhere
            else:
                lanes = sorted((lane for lane in lanes if lane.queued), key=lambda lane: lane.turn)
        if len(several) > 1:  # what no older job has taken is there for all
            for lane in cluster.in_turn():
                end = self._fill_lane(cluster, lane, NOBODY, now, batches, parts)
                if end == PART_SENT:
                    return True
                if end == MAY_NOT_START:
                    break  # nor may younger ones, lest this one never could
        self._clusters.pop(cluster.cluster_id, None)
        if cluster.has_queued:
            self.hungry.add(cluster.cluster_id)
        return False

    def _fill_lane(
        self,
        cluster: Cluster,
        lane: Lane,
        until: JobTurn,
        now: float,
        batches: list[RunBatch],
        parts: int | None,
    ) -> int:
        """Give jobs of one width to nodes, those that go before `until`; say why it ended.

        parts: PART_SENT after one batch of that part of a node's idle slots.
        """
        heap, width = lane.candidates, lane.width
        while lane.queued and heap and (until is NOBODY or lane.turn < until):
            listed_load, _, version, allocation = heap[0]
            if allocation.version != version:
                heapq.heappop(heap)
                continue
            idle, load = allocation.recount()
            ahead = 0 if idle else allocation.ahead_room
            if ahead and not self._may_send_ahead(allocation):
                ahead = 0
            if width == 1:
                room, true_load = idle or ahead, load
            else:
                narrow = min(width, allocation.node.slots)
                room = idle // narrow or ahead // narrow
                true_load = lane_load(allocation, lane, idle, load)
            if true_load > listed_load or not (room or idle) or not allocation.is_usable:
                heapq.heappop(heap)
                self._offer(allocation, idle, load)
            elif not (cluster.is_free or self._may_start(cluster, width)):
                return MAY_NOT_START
            elif room:
                # Very short ones are not spread: a message for each would cost more than they do.
                even_part = max(-(-len(lane.queued) // lane.listed), cluster.packet)
                if idle and parts is not None:
                    room = -(-room // parts)
                slots = min(room * width, idle)
                if idle and width == 1:
                    room = allocation.turn(room)
                room = min(room, even_part, cluster.may_start(width))
                jobs = take(lane, room, until)
                self._send(allocation, lane, jobs, now, batches, slots)
                if parts is not None:
                    return PART_SENT
            elif self.reservations.are_wanted(lane, until):
                self.reservations.make(allocation, lane)
            else:
                break  # it fits nowhere now, and enough room is being made
        return ALL_LOOKED_AT

    def _send(
        self,
        allocation: Allocation,
        lane: Lane | None,
        jobs: list[JobNumber],
        now: float,
        batches: list[RunBatch],
        given: int = 0,
    ) -> None:
        """Send jobs that were taken from their lane, or (None) from those pinned there.

        given: idle slots for them, at most; 0: they are to wait there.
        """
        cluster, there = allocation.cluster, allocation.jobs
        if not there:
            allocation.progress = now
        fills, counted = allocation.fills, allocation.counted
        there.update(dict.fromkeys(jobs, now))
        cluster.placed.update(dict.fromkeys(jobs, allocation))
        if cluster.widths:
            allocation.note_widths(jobs, 1)
        self.policy.served(cluster)
        self.changed(allocation, given)
        if lane is not None and lane.reservations:
            self.reservations.release_surplus(lane)
        waits = allocation.fills - fills < allocation.counted - counted
        if waits or allocation.node.busy > allocation.node.slots:
            allocation.sent_ahead = True
            self._recalls.watch(allocation, now)
        batches.append(RunBatch(allocation.node.node_id, cluster.cluster_id, tuple(jobs)))

    def watch(self, allocation: Allocation, now: float) -> None:
        """Look whether jobs that wait there are better off elsewhere."""
        self._recalls.watch(allocation, now)

    def _may_start(self, cluster: Cluster, width: int) -> bool:
        """Whether a job may start, as far as others go; else the cluster wants nothing for now."""
        if not cluster.may_start(width):
            self._gates.park(cluster, width)
            return False
        return cluster.account is None or self._gates.is_turn_of(cluster, cluster.account)

    def _turn_of(self, cluster: Cluster) -> Turn:
        return (-cluster.priority, self.policy.turn_of(cluster), cluster.cluster_id)

    def is_wanted(self, allocation: Allocation, width: int) -> bool:
        """Whether what waits there would begin elsewhere at once, or is in the way of others."""
        if self.turns is not None and self.turns.is_contended(allocation):
            return True
        return self._has_idle(allocation.cluster, width)

    def _has_idle(self, cluster: Cluster, width: int) -> bool:
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


def _fewest_out(cluster: Cluster) -> tuple[int, int, int]:
    return -cluster.priority, cluster.slots_out, cluster.cluster_id


def _next_in_line(allocation: Allocation) -> tuple[bool, int, int]:
    """Order for a free slot: pinned jobs, who only stands in the way, then by slots out."""
    wants = allocation.cluster.has_queued and not allocation.pinned_waiting
    return wants, -allocation.cluster.priority, allocation.cluster.slots_out
