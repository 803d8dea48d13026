"""What the scheduler's decisions are made from: clusters, nodes, and what the one has of the other.

A job needs as many slots of its node as it is wide: one, unless its cluster or the job itself says
otherwise. Where a node's share for this owner is less than that, it needs all of the share.

The predicates of an `Allocation` decide where a job may go, and `explain` tells by them why it
does not. Times are seconds of any clock that never goes back.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from dispy.scheduling.queues import JobNumber as JobNumber
from dispy.scheduling.queues import JobQueue, JobTurn, turn_of

NodeId = str
ClusterId = int
Story = tuple[tuple[float, str], ...]  # what befell a job: (second, what), the oldest first

PREFETCH_SECONDS = 0.05  # of work that may wait on a node for each slot (DESIGN section 7)
PACKET_SECONDS = 0.0005  # of work: less for one slot is not worth a message of its own
PREFETCH_JOBS = 4096  # for each slot, however short: bounds what a lost node gives back
NO_LIMIT = sys.maxsize  # of jobs that may start
SHORTEST = 5e-6  # seconds; what a job costs a worker at least, whatever was measured


@dataclass(slots=True, eq=False)
class Lane(JobQueue):
    """A cluster's queued jobs of one width, and the nodes that have room for them.

    As a queue it may hold cancelled numbers.
    """

    width: int = 1  # slots that each of its jobs needs
    queued: set[JobNumber] = field(default_factory=set)  # those that still count
    # Of the allocations with room, the least loaded first: (load, node, version, allocation).
    # An entry counts while the allocation has that version.
    candidates: "list[tuple[float, int, int, Allocation]]" = field(default_factory=list)
    listed: int = 0  # entries of `candidates` that count
    reservations: "dict[NodeId, Allocation]" = field(default_factory=dict)  # the oldest first

    @property
    def head(self) -> JobNumber:
        """The job whose turn it is; only while there are queued ones."""
        while not self.queue or self.queue[0] not in self.queued:
            self.go_on()
        return self.queue[0]

    @property
    def turn(self) -> JobTurn:
        """The turn of that job among those of the cluster."""
        return turn_of(self.head, self.priority)


@dataclass(slots=True, eq=False)
class Cluster:
    """A user's handle on jobs of one computation, as far as placing them is concerned."""

    cluster_id: ClusterId
    name: str
    reentrant: bool = False
    width: int = 1  # slots that a job needs of its node
    retries: int | None = None  # runs of a job after its first; None: as `retrying` has it
    widths: dict[JobNumber, int] = field(default_factory=dict)  # of the jobs that differ
    lanes: dict[int, Lane] = field(init=False)  # by width; that of `width` comes first
    plain: tuple[Lane, ...] = field(init=False)  # all of them while each job needs one slot
    placed: "dict[JobNumber, Allocation]" = field(default_factory=dict)  # jobs on nodes
    placed_more: int = 0  # slots of those of them that differ, beyond `width` for each
    pinned: "dict[JobNumber, Allocation]" = field(default_factory=dict)  # queued or there
    duration: float | None = None  # seconds, smoothed mean of finished jobs; None: not known
    allocations: "dict[NodeId, Allocation]" = field(default_factory=dict)
    stories: dict[JobNumber, Story] = field(default_factory=dict)  # of jobs that have one
    own_retries: dict[JobNumber, int] = field(default_factory=dict)  # of jobs that differ
    attempts: dict[JobNumber, int] = field(default_factory=dict)  # runs that were cut short
    deaths: dict[JobNumber, int] = field(default_factory=dict)  # those whose own process died
    priorities: dict[JobNumber, int] = field(default_factory=dict)  # of jobs; else 0
    cancelling: dict[JobNumber, str] = field(default_factory=dict)  # on nodes that were asked: why
    priority: int = 0  # of all its jobs, before those of clusters with less (but by load)
    weight: float = 1.0  # its part of the slots, beside those of others that want some (fair)
    owner: str = ""  # whose limit its jobs count for
    exclusive: bool = False  # runs while no other cluster does
    strict: bool = False  # whose turn it is decides also on jobs that wait on nodes
    opened: int = 0  # the how manieth cluster of the core it is
    filled: int = 0  # slots that its jobs fill: the sum of `Allocation.fills`
    admitted: bool = True  # no other runs exclusively, nor does it itself while others run
    account: "Account | None" = None  # its owner's
    charged: int = 0  # slots of it that count for its owner's limit
    reserved: int = 0  # slots that nodes collect for its jobs
    kept: "dict[NodeId, Allocation]" = field(default_factory=dict)  # pinned there, may not start

    def __post_init__(self) -> None:
        lane = Lane(width=self.width)
        self.lanes, self.plain = {self.width: lane}, (lane,) if self.width == 1 else ()

    def add_lane(self, width: int) -> None:
        """Take note that some of its jobs have this width."""
        self.lanes[width], self.plain = Lane(width=width), ()

    @property
    def has_queued(self) -> bool:
        """Whether jobs wait for any of its nodes."""
        if self.plain:
            return bool(self.plain[0].queued)
        return any(lane.queued for lane in self.lanes.values())

    @property
    def wants(self) -> bool:
        """Whether jobs wait; and while some that are for one node have not ended."""
        return self.has_queued or bool(self.pinned)

    @property
    def is_free(self) -> bool:
        """Whether its jobs may start for all that anybody has said."""
        return self.admitted and self.account is None

    def may_start(self, width: int) -> int:
        """Return how many jobs of this width may start, as far as its owner and others go."""
        account = self.account
        if not self.admitted:
            return 0
        if account is None or account.limit is None:
            return NO_LIMIT
        if account.claim is not None and account.claim is not self:
            return 0
        return max(0, account.limit - account.out) // max(1, min(width, account.limit))

    @property
    def slots_out(self) -> int:
        """Slots that its jobs on nodes need."""
        return len(self.placed) * self.width + self.placed_more

    @property
    def window(self) -> int:
        """How many jobs may wait on a node for each slot; 0 while it is not known or too long."""
        if self.duration is None:
            return 0
        return min(PREFETCH_JOBS, int(PREFETCH_SECONDS / max(self.duration, SHORTEST)))

    @property
    def packet(self) -> int:
        """How many jobs go to a slot at once, if there are enough; 1 while that is not known."""
        if self.duration is None:
            return 1
        return max(1, int(PACKET_SECONDS / max(self.duration, SHORTEST)))

    def width_of(self, job: JobNumber) -> int:
        """Return how many slots a job needs."""
        return self.widths.get(job, self.width) if self.widths else self.width

    def lane_of(self, job: JobNumber) -> Lane:
        """Return the lane in which a job waits, or would."""
        return self.lanes[self.width_of(job)]

    def in_turn(self) -> list[Lane]:
        """Return the lanes with queued jobs, that with the job whose turn it is first."""
        return sorted((lane for lane in self.lanes.values() if lane.queued), key=_turn)


@dataclass(slots=True, eq=False)
class Account:
    """What the clusters of one owner have together."""

    owner: str
    limit: int | None  # slots; None: any number
    out: int = 0  # slots: the sum of `Cluster.charged`
    parked: dict[ClusterId, Cluster] = field(default_factory=dict)  # they want, and may not start
    claim: Cluster | None = None  # has a job for which what comes free of the limit is kept
    claimed: int = 0  # slots that this job needs
    woken: Cluster | None = None  # whose turn it is, while some are parked


@dataclass(slots=True, eq=False)
class Node:
    """A connected node."""

    node_id: NodeId
    name: str  # as people know it: host name or address
    slots: int  # jobs of this owner that it runs at once; at least 1
    settled: bool = True  # False from a broken link until both sides have compared what they hold
    away: str = ""  # why its link is broken; empty: it has one, or it is not known
    owners: int = 1  # that share its processors
    crowded: str = ""  # who has all of them, when our jobs there wait for theirs
    held_back: str = ""  # why it starts no jobs at all for now
    drained: str = ""  # why it is given no more jobs; empty: it is
    capacity: int = 0  # slots that it has for all owners: the widest job that it can run
    order: int = 0  # in which it joined; decides between equals
    results_seen: int = 0  # the sequence number of the last results that were taken
    allocations: "dict[ClusterId, Allocation]" = field(default_factory=dict)
    # In line for a slot, in turn: allocations below their limit that found none idle.
    watching: "dict[ClusterId, Allocation]" = field(default_factory=dict)
    pinning: "dict[ClusterId, Allocation]" = field(default_factory=dict)  # with pinned jobs queued
    # Of clusters with wider lanes: those that were listed with fewer idle slots than these need.
    narrow: "dict[ClusterId, Allocation]" = field(default_factory=dict)
    reserved: "Reservation | None" = None  # whom its free slots are kept for
    busy: int = 0  # slots that its jobs fill: the sum of `Allocation.fills`
    count: int = 0  # slots that its jobs need, those that wait there included

    def __post_init__(self) -> None:
        self.capacity = max(self.capacity, self.slots)

    @property
    def idle(self) -> int:
        """Slots without a job."""
        return max(0, self.slots - self.busy)

    @property
    def ahead(self) -> int:
        """Slots that jobs there wait for, as far as the slots of their clusters tell."""
        return self.count - self.busy


@dataclass(slots=True, eq=False)
class Allocation:
    """What a cluster has of a node: how many slots it may use, and its jobs that are there."""

    cluster: Cluster
    node: Node
    limit: int  # slots at most; 0: it gets no jobs
    ready: bool = False  # the computation is set up there
    refusal: str | None = None  # why the computation cannot be used there
    full: str = ""  # why the node takes no more jobs of it, until it says that there is room
    pinned_only: bool = False  # its user gave it up for all other jobs
    leaving: bool = False  # until the node has closed the computation: no jobs go there
    terminating: bool = False  # jobs that run there are stopped, because it leaves
    jobs: dict[JobNumber, float] = field(default_factory=dict)  # job -> second sent, in order
    others: dict[int, int] = field(default_factory=dict)  # width -> jobs there that differ in it
    pinned: JobQueue = field(default_factory=JobQueue)  # may hold cancelled numbers
    pinned_waiting: int = 0  # those of `pinned` that still count
    fills: int = 0  # slots that `jobs` fill, as counted in `Node.busy`
    counted: int = 0  # slots that `jobs` need, as counted in `Node.count`
    progress: float = 0.0  # the second of its last result, or of the first job since it was empty
    sent_ahead: bool = False  # some job went there, or stayed, without an idle slot
    stalled: bool = False  # nothing has come back for too long; nothing more is sent ahead
    worked: bool = False  # some job has succeeded there
    failed_in_a_row: int = 0  # jobs that failed there, one after the other
    set_aside: bool = False  # its refusal is for that
    recalling: int = 0  # call-backs that have not been answered
    watched: bool = False  # for progress
    version: int = 0
    listed: tuple[Lane, ...] = ()  # in whose candidates an entry counts
    listed_load: float = 0.0  # at this load: the true one or less, never more

    @property
    def cap(self) -> int:
        """Slots that it may fill."""
        return min(self.limit, self.node.slots)

    @property
    def most(self) -> int:
        """The width of the widest job that may run there, if its node has nothing else to do."""
        return min(self.limit, self.node.capacity)

    @property
    def demand(self) -> int:
        """Slots that its jobs there need, those that wait there included."""
        slots, plain = self.node.slots, len(self.jobs)
        if not self.others:
            return plain * min(self.cluster.width, slots)
        others = 0
        for width, count in self.others.items():
            plain -= count
            others += count * min(width, slots)
        return plain * min(self.cluster.width, slots) + others

    # -- the predicates

    @property
    def wants(self) -> bool:
        """Whether jobs wait that may run there."""
        cluster = self.cluster
        wants = self.pinned_waiting > 0 or cluster.has_queued
        return wants and (cluster.is_free or cluster.may_start(1) > 0)

    @property
    def is_usable(self) -> bool:
        """Whether jobs may be sent at all: both sides agree on what is there, and it is set up."""
        node = self.node
        usable = node.settled and self.ready and self.refusal is None
        return usable and not (self.full or node.drained)

    @property
    def is_left(self) -> bool:
        """Whether the node may be told to close it: nothing of it is there, or on its way."""
        return self.leaving and not self.jobs and self.node.settled

    @property
    def is_full(self) -> bool:
        """Whether its jobs fill all the slots that it may use."""
        return self.demand >= self.cap

    @property
    def idle_room(self) -> int:
        """Slots in which jobs would begin at once."""
        return 0 if self.node.reserved is not None else self.free_room

    @property
    def free_room(self) -> int:
        """Idle slots, also those that are kept for somebody."""
        taken = min(self.demand, self.fills) if self.cluster.strict else self.demand
        return max(0, min(self.node.slots - self.node.busy, self.cap - taken))

    @property
    def ahead_room(self) -> int:
        """Slots' worth of jobs that may be sent to wait there, lest a worker wait for the network.

        Either behind own jobs, bounded by measured duration; or beside another cluster's jobs
        that wait there, one for each slot at least, because those slots never look idle. Topped
        up by halves: a frame for each short job that ends would cost more than the job.
        """
        window = self.cluster.window
        if self.stalled or self.recalling or not self.cap or self.node.reserved is not None:
            return 0
        strict = self.cluster.strict
        if (window and self.jobs) or (self.node.ahead and not strict):
            cap = self.fills if strict else self.cap
            room = cap * (1 + window)
            room -= len(self.jobs) if self.cluster.plain else self.demand
            return room if room > 0 and room >= cap * window // 2 else 0
        return 0

    @property
    def room(self) -> int:
        """Slots' worth of jobs that may be sent now."""
        return (self.idle_room or self.ahead_room) if self.is_usable else 0

    def may_run(self, width: int) -> bool:
        """Whether queued jobs of this width may run there at all."""
        return not self.pinned_only and width <= self.most

    def jobs_that_fit(self, width: int, idle: int) -> int:
        """Return how many jobs of this width may be sent now, with so many slots idle."""
        width = min(width, self.node.slots)
        return idle // width or self.ahead_room // width

    # -- counts

    def note_widths(self, jobs: Iterable[JobNumber], change: int) -> None:
        """Count jobs that came (1) or left (-1), if they differ in width from the others."""
        cluster, others = self.cluster, self.others
        for job in jobs:
            width = cluster.widths.get(job)
            if width is not None:
                cluster.placed_more += change * (width - cluster.width)
                others[width] = others.get(width, 0) + change
                if not others[width]:
                    del others[width]

    def turn(self, slots: int) -> int:
        """Return how many jobs go at most with `slots` idle slots that are its turn's.

        Where turns are strict, short jobs go with as many more as may wait there: an idle slot is
        the only chance to send some, while others want it too. Else in packets.
        """
        if not self.cluster.plain or self.recalling or self.stalled:
            return slots
        if not self.cluster.strict:
            return slots * self.cluster.packet
        most = (self.fills + slots) * (1 + self.cluster.window)
        return max(slots, most - len(self.jobs))

    def recount(self, given: int = 0) -> tuple[int, float]:
        """Bring the node's counts up to date; return `idle_room` and the load.

        Load is below 1 with idle room, the part of the node's slots that is filled; else 1 and
        what its jobs need of its slots. (Written out: a job costs two calls.)
        given: idle slots for what was sent; where turns are strict its jobs fill no more than
        they were given, however many wait there.
        """
        node, count = self.node, len(self.jobs)
        if not self.cluster.plain:
            count = self.demand
        slots = node.slots
        cap = self.limit if self.limit < slots else slots
        fills = count if count < cap else cap
        if self.cluster.strict:
            fills = min(fills, self.fills + given)
            self.cluster.filled += fills - self.fills
        busy = node.busy = node.busy + fills - self.fills
        node.count += count - self.counted
        self.fills, self.counted = fills, count
        if busy < slots and fills < cap and node.reserved is None:
            return min(slots - busy, cap - fills), busy / slots
        return 0, 1 + count / cap if cap else 2.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """A node's word that it gives its free slots to nobody else before a wide job fits there."""

    allocation: Allocation
    lane: Lane | None  # of whose jobs the next one comes; None: of those pinned to the node
    slots: int  # that the job needs, as they count for its owner


def _turn(lane: Lane) -> JobTurn:
    return lane.turn
