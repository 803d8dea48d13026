"""What follows from jobs that ended badly: another run, or a node that gets no more of them.

A part of the scheduling core, and as pure.
"""

from dispy.scheduling.actions import Action
from dispy.scheduling.placement import Placement
from dispy.scheduling.recalls import call_all_back
from dispy.scheduling.records import Allocation, JobNumber
from dispy.scheduling.retrying import blame, may_run_again, note_death
from dispy.scheduling.withdrawing import Withdrawing


class Failing:
    """Works on allocations that its core has looked up."""

    def __init__(self, placement: Placement, withdrawing: Withdrawing) -> None:
        self._placement, self._withdrawing = placement, withdrawing

    def died(self, allocation: Allocation, job: JobNumber, why: str, now: float) -> list[Action]:
        """Queue a job anew whose process has ended under it, if it may run again."""
        cluster = allocation.cluster
        if job not in allocation.jobs or not may_run_again(cluster, job, lost_node=False):
            return []
        note_death(cluster, job)
        actions = self._withdrawing.requeue(allocation, [job], why, now, True, True)
        allocation.progress, allocation.stalled = now, False
        self._placement.changed(allocation)
        return actions

    def failed(
        self,
        allocation: Allocation,
        failed: int,
        succeeded: int,
        seconds: float | None,
        reason: str,
    ) -> tuple[str | None, list[Action]]:
        """Count results; set the node aside, and say why, where they say that it is at fault."""
        why = blame(allocation, failed, succeeded, seconds, reason)
        if why is None or allocation.refusal is not None:
            return None, []
        allocation.set_aside = True
        actions = self._withdrawing.refuse(allocation, why)
        self._placement.reshaped(allocation)
        return why, actions + call_all_back(allocation)

    def forgive(self, allocation: Allocation) -> None:
        """Let a node that was set aside have jobs again."""
        if allocation.set_aside:
            allocation.set_aside, allocation.refusal, allocation.failed_in_a_row = False, None, 0
