"""Jobs that are at nodes when a scheduler begins: an earlier one gave them, and was ended since.

A part of the scheduling core, and as pure. The jobs are their nodes' until these settle or are
lost, as after a broken link.
"""

from collections.abc import Collection, Mapping, Sequence

from dispy.scheduling.placement import Placement
from dispy.scheduling.queueing import Queueing
from dispy.scheduling.records import Allocation, Cluster, JobNumber
from dispy.scheduling.withdrawing import CANCELLED_BEFORE


class Restoring:
    """Used before a cluster is given anything new."""

    def __init__(self, placement: Placement, queueing: Queueing) -> None:
        self._placement, self._queueing = placement, queueing

    def note(
        self,
        cluster: Cluster,
        attempts: Mapping[JobNumber, int],
        deaths: Mapping[JobNumber, int],
        cancelling: Collection[JobNumber],
    ) -> None:
        """Count runs of a cluster's jobs that were cut short, and those that must not run again."""
        cluster.attempts.update(attempts)
        cluster.deaths.update(deaths)
        cluster.cancelling.update(dict.fromkeys(cancelling, CANCELLED_BEFORE))

    def place(
        self,
        allocation: Allocation,
        jobs: Sequence[JobNumber],
        pinned: Collection[JobNumber],
        widths: Mapping[JobNumber, int],
        retries: Mapping[JobNumber, int],
        priorities: Mapping[JobNumber, int],
        now: float,
    ) -> None:
        """Have a node that is not settled have these jobs; `pinned`: those for it alone."""
        cluster = allocation.cluster
        self._queueing.note(cluster, widths, retries, priorities)
        allocation.jobs.update(dict.fromkeys(jobs, now))
        cluster.placed.update(dict.fromkeys(jobs, allocation))
        cluster.pinned.update(dict.fromkeys(pinned, allocation))
        if cluster.widths:
            allocation.note_widths(jobs, 1)
        allocation.progress, allocation.sent_ahead = now, True  # some may wait there
        self._placement.changed(allocation)
        self._placement.watch(allocation, now)
