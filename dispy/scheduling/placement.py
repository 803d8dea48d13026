"""Which waiting job goes to which node next: the indexes, and the one pass over what is dirty.

A cluster keeps a lazy heap of its allocations with room, nodes with idle slots first. An
allocation that finds no idle slot stands in its node's line (`Node.watching`); when a slot comes
free the line is served, the cluster with the fewest jobs out first. Who joins a line has looked at
that node itself, and leaves it when it is looked at again: so an event costs O(log nodes), and a
step for each cluster that has looked at the node since; clusters that want nothing cost nothing.
"""

import heapq
from itertools import islice

from dispy.scheduling.actions import RunBatch
from dispy.scheduling.recalls import Recalls
from dispy.scheduling.records import Allocation, Cluster, JobNumber, Node

FAIR_LOOK = 8  # clusters in line that are compared for a free slot: bounds the cost of a look
STALE_ENTRIES = 64  # of a heap that are tolerated beyond those that count


class Placement:
    """Knows what is dirty, and turns it into batches."""

    def __init__(self, recalls: Recalls) -> None:
        self._recalls = recalls
        self._clusters: dict[int, Cluster] = {}
        self._nodes: dict[str, Node] = {}

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
        if node.watching and (node.busy < node.slots or (node.ahead and not was_ahead)):
            self._nodes[node.node_id] = node

    def offer(self, allocation: Allocation) -> None:
        """Put an allocation where it will be found: listed, in line, or neither when full."""
        self._offer(allocation, *allocation.recount())

    def _offer(self, allocation: Allocation, idle: int, load: float) -> None:
        node, cluster_id = allocation.node, allocation.cluster.cluster_id
        if node.watching:
            node.watching.pop(cluster_id, None)
        self._unlist(allocation)
        if not allocation.is_usable:
            return
        if allocation.pinned_waiting and (idle or allocation.ahead_room):
            node.pinning[cluster_id] = allocation
            self._nodes[node.node_id] = node
        elif idle and not node.watching:
            self._list(allocation, load)
            return
        if not allocation.is_full:  # a full one is offered again when a job of its own ends
            node.watching[cluster_id] = allocation
            if idle:
                self._nodes[node.node_id] = node
        if not idle and allocation.ahead_room:
            self._list(allocation, load)

    def _list(self, allocation: Allocation, load: float) -> None:
        """Enter it into its cluster's heap of allocations with room."""
        cluster, heap = allocation.cluster, allocation.cluster.candidates
        self._unlist(allocation)
        heapq.heappush(heap, (load, allocation.node.order, allocation.version, allocation))
        allocation.listed, allocation.listed_load = True, load
        cluster.listed += 1
        if len(heap) > STALE_ENTRIES + 4 * cluster.listed:
            heap[:] = [entry for entry in heap if _counts(entry)]
            heapq.heapify(heap)
        if cluster.queued:
            self._clusters[cluster.cluster_id] = cluster

    def _unlist(self, allocation: Allocation) -> None:
        allocation.version += 1
        if allocation.listed:
            allocation.listed = False
            allocation.cluster.listed -= 1

    def forget(self, allocation: Allocation) -> None:
        """Take out an allocation that is no more; its jobs have been taken from it before."""
        node, cluster_id = allocation.node, allocation.cluster.cluster_id
        allocation.ready = False
        self.changed(allocation)
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
        while node.pinning:
            self._send_pinned(node.pinning.popitem()[1], now, batches)
        line = node.watching
        while node.busy < node.slots and line:
            chosen = min(islice(line.values(), FAIR_LOOK), key=_next_in_line)
            del line[chosen.cluster.cluster_id]
            if chosen.pinned_waiting and chosen.room:
                self._send_pinned(chosen, now, batches)
            elif chosen.cluster.queued and chosen.room:
                waiting = 1 + sum(bool(a.cluster.queued) for a in islice(line.values(), FAIR_LOOK))
                room = -(-chosen.room // waiting)
                self._send(chosen, _take(chosen.cluster, room), now, batches)
            elif chosen.room:
                self._list(chosen, chosen.recount()[1])  # it wants nothing now: it leaves the line
        if node.ahead and line:  # jobs wait there, so those in line may send some to wait too
            for allocation in list(line.values()):
                if allocation.pinned_waiting:
                    self._send_pinned(allocation, now, batches)
                elif allocation.ahead_room and not allocation.listed:
                    self._list(allocation, allocation.recount()[1])

    def _send_pinned(self, allocation: Allocation, now: float, batches: list[RunBatch]) -> None:
        while allocation.pinned_waiting and (room := allocation.room):
            self._send(allocation, _take_pinned(allocation, room), now, batches)

    def _fill(self, cluster: Cluster, now: float, batches: list[RunBatch]) -> None:
        """Give a cluster's jobs to its least loaded nodes; O(log nodes) for each batch."""
        heap = cluster.candidates
        while cluster.queued and heap:
            listed_load, _, version, allocation = heap[0]
            if allocation.version != version:
                heapq.heappop(heap)
                continue
            idle, load = allocation.recount()
            room = idle or allocation.ahead_room
            if load > listed_load or not room or not allocation.is_usable:
                heapq.heappop(heap)
                self._offer(allocation, idle, load)
                continue
            even_part = -(-len(cluster.queued) // cluster.listed)
            self._send(allocation, _take(cluster, min(room, even_part)), now, batches)
        self._clusters.pop(cluster.cluster_id, None)

    def _send(
        self, allocation: Allocation, jobs: list[JobNumber], now: float, batches: list[RunBatch]
    ) -> None:
        cluster, there = allocation.cluster, allocation.jobs
        if not there:
            allocation.progress = now
        before = allocation.fills
        there.update(dict.fromkeys(jobs, now))
        cluster.placed.update(dict.fromkeys(jobs, allocation))
        self.changed(allocation)
        if allocation.fills - before < len(jobs) or allocation.node.busy > allocation.node.slots:
            allocation.sent_ahead = True
            self._recalls.watch(allocation, now)
        batches.append(RunBatch(allocation.node.node_id, cluster.cluster_id, tuple(jobs)))

    def has_idle(self, cluster: Cluster) -> bool:
        """Whether a job of this cluster, if it had one waiting, would begin at once."""
        heap = cluster.candidates
        while heap and heap[0][0] < 1:
            _, _, version, allocation = heap[0]
            if allocation.version == version:
                if allocation.is_usable and allocation.idle_room:
                    return True
                self.offer(allocation)
            if heap[0][3].version != heap[0][2]:
                heapq.heappop(heap)
        return False


def _counts(entry: tuple[float, int, int, Allocation]) -> bool:
    return entry[3].version == entry[2]


def _fewest_out(cluster: Cluster) -> tuple[int, int]:
    return len(cluster.placed), cluster.cluster_id


def _next_in_line(allocation: Allocation) -> tuple[bool, int]:
    """Order for a free slot: pinned jobs, who only stands in the way, then by jobs out."""
    wants = bool(allocation.cluster.queued) and not allocation.pinned_waiting
    return wants, len(allocation.cluster.placed)


def _take(cluster: Cluster, count: int) -> list[JobNumber]:
    """Take the first `count` jobs of the queue, passing over cancelled ones."""
    queue, queued = cluster.queue, cluster.queued
    if len(queue) == len(queued):  # no cancelled ones
        jobs = [queue.popleft() for _ in range(min(count, len(queue)))]
        queued.difference_update(jobs)
        return jobs
    jobs = []
    while len(jobs) < count and queued:
        job = queue.popleft()
        if job in queued:
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
