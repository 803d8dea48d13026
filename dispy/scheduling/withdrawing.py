"""Jobs that leave their node or its queue without a result: they wait again, or are given up.

A part of the scheduling core, and as pure. What is pinned to a node waits for that node alone, and
is cancelled where it will not run.
"""

from collections.abc import Sequence

from dispy.model.statuses import Status
from dispy.scheduling.actions import Action, CancelOnNode, GiveUp, Requeued
from dispy.scheduling.lanes import enqueue_first, take_from_node
from dispy.scheduling.placement import Placement
from dispy.scheduling.queues import by_priority
from dispy.scheduling.records import Allocation, Cluster, JobNumber
from dispy.scheduling.retrying import may_run_again, note_attempts
from dispy.scheduling.stories import forget, remember

CANCELLED_BEFORE = "cancelled before its start"


class Withdrawing:
    """Takes jobs away from allocations, and has placement look at what waits again."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    def cancel(self, cluster: Cluster, job: JobNumber, why: str) -> list[Action]:
        """Cancel a job, as `Scheduling.cancel` has it."""
        why = why or CANCELLED_BEFORE
        allocation = cluster.placed.get(job)
        if allocation is not None:
            cluster.cancelling.setdefault(job, why)
            return [CancelOnNode(allocation.node.node_id, cluster.cluster_id, job)]
        lane, pinned_to = cluster.lane_of(job), cluster.pinned.get(job)
        if job in lane.queued:
            lane.queued.discard(job)  # its place in the queue is passed over later
            self._placement.reservations.release_surplus(lane)
        elif pinned_to is not None:
            pinned_to.pinned_waiting -= 1
        else:
            return []
        given_up = give_up(cluster, [job], why, Status.Cancelled)
        self._placement.queue_shrank(cluster)
        if pinned_to is not None:
            self._placement.reservations.check(pinned_to)
        return [given_up]

    def requeue(
        self,
        allocation: Allocation,
        jobs: Sequence[JobNumber],
        reason: str,
        now: float,
        cut_short: bool = False,
        died: bool = False,
    ) -> list[Action]:
        """Put jobs of a node back at the head of their queue, in the order they were sent.

        Those that are being cancelled are final instead: they did not begin there.
        cut_short, died: see Requeued.
        """
        cluster, actions = allocation.cluster, list[Action]()
        take_from_node(allocation, jobs)
        if not cluster.cancelling.keys().isdisjoint(jobs):
            gone = [job for job in jobs if job in cluster.cancelling]
            jobs = [job for job in jobs if job not in cluster.cancelling]
            actions += _cancelled(cluster, gone)
        if not jobs:
            return actions
        remember(cluster, jobs, reason, now)
        actions.append(Requeued(cluster.cluster_id, tuple(jobs), reason, cut_short, died))
        pinned = [job for job in jobs if job in cluster.pinned]
        if pinned:
            jobs = [job for job in jobs if job not in cluster.pinned]
            for priority, each in by_priority(pinned, cluster.priorities):
                allocation.pinned.of(priority).extendleft(reversed(each))
            allocation.pinned_waiting += len(pinned)
            if allocation.refusal is not None:
                actions += _cancel_pinned(allocation, allocation.refusal)
        enqueue_first(cluster, jobs)
        self._placement.queue_grew(cluster)
        return actions

    def turn_away(
        self, allocation: Allocation, jobs: Sequence[JobNumber], reason: str, now: float
    ) -> list[Action]:
        """Take back jobs for which a node has no room, and send none before it has some again."""
        back = [job for job in dict.fromkeys(jobs) if job in allocation.jobs]
        allocation.full = reason
        why = f"node {allocation.node.name} gave it back: {reason}"
        actions = self.requeue(allocation, back, why, now) if reason else []
        self._placement.reshaped(allocation)
        return actions

    def refuse(self, allocation: Allocation, reason: str) -> list[Action]:
        """Give a node nothing more of a cluster; its jobs that are there stay."""
        allocation.refusal = allocation.refusal or reason  # the first says most
        self._placement.offer(allocation)
        return _cancel_pinned(allocation, f"{allocation.node.name} cannot run it: {reason}")

    def stop(self, allocation: Allocation, now: float) -> list[Action]:
        """Take away the jobs that run where their computation is closed by force."""
        jobs, cluster = list(allocation.jobs), allocation.cluster
        if not jobs or not allocation.terminating:
            return []
        why = f"stopped on {allocation.node.name}, where {cluster.name} is closed"
        actions = self._run_elsewhere(allocation, jobs, why, now) if cluster.reentrant else []
        if left := list(allocation.jobs):
            take_from_node(allocation, left)
            actions.append(give_up(cluster, left, why, Status.Terminated))
        return actions

    def lose(self, allocation: Allocation, why: str, now: float) -> list[Action]:
        """Take all jobs from a lost node: they run elsewhere or, if they must not, are given up."""
        cluster, actions = allocation.cluster, list[Action]()
        if cluster.reentrant or cluster.retries or cluster.own_retries:
            movable = [job for job in allocation.jobs if job not in cluster.pinned]
            actions += self._run_elsewhere(allocation, movable, why, now)
        stay = list(allocation.jobs)
        remember(cluster, stay, why, now)
        take_from_node(allocation, stay)
        if stay:
            actions.append(give_up(cluster, stay, why, Status.Abandoned))
        return actions + _cancel_pinned(allocation, why)

    def _run_elsewhere(
        self, allocation: Allocation, jobs: Sequence[JobNumber], why: str, now: float
    ) -> list[Action]:
        """Queue those of `jobs` anew that may run again; the others stay where they are."""
        cluster = allocation.cluster
        moved = [job for job in jobs if may_run_again(cluster, job, lost_node=True)]
        note_attempts(cluster, moved)
        return self.requeue(allocation, moved, why, now, cut_short=True)


def give_up(cluster: Cluster, jobs: Sequence[JobNumber], reason: str, status: Status) -> GiveUp:
    """Return the last word on jobs that are nowhere any more, with their stories."""
    stories = {job: cluster.stories[job] for job in jobs if job in cluster.stories}
    forget(cluster, jobs)
    return GiveUp(cluster.cluster_id, tuple(jobs), reason, status, stories)


def _cancelled(cluster: Cluster, jobs: Sequence[JobNumber]) -> list[Action]:
    """Give up jobs that were being cancelled, for the reasons for which they were."""
    reasons: dict[str, list[JobNumber]] = {}
    for job in jobs:
        reasons.setdefault(cluster.cancelling[job], []).append(job)
    return [give_up(cluster, mine, why, Status.Cancelled) for why, mine in reasons.items()]


def cancel_again(allocation: Allocation) -> list[Action]:
    """Return the orders to cancel what is there still, which a broken link may have lost."""
    cancelling = allocation.cluster.cancelling
    if not cancelling:
        return []
    node_id, cluster_id = allocation.node.node_id, allocation.cluster.cluster_id
    mine = [job for job in allocation.jobs if job in cancelling]
    return [CancelOnNode(node_id, cluster_id, job) for job in mine]


def _cancel_pinned(allocation: Allocation, why: str) -> list[Action]:
    """Cancel what is queued for a node alone that will not run it."""
    cluster = allocation.cluster
    jobs = [job for job in allocation.pinned if cluster.pinned.get(job) is allocation]
    allocation.pinned.clear()
    allocation.pinned_waiting = 0
    if not jobs:
        return []
    return [give_up(cluster, jobs, f"cancelled: {why}", Status.Cancelled)]
