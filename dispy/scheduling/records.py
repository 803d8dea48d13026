"""What the scheduler's decisions are made from, and the orders that come out."""

from collections import deque
from dataclasses import dataclass, field

JobNumber = int  # counted by the owner; unique among its jobs, never used again
NodeId = str
ClusterId = int


@dataclass(slots=True)
class Cluster:
    """A user's handle on jobs of one computation, as far as placing them is concerned."""

    cluster_id: ClusterId
    name: str
    reentrant: bool = False
    queue: deque[JobNumber] = field(default_factory=deque)  # may hold cancelled numbers
    queued: set[JobNumber] = field(default_factory=set)  # those of `queue` that still count
    out: int = 0  # jobs on nodes
    duration: float | None = None  # seconds, smoothed mean of finished jobs; None: not known


@dataclass(slots=True)
class Node:
    """A connected node. `jobs` keeps the order in which they were sent."""

    node_id: NodeId
    name: str  # as people know it: host name or address
    slots: int  # jobs of this owner that it runs at once; at least 1
    clusters: set[ClusterId] = field(default_factory=set)  # those set up there
    settled: bool = True  # False from a broken link until both sides have compared what they hold
    jobs: dict[JobNumber, ClusterId] = field(default_factory=dict)
    version: int = 0  # changes with `jobs` and `slots`: entries of older versions are void

    @property
    def idle(self) -> int:
        """Slots without a job."""
        return max(0, self.slots - len(self.jobs))

    @property
    def load(self) -> float:
        """Jobs for each slot: 0 when idle, above 1 when some wait there."""
        return len(self.jobs) / self.slots


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
class CancelOnNode:
    """Ask that node to cancel this job; its final result says how it ended."""

    node_id: NodeId
    job: JobNumber


@dataclass(frozen=True, slots=True)
class GiveUp:
    """These jobs are final: Abandoned, for this reason."""

    cluster_id: ClusterId
    jobs: tuple[JobNumber, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Requeued:
    """These jobs wait again (status Created), for this reason."""

    cluster_id: ClusterId
    jobs: tuple[JobNumber, ...]
    reason: str


Action = RunBatch | Drop | CancelOnNode | GiveUp | Requeued
