"""Which jobs to call back: those that wait on a node that falls behind, while another idles.

Only allocations that were sent jobs ahead are watched, each looked at once in STALL_SECONDS at
most; so a look costs nothing for nodes that merely run long jobs. The node names those that it
really gave up, and only they run elsewhere.
"""

import heapq
from collections.abc import Callable, Container
from itertools import count, islice

from dispy.scheduling.actions import Action, Recall
from dispy.scheduling.records import (
    PREFETCH_JOBS,
    PREFETCH_SECONDS,
    Allocation,
    ClusterId,
    JobNumber,
)

# Without a result, with jobs ahead: these are short as measured, so several should have come.
STALL_SECONDS = 4 * PREFETCH_SECONDS


class Recalls:
    """Watches over jobs that were sent ahead."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Allocation]] = []
        self._entries = count()
        # Those that fell behind while no other node idled; looked at again when one does.
        self._behind: dict[ClusterId, dict[int, Allocation]] = {}
        self._looked = 0.0  # second of the last look at them

    @property
    def due(self) -> float | None:
        """The second at which there is something to look at; None: not before the next job."""
        if self._behind:
            next_look = self._looked + STALL_SECONDS
            return min(next_look, self._due[0][0]) if self._due else next_look
        return self._due[0][0] if self._due else None

    def watch(self, allocation: Allocation, now: float) -> None:
        """Look at an allocation again in STALL_SECONDS."""
        if not allocation.watched:
            allocation.watched = True
            heapq.heappush(self._due, (now + STALL_SECONDS, next(self._entries), allocation))

    def time_passed(self, now: float, is_wanted: Callable[[Allocation, int], bool]) -> list[Recall]:
        """Return what is to be called back now.

        is_wanted: whether jobs of this width are of more use elsewhere, or in the way of others.

        Costs O(log nodes) for each allocation that is due, and a step for each cluster that
        has some behind.
        """
        while self._due and self._due[0][0] <= now:
            allocation = heapq.heappop(self._due)[2]
            allocation.watched = False
            if _has_some_waiting(allocation):
                if _excess(allocation, now):
                    behind = self._behind.setdefault(allocation.cluster.cluster_id, {})
                    behind[id(allocation)] = allocation
                    allocation.watched = True
                else:
                    self.watch(allocation, now)
        self._looked = now
        orders: list[Recall] = []
        for cluster_id in list(self._behind):
            orders += self._call_back(cluster_id, now, is_wanted)
        return orders

    def forget_cluster(self, cluster_id: ClusterId) -> None:
        """Call nothing more of this cluster back."""
        self._behind.pop(cluster_id, None)

    def _call_back(
        self, cluster_id: ClusterId, now: float, is_wanted: Callable[[Allocation, int], bool]
    ) -> list[Recall]:
        """Call back from as many nodes as there are others with room."""
        behind, orders = self._behind[cluster_id], list[Recall]()
        while behind:
            allocation = next(iter(behind.values()))
            cluster = allocation.cluster
            width = max([cluster.width, *allocation.others])
            if not is_wanted(allocation, width):
                return orders
            if not cluster.strict and len(orders) >= cluster.lanes[width].listed:
                return orders
            del behind[id(allocation)]
            allocation.watched = False
            if not _has_some_waiting(allocation):
                continue
            self.watch(allocation, now)
            excess = _excess(allocation, now)
            if excess and not allocation.recalling and allocation.node.settled:
                orders.append(recall(allocation, excess))
        del self._behind[cluster_id]
        return orders


def recall(allocation: Allocation, excess: int, keep: Container[JobNumber] = frozenset()) -> Recall:
    """Return the order to call back its newest `excess` jobs, without those to `keep`."""
    allocation.recalling += 1
    jobs = (job for job in reversed(allocation.jobs) if job not in keep)
    newest = tuple(islice(jobs, min(excess, PREFETCH_JOBS)))
    return Recall(allocation.node.node_id, allocation.cluster.cluster_id, newest[::-1])


def call_all_back(allocation: Allocation) -> list[Action]:
    """Call everything back from an allocation that may not run it any more."""
    only_pinned = allocation.pinned_only or bool(allocation.node.drained)
    if allocation.limit and not allocation.leaving and not only_pinned:
        return []
    if not allocation.jobs or not allocation.node.settled:
        return []
    if not allocation.limit or allocation.leaving:
        return [recall(allocation, len(allocation.jobs))]
    pinned = allocation.cluster.pinned
    if all(job in pinned for job in allocation.jobs):
        return []
    return [recall(allocation, len(allocation.jobs), pinned)]


def _has_some_waiting(allocation: Allocation) -> bool:
    """Whether some of its jobs may wait there for a slot; not where it has an idle one itself."""
    return bool(allocation.jobs) and allocation.sent_ahead and not allocation.idle_room


def _excess(allocation: Allocation, now: float) -> int:
    """How many jobs would be better off elsewhere: all, or what would not be sent there now."""
    if now - allocation.progress >= STALL_SECONDS:
        allocation.stalled = True
        return len(allocation.jobs)
    cluster = allocation.cluster
    filled = allocation.fills if cluster.strict else allocation.cap
    slots = allocation.demand - filled * (1 + cluster.window)
    return max(0, slots) // min(cluster.width, allocation.node.slots)
