"""New jobs: noted with what is their own, queued, and placement told. As pure as its core."""

from collections.abc import Mapping, Sequence

from dispy.model.statuses import Status
from dispy.scheduling.actions import Action
from dispy.scheduling.explaining import why_never_pinned
from dispy.scheduling.lanes import enqueue, note_priorities, note_widths
from dispy.scheduling.placement import Placement
from dispy.scheduling.queues import by_priority
from dispy.scheduling.records import Cluster, JobNumber, NodeId
from dispy.scheduling.withdrawing import give_up


class Queueing:
    """Takes jobs in, as `Scheduling.jobs_submitted` and `jobs_pinned` have it."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def submit(
        self,
        cluster: Cluster,
        jobs: Sequence[JobNumber],
        widths: Mapping[JobNumber, int],
        retries: Mapping[JobNumber, int],
        priorities: Mapping[JobNumber, int],
    ) -> None:
        """Queue jobs for any node of their cluster."""
        self.note(cluster, widths, retries, priorities)
        self._placement.policy.submitted(cluster, jobs)
        enqueue(cluster, jobs)
        self._placement.queue_grew(cluster)

    def pin(
        self,
        cluster: Cluster,
        jobs: Sequence[JobNumber],
        node_id: NodeId,
        widths: Mapping[JobNumber, int],
        retries: Mapping[JobNumber, int],
        priorities: Mapping[JobNumber, int],
    ) -> list[Action]:
        """Queue jobs for one node; give them up if they would never run there."""
        self.note(cluster, widths, retries, priorities)
        allocation = cluster.allocations.get(node_id)
        widest = max(map(cluster.width_of, jobs), default=0)
        why = why_never_pinned(allocation, widest)
        if allocation is None or why:
            return [give_up(cluster, jobs, f"cancelled: {why}", Status.Cancelled)]
        self._placement.policy.submitted(cluster, jobs)
        for priority, each in by_priority(jobs, cluster.priorities):
            allocation.pinned.of(priority).extend(each)
        allocation.pinned_waiting += len(jobs)
        cluster.pinned.update(dict.fromkeys(jobs, allocation))
        self._placement.offer(allocation)
        return []

    def note(
        self,
        cluster: Cluster,
        widths: Mapping[JobNumber, int],
        retries: Mapping[JobNumber, int],
        priorities: Mapping[JobNumber, int],
    ) -> None:
        """Keep what single jobs say of themselves."""
        cluster.own_retries.update(retries)
        if priorities:
            note_priorities(cluster, priorities)
        if widths and note_widths(cluster, widths):
            self._placement.lane_added(cluster)
