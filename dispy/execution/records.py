"""What a node's decisions are made from, and the orders that come out."""

from collections import deque
from dataclasses import dataclass, field

OwnerId = str  # random; outlives the owner's links
JobNumber = int  # counted by its owner
WorkerId = int  # counted by the node, never used again
Key = tuple[OwnerId, int]  # a computation: its owner, and the owner's number for it


@dataclass(slots=True)
class Computation:
    """What all jobs of one cluster run, as it lives on this node."""

    key: Key
    ready: bool = False  # its nursery has loaded it
    waiting: deque[JobNumber] = field(default_factory=deque)
    duration: float | None = None  # seconds, smoothed mean; None: not known
    served: int = 0  # the turn at which it last got a slot


@dataclass(slots=True)
class Worker:
    """A process of one computation; `jobs` are those it was fed, in order, not yet reported."""

    worker_id: WorkerId
    key: Key
    jobs: deque[JobNumber] = field(default_factory=deque)


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Have the computation's nursery fork a worker with this id."""

    key: Key
    worker_id: WorkerId


@dataclass(frozen=True, slots=True)
class Feed:
    """Send these jobs to that worker, in this order, in one frame."""

    worker_id: WorkerId
    jobs: tuple[JobNumber, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """End that worker's whole process group, gently first when it was cancelled."""

    worker_id: WorkerId
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Report:
    """These jobs of that owner are final without a result of their own, for this reason."""

    key: Key
    jobs: tuple[JobNumber, ...]
    cancelled: bool
    reason: str


@dataclass(frozen=True, slots=True)
class TellShare:
    """Tell that owner how many slots are its own now."""

    owner: OwnerId
    slots: int


Action = StartWorker | Feed | Stop | Report | TellShare
