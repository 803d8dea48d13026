"""What the scheduler's decisions are made from: clusters, nodes, and what the one has of the other.

The predicates of an `Allocation` decide where a job may go, and `explain` tells by them why it
does not. Times are seconds of any clock that never goes back.
"""

from collections import deque
from dataclasses import dataclass, field

JobNumber = int  # counted by the owner; unique among its jobs, never used again
NodeId = str
ClusterId = int
Story = tuple[tuple[float, str], ...]  # what befell a job: (second, what), the oldest first

PREFETCH_SECONDS = 0.05  # of work that may wait on a node for each slot (DESIGN section 7)
PREFETCH_JOBS = 4096  # for each slot, however short: bounds what a lost node gives back
SHORTEST = 5e-6  # seconds; what a job costs a worker at least, whatever was measured


@dataclass(slots=True, eq=False)
class Cluster:
    """A user's handle on jobs of one computation, as far as placing them is concerned."""

    cluster_id: ClusterId
    name: str
    reentrant: bool = False
    queue: deque[JobNumber] = field(default_factory=deque)  # may hold cancelled numbers
    queued: set[JobNumber] = field(default_factory=set)  # those of `queue` that still count
    placed: "dict[JobNumber, Allocation]" = field(default_factory=dict)  # jobs on nodes
    pinned: "dict[JobNumber, Allocation]" = field(default_factory=dict)  # queued or there
    duration: float | None = None  # seconds, smoothed mean of finished jobs; None: not known
    allocations: "dict[NodeId, Allocation]" = field(default_factory=dict)
    stories: dict[JobNumber, Story] = field(default_factory=dict)  # of jobs that have one
    # Of its allocations with room, the least loaded first: (load, node, version, allocation).
    # An entry counts while the allocation has that version.
    candidates: "list[tuple[float, int, int, Allocation]]" = field(default_factory=list)
    listed: int = 0  # entries of `candidates` that count

    @property
    def window(self) -> int:
        """How many jobs may wait on a node for each slot; 0 while it is not known or too long."""
        if self.duration is None:
            return 0
        return min(PREFETCH_JOBS, int(PREFETCH_SECONDS / max(self.duration, SHORTEST)))


@dataclass(slots=True, eq=False)
class Node:
    """A connected node."""

    node_id: NodeId
    name: str  # as people know it: host name or address
    slots: int  # jobs of this owner that it runs at once; at least 1
    settled: bool = True  # False from a broken link until both sides have compared what they hold
    owners: int = 1  # that share its processors
    crowded: str = ""  # who has all of them, when our jobs there wait for theirs
    held_back: str = ""  # why it starts no jobs at all for now
    order: int = 0  # in which it joined; decides between equals
    results_seen: int = 0  # the sequence number of the last results that were taken
    allocations: "dict[ClusterId, Allocation]" = field(default_factory=dict)
    # In line for a slot, in turn: allocations below their limit that found none idle.
    watching: "dict[ClusterId, Allocation]" = field(default_factory=dict)
    pinning: "dict[ClusterId, Allocation]" = field(default_factory=dict)  # with pinned jobs queued
    busy: int = 0  # slots that its jobs fill: the sum of `Allocation.fills`
    count: int = 0  # jobs there

    @property
    def idle(self) -> int:
        """Slots without a job."""
        return max(0, self.slots - self.busy)

    @property
    def ahead(self) -> int:
        """Jobs there that wait for a slot, as far as the slots of their clusters tell."""
        return self.count - self.busy


@dataclass(slots=True, eq=False)
class Allocation:
    """What a cluster has of a node: how many slots it may use, and its jobs that are there."""

    cluster: Cluster
    node: Node
    limit: int  # slots at most; 0: it gets no jobs
    ready: bool = False  # the computation is set up there
    refusal: str | None = None  # why the computation cannot be used there
    leaving: bool = False  # until the node has closed the computation: no jobs go there
    terminating: bool = False  # jobs that run there are stopped, because it leaves
    jobs: dict[JobNumber, float] = field(default_factory=dict)  # job -> second sent, in order
    pinned: deque[JobNumber] = field(default_factory=deque)  # may hold cancelled numbers
    pinned_waiting: int = 0  # those of `pinned` that still count
    fills: int = 0  # slots that `jobs` fill, as counted in `Node.busy`
    counted: int = 0  # jobs, as counted in `Node.count`
    progress: float = 0.0  # the second of its last result, or of the first job since it was empty
    sent_ahead: bool = False  # some job went there, or stayed, without an idle slot
    stalled: bool = False  # nothing has come back for too long; nothing more is sent ahead
    recalling: int = 0  # call-backs that have not been answered
    watched: bool = False  # for progress
    version: int = 0
    listed: bool = False  # an entry of `Cluster.candidates` counts
    listed_load: float = 0.0  # which has this load: the true one or less, never more

    @property
    def cap(self) -> int:
        """Slots that it may fill."""
        return min(self.limit, self.node.slots)

    # -- the predicates

    @property
    def is_usable(self) -> bool:
        """Whether jobs may be sent at all: both sides agree on what is there, and it is set up."""
        return self.node.settled and self.ready and self.refusal is None

    @property
    def is_left(self) -> bool:
        """Whether the node may be told to close it: nothing of it is there, or on its way."""
        return self.leaving and not self.jobs and self.node.settled

    @property
    def is_full(self) -> bool:
        """Whether its jobs fill all the slots that it may use."""
        return len(self.jobs) >= self.cap

    @property
    def idle_room(self) -> int:
        """Jobs that would begin at once."""
        return max(0, min(self.node.slots - self.node.busy, self.cap - len(self.jobs)))

    @property
    def ahead_room(self) -> int:
        """Jobs that may be sent to wait there, so that no worker waits for the network.

        Either behind own jobs, bounded by measured duration; or beside another cluster's jobs
        that wait there, one for each slot at least, because those slots never look idle. Topped
        up by halves: a frame for each short job that ends would cost more than the job.
        """
        window = self.cluster.window
        if self.stalled or self.recalling or not self.cap:
            return 0
        if self.node.ahead or (window and self.jobs):
            room = self.cap * (1 + window) - len(self.jobs)
            return room if room > 0 and room >= self.cap * window // 2 else 0
        return 0

    @property
    def room(self) -> int:
        """Jobs that may be sent now."""
        return (self.idle_room or self.ahead_room) if self.is_usable else 0

    # -- counts

    def recount(self) -> tuple[int, float]:
        """Bring the node's counts up to date; return `idle_room` and the load.

        Load is below 1 with idle room, the part of the node's slots that is filled; else 1 and
        its jobs for each of its slots. (Written out: a job costs two calls.)
        """
        node, count = self.node, len(self.jobs)
        slots = node.slots
        cap = self.limit if self.limit < slots else slots
        fills = count if count < cap else cap
        busy = node.busy = node.busy + fills - self.fills
        node.count += count - self.counted
        self.fills, self.counted = fills, count
        if busy < slots and count < cap:
            return min(slots - busy, cap - count), busy / slots
        return 0, 1 + count / cap if cap else 2.0
