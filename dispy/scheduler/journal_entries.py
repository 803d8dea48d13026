"""What a shared scheduler must not forget, entry by entry, and what it remembers after a restart.

Plain data: numbers, texts, bytes, and lists and tables of these (a tuple comes back as a list).
Numbers of jobs, clusters and batches are the scheduler's own, never used twice. A job is forgotten
when it is final; what is said here of one that is not known, or not any more, is passed over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dispy.protocol.frames import Memory


@dataclass(frozen=True, slots=True)
class ClientCame:
    """A client has this slot, until ClientForgotten; a second one replaces the first."""

    slot: int
    identity: str
    name: str  # as people know it
    key: bytes
    # Of one with a cluster that others may attach to; its identity is a digest of name and key.
    holder: str = ""  # the identity of the program that has it
    used: int = 0  # numbers of jobs up to this one may be
    keep: float = 0.0  # seconds for which it wants to be remembered while it is away; 0: as others


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client has said up to this number was taken in; the last one counts."""

    slot: int
    number: int


@dataclass(frozen=True, slots=True)
class ClientForgotten:
    """Nothing of a client is needed any more: its clusters, their jobs, and its results."""

    slot: int


@dataclass(frozen=True, slots=True)
class ClusterOpened:
    """A client's cluster, until ClusterClosed; a second one replaces the first."""

    number: int
    slot: int
    name: str
    settings: dict[str, Any]
    code: Memory
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClusterClosed:
    """A cluster and its jobs are forgotten; results that its client has not taken are not."""

    number: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """Jobs that wait from now on, behind all others; forgotten when the last of them is final."""

    batch: int
    cluster: int
    jobs: Sequence[int]
    column: Sequence[Any]  # of payloads, as in a RUN: bytes, or a number of `buffers`
    buffers: Sequence[Memory] = ()
    extras: Sequence[list[Any]] = ()  # [position in `jobs`, table]
    node: str | None = None  # where they must run


@dataclass(frozen=True, slots=True)
class Given:
    """A node has these jobs, until they are final, Returned, or Given to another."""

    node: str
    jobs: Sequence[int]


@dataclass(frozen=True, slots=True)
class Returned:
    """These jobs wait again, before all others.

    attempted: a run of each was cut short; died: by the end of its own process. Both are counted
    until the job is final. Neither: the node had not begun them.
    """

    jobs: Sequence[int]
    attempted: bool = True
    died: bool = False


@dataclass(frozen=True, slots=True)
class Cancelling:
    """Somebody wants these jobs to end: they must not run again. Until they are final."""

    jobs: Sequence[int]


@dataclass(frozen=True, slots=True)
class Finals:
    """Jobs of a cluster are final, and their client is to be told; kept until Taken.

    Whatever else a client must be told, for which no job ends, is one without `jobs`.
    """

    slot: int
    number: int  # of the frame among those that this client is told; it grows
    cluster: int
    jobs: Sequence[int]
    columns: Sequence[Any]
    buffers: Sequence[Memory] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """A client has the Finals up to this number."""

    slot: int
    number: int


@dataclass(frozen=True, slots=True)
class Collected:
    """A client has these Finals, of others that are kept."""

    slot: int
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class Labelled:
    """What the program calls jobs; until their Finals are gone, or a second one replaces it.

    Of jobs that are not final, or of which the Finals are still kept.
    """

    labels: Sequence[list[Any]]  # [job, label]


@dataclass(frozen=True, slots=True)
class NodeKnown:
    """A node, and which clusters are open there, until NodeGone; a second one replaces the first.

    That it is gone says nothing of the jobs that were given to it.
    """

    node_id: str
    identity: str
    name: str
    host: str
    port: int
    clusters: Sequence[int] = ()
    said: int = 0  # the number of what it has said last that must not come twice


@dataclass(frozen=True, slots=True)
class NodeGone:
    """A node is not asked for its jobs any more, and what clusters had of it is forgotten."""

    node_id: str


@dataclass(frozen=True, slots=True)
class Allotted:
    """A cluster that is open may use so many slots of a node; 0: for what is there already.

    Until the cluster is closed, or the node gone; a second one replaces the first.
    """

    cluster: int
    node: str
    slots: int
    own: dict[str, Any] | None = None  # settings for that node alone


Entry = (
    ClientCame | Heard | ClientForgotten | ClusterOpened | ClusterClosed | Submitted | Given
    | Returned | Cancelling | Finals | Taken | Collected | Labelled | NodeKnown | NodeGone
    | Allotted
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnownBatch:
    """A submission of which some jobs are not final; what it carries is read when needed."""

    batch: int
    cluster: int
    jobs: list[int]  # all that were submitted with it, the final ones too
    extras: list[list[Any]]
    node: str | None
    weight: int  # bytes that its payloads take


@dataclass(frozen=True, slots=True)
class KnownFinals:
    """Finals that are not taken; their columns are read when needed."""

    slot: int
    number: int
    cluster: int
    jobs: list[int]
    weight: int  # bytes that its columns and buffers take


@dataclass(frozen=True, slots=True)
class Payloads:
    """What a submission carries: see Submitted."""

    column: list[Any]
    buffers: list[bytes]


@dataclass(slots=True)
class Remembered:
    """All that a journal knows when it is loaded."""

    clients: dict[int, ClientCame] = field(default_factory=dict)  # by slot
    heard: dict[int, int] = field(default_factory=dict)  # by slot, the number of the last Heard
    clusters: dict[int, ClusterOpened] = field(default_factory=dict)
    batches: dict[int, KnownBatch] = field(default_factory=dict)  # in the order of submission
    # In order: those that came back, the last that came first; then as they were submitted.
    waiting: list[int] = field(default_factory=list)
    given: dict[str, list[int]] = field(default_factory=dict)  # by node, in the order of giving
    attempts: dict[int, int] = field(default_factory=dict)  # of jobs with a run that was cut short
    deaths: dict[int, int] = field(default_factory=dict)  # of these, by the end of its own process
    cancelling: set[int] = field(default_factory=set)
    finals: dict[int, list[KnownFinals]] = field(default_factory=dict)  # by slot, in order
    nodes: dict[str, NodeKnown] = field(default_factory=dict)
    allotted: dict[tuple[int, str], Allotted] = field(default_factory=dict)
    labels: dict[int, bytes] = field(default_factory=dict)  # by job
    lost: str = ""  # a sentence, where an earlier journal could not be read
