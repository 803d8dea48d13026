"""The orders that come out of the scheduler's decisions; its owner carries them out."""

from dataclasses import dataclass, field

from dispy.model.statuses import Status
from dispy.scheduling.records import ClusterId, JobNumber, NodeId, Story


@dataclass(frozen=True, slots=True)
class RunBatch:
    """Send these jobs to that node, in this order, in one message."""

    node_id: NodeId
    cluster_id: ClusterId
    jobs: tuple[JobNumber, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """Tell that node to stop or forget these jobs; nobody wants their results."""

    node_id: NodeId
    jobs: tuple[JobNumber, ...]


@dataclass(frozen=True, slots=True)
class Recall:
    """Ask that node to give back those of these jobs that it has not begun."""

    node_id: NodeId
    cluster_id: ClusterId
    jobs: tuple[JobNumber, ...]


@dataclass(frozen=True, slots=True)
class CancelOnNode:
    """Ask that node to cancel this job; its final result says how it ended."""

    node_id: NodeId
    cluster_id: ClusterId
    job: JobNumber


@dataclass(frozen=True, slots=True)
class GiveUp:
    """These jobs are final, Abandoned or Cancelled, for this reason."""

    cluster_id: ClusterId
    jobs: tuple[JobNumber, ...]
    reason: str
    status: Status = Status.Abandoned
    stories: dict[JobNumber, Story] = field(default_factory=dict)  # of those that have one

    def tell(self) -> str:
        """Return the reason, with what befell the first of the jobs before."""
        story = next(iter(self.stories.values()), ())
        before = [what for _, what in story if what != self.reason]
        return self.reason + (f" (before: {'; '.join(before)})" if before else "")


@dataclass(frozen=True, slots=True)
class Requeued:
    """These jobs, which were on a node, wait again (status Created), for this reason."""

    cluster_id: ClusterId
    jobs: tuple[JobNumber, ...]
    reason: str
    cut_short: bool = False  # a run of each was, which counts against its retries
    died: bool = False  # by the end of its own process


@dataclass(frozen=True, slots=True)
class Leave:
    """Close this cluster's computation on that node, which has none of its jobs any more."""

    node_id: NodeId
    cluster_id: ClusterId


Action = RunBatch | Drop | Recall | CancelOnNode | GiveUp | Requeued | Leave
