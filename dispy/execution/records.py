"""What a node's decisions are made from, and the orders that come out.

A job fills as many slots as it is wide: one, unless its computation or the job says otherwise.
"""

from collections import deque
from dataclasses import dataclass, field

from dispy.execution.turns import Claimant, Turns

OwnerId = str  # random; outlives the owner's links
JobNumber = int  # counted by its owner
WorkerId = int  # counted by the node, never used again
Key = tuple[OwnerId, int]  # a computation: its owner, and the owner's number for it

SMOOTHING = 0.2  # weight of the newest packet in the mean duration
NO_LIMIT = 1 << 30  # slots, or jobs


class Owner(Claimant):
    """An owner of computations; `busy` counts the slots that its workers with jobs fill."""

    __slots__ = (
        "active", "computations", "crowded", "held_back", "jobs", "last_active", "owner_id",
        "share", "starved_since", "turns",
    )  # fmt: skip

    def __init__(self, owner_id: OwnerId) -> None:
        super().__init__()
        self.owner_id = owner_id
        self.computations: dict[Key, Computation] = {}
        self.turns: Turns[Computation] = Turns()  # of its computations
        self.jobs = 0  # held, of all computations
        self.active = False  # it counts when slots are shared
        self.last_active = 0.0  # second of its last jobs
        self.share = 0  # slots that it was told of
        self.starved_since: float | None = None  # the second from which it had jobs and no slot
        self.held_back = False  # none of its jobs begins
        self.crowded = False  # it was told that others have all slots

    @property
    def is_starved(self) -> bool:
        """Whether it has jobs that could run, and none of them has a slot."""
        return self.turns.wanting > 0 and not self.busy


class Computation(Claimant):
    """What all jobs of one cluster run, as it lives on this node; `busy` as with `Owner`."""

    __slots__ = (
        "alone", "blocked", "duration", "idle", "jobs", "jobs_per_worker", "key", "limit", "owner",
        "ready", "waiting", "waiting_count", "width", "widths", "workers",
    )  # fmt: skip

    def __init__(self, key: Key, owner: Owner, width: int = 1) -> None:
        super().__init__()
        self.key, self.owner = key, owner
        self.width = width  # slots that a job fills
        self.widths: dict[JobNumber, int] = {}  # of the jobs that differ in it
        self.ready = False  # its nursery has loaded it
        self.limit = NO_LIMIT  # slots that its jobs may fill at once
        self.alone = False  # a worker gets one job at a time: the node watches over what it uses
        self.jobs_per_worker = NO_LIMIT  # after which a worker is replaced
        self.jobs: dict[JobNumber, Worker | None] = {}  # all that are held; None: it waits
        self.waiting: deque[JobNumber] = deque()  # may hold numbers that do not wait any more
        self.waiting_count = 0  # those of `waiting` that count
        self.blocked: set[JobNumber] = set()  # held, and lack what they need: they do not wait
        self.duration: float | None = None  # seconds, smoothed mean; None: not known
        self.workers: dict[WorkerId, Worker] = {}
        self.idle: dict[WorkerId, Worker] = {}  # without a job

    @property
    def wants(self) -> bool:
        """Whether it would use more slots, if there were some."""
        if not self.ready or self.waiting_count <= 0 or self.busy >= self.limit:
            return False
        if self.owner.held_back:
            return False
        if not self.widths and self.width == 1:
            return True
        # One that is wider than the limit, which is another than when it was sent, runs alone.
        return self.busy == 0 or self.busy + self.head_width <= self.limit

    def note_duration(self, seconds: float) -> None:
        """Take in how long the jobs of a packet were on average."""
        before = self.duration
        self.duration = seconds if before is None else before + SMOOTHING * (seconds - before)

    @property
    def head_width(self) -> int:
        """The width of the waiting job whose turn it is; there must be one."""
        if not self.widths:
            return self.width
        held, waiting = self.jobs, self.waiting
        while held.get(waiting[0], self) is not None or waiting[0] in self.blocked:
            waiting.popleft()  # it was taken back
        return self.widths.get(waiting[0], self.width)


@dataclass(slots=True, eq=False)
class Worker:
    """A process of one computation; `jobs` are those it was fed, in order, not yet reported."""

    worker_id: WorkerId
    computation: Computation
    width: int = 1  # slots that each of `jobs` fills
    jobs: deque[JobNumber] = field(default_factory=deque)
    given: int = 0  # jobs that it was fed so far, without those that it gave back

    @property
    def is_spent(self) -> bool:
        """Whether it has been given all the jobs that one worker may have."""
        return self.given >= self.computation.jobs_per_worker

    @property
    def key(self) -> Key:
        """Its computation's key."""
        return self.computation.key


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
    died: bool = False  # their process did, by no limit and by nobody's wish


@dataclass(frozen=True, slots=True)
class TellShare:
    """Tell that owner how many slots are its own now."""

    owner: OwnerId
    slots: int


@dataclass(frozen=True, slots=True)
class TellCrowded:
    """Tell that owner that its jobs wait for those of others; nobody: they do not any more."""

    owner: OwnerId
    others: tuple[tuple[OwnerId, int], ...]  # who has how many slots


Action = TellCrowded | StartWorker | Feed | Stop | Report | TellShare
