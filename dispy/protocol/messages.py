"""What each frame means, between a client's scheduler, a node and its workers, and its shape.

A body is a list of columns, checked here before anything looks into it: a peer that sends
another shape is refused with the name of the message. Numbers of jobs and computations are
counted by their owner. Payloads and results are opaque: bytes, or how many of the frame's raw
buffers make up the next one (those of INLINE_LIMIT bytes and more, see `Bulk`); a job that
failed has the empty result, which no pickle is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import product
from typing import Any

from dispy.model.texts import legible
from dispy.protocol.frames import Buffer, Frame, FrameRefused, Memory, Shared
from dispy.protocol.tables import are_times, check_end, is_shallow

INLINE_LIMIT = 64 * 1024  # bytes; below this, copying is cheaper than one more buffer


class Kind(IntEnum):
    """The first byte after a frame's length."""

    HELLO = 1
    REFUSE = 2
    PULSE = 3
    # owner to node
    OPEN = 10
    RUN = 11
    CANCEL = 12
    DROP = 13
    RECALL = 14
    CLOSE = 15
    ACKNOWLEDGE = 16
    RELEASE = 17
    LIMIT = 18
    PLACE = 19
    TOOK = 20
    LIST = 21
    PROVEN = 22
    # either way: bulk that its reader asks for, piece by piece
    FETCH = 25
    PIECE = 26
    # node to owner
    READY = 30
    RESULTS = 31
    RETURNED = 32
    HELD = 33
    SHARE = 34
    PROVISIONAL = 35
    STATUS = 36
    GOODBYE = 37
    CLOSED = 38
    PLACED = 39
    OFFER = 40
    OUTPUT = 41
    LISTED = 42
    FULL = 43
    PROVE = 44
    # node to nursery, and back
    LOAD = 50
    FORK = 51
    LOADED = 52
    FORKED = 53
    DIED = 54
    CLEAN = 55
    CLEANED = 56
    BEGUN = 57
    NOT_FORKED = 58
    # node to worker, and back
    JOBS = 60
    DONE = 61
    GIVEN_BACK = 62
    INTERIM = 63
    RETIRE = 64
    FILE = 65
    TAKEN = 66
    # client and shared scheduler, either way: what is numbered, and how far it was taken
    SAID = 70
    HEARD = 71
    # client to shared scheduler, in SAID; CANCEL and CLOSE too
    CLUSTER = 72
    SUBMIT = 73
    ALLOT = 74
    WITHDRAW = 75
    DEPART = 76
    ASK = 77
    RULES = 78
    # shared scheduler to client, in SAID
    NODE = 80
    LOST = 81
    STARTED = 82
    ENDED = 83
    GIVEN_UP = 84
    REQUEUED = 85
    VALUE = 86
    WROTE = 87
    CHANGED = 88
    FREE = 89
    CLEANED_UP = 90
    ANSWER = 91
    NOTED = 92
    # client to shared scheduler, in SAID, of a cluster that others may attach to
    LABEL = 93
    COLLECTED = 94
    KEEP = 95
    RESYNC = 98
    RESYNCED = 99
    # operator to shared scheduler, and back, on a link of their own
    REQUEST = 100
    RESPONSE = 101
    # shared scheduler to a client that attaches to a cluster, or has it no more
    ATTACHED = 102
    LEFT = 103
    OVER = 104


_TEXT, _WHOLE, _REAL, _TABLE = (str,), (int,), (int, float), (dict,)
_OPTIONAL_TEXT = (str, type(None))
_LIST = (list,)
_OPAQUE = (bytes, int)
_BYTES = (bytes,)
_NUMBERS, _TIMES, _PAYLOADS, _LISTS = [int], [float, int], [bytes, int], [list]

# One entry for each column: a tuple of types for a value, a list of types for a list's elements.
SHAPES: dict[int, tuple[tuple[type, ...] | list[Any], ...]] = {
    Kind.HELLO: (_TABLE,),
    Kind.REFUSE: (_TEXT,),  # the sentence for a person
    Kind.PULSE: (),
    Kind.OPEN: (_WHOLE, _TEXT, _TABLE),  # computation, name, settings; the code as a buffer
    # computation, jobs, payloads, [[at, options]] of those jobs that have some
    Kind.RUN: (_WHOLE, _NUMBERS, _PAYLOADS, _LISTS),
    Kind.CANCEL: (_WHOLE, _NUMBERS),
    Kind.DROP: (_NUMBERS,),
    Kind.RECALL: (_WHOLE, _NUMBERS),
    Kind.CLOSE: (_WHOLE,),
    Kind.ACKNOWLEDGE: (_WHOLE,),  # RESULTS and PROVISIONAL up to this sequence number
    Kind.RELEASE: (_NUMBERS,),  # tokens of shared buffers that nobody looks at any more
    Kind.LIMIT: (_WHOLE, _WHOLE),  # computation, slots that its jobs may fill at once
    # computation, token, what to put into its directory: {"files": [...]}
    Kind.PLACE: (_WHOLE, _WHOLE, _TABLE),
    Kind.TOOK: (_BYTES, _OPTIONAL_TEXT),  # key of an OFFER; why it failed
    Kind.LIST: (_WHOLE, _WHOLE),  # computation, token: which of its jobs run?
    Kind.FETCH: (_BYTES, _WHOLE, _WHOLE),  # key (digest or offer), offset, bytes wanted
    Kind.PROVE: (_BYTES, _BYTES),  # digest, the key under which to take it once more
    Kind.PROVEN: (_BYTES, _BYTES, _BYTES),  # digest, key, proof; empty: there is none
    # key, offset, why there is none; the piece as a buffer
    Kind.PIECE: (_BYTES, _WHOLE, _OPTIONAL_TEXT),
    # computation, why it cannot be used, what else there is to tell of its setup
    Kind.READY: (_WHOLE, _OPTIONAL_TEXT, _TABLE),
    # sequence, computation, jobs, starts, ends (seconds since the epoch), results, [[at, extra]]
    Kind.RESULTS: (_WHOLE, _WHOLE, _NUMBERS, _TIMES, _TIMES, _PAYLOADS, _LISTS),
    # computation, jobs that were not begun; None: as RECALL asked, else why nothing runs there
    Kind.RETURNED: (_WHOLE, _NUMBERS, _OPTIONAL_TEXT),
    Kind.HELD: (_NUMBERS, _NUMBERS),  # jobs without a result, computations
    Kind.SHARE: (_WHOLE, _WHOLE),  # slots of this owner, owners that share
    # sequence, counted with those of RESULTS; computation, job, value
    Kind.PROVISIONAL: (_WHOLE, _WHOLE, _WHOLE, _OPAQUE),
    Kind.STATUS: (_TABLE,),
    Kind.GOODBYE: (_TEXT, _NUMBERS),  # why; jobs that it had begun and has no result of
    # computation, what its cleanup raised, what else there is to tell of that
    Kind.CLOSED: (_WHOLE, _OPTIONAL_TEXT, _TABLE),
    Kind.PLACED: (_WHOLE, _WHOLE, _OPTIONAL_TEXT),  # computation, token; why it failed
    Kind.OFFER: (_WHOLE, _WHOLE, _BYTES, _TABLE),  # computation, job, key, the file's data
    # computation, job, descriptor (1 or 2), where in its output (bytes), text
    Kind.OUTPUT: (_WHOLE, _WHOLE, _WHOLE, _WHOLE, _BYTES),
    Kind.LISTED: (_WHOLE, _NUMBERS),  # token of a LIST; jobs
    # computation, jobs that it has no room for now, why; "": there is room again
    Kind.FULL: (_WHOLE, _NUMBERS, _TEXT),
    Kind.LOAD: (_TEXT, _TABLE),  # name, settings; the code as a buffer
    Kind.FORK: (_WHOLE,),  # worker; its socket, its journal and its outputs come along
    Kind.LOADED: (_OPTIONAL_TEXT, _TABLE),  # READY without its first
    Kind.FORKED: (_WHOLE, _WHOLE),  # worker, process
    Kind.DIED: (_WHOLE, _TEXT, _WHOLE, _WHOLE),  # worker, how, most memory (bytes), signal or 0
    Kind.NOT_FORKED: (_WHOLE, _TEXT),  # worker, why: it may be tried again
    Kind.BEGUN: (),  # a nursery's setup runs from now on
    Kind.CLEAN: (),  # run the computation's cleanup
    Kind.CLEANED: (_OPTIONAL_TEXT, _TABLE),  # CLOSED without its first
    Kind.JOBS: (_NUMBERS, _PAYLOADS, _LISTS),  # RUN without its first
    Kind.DONE: (_NUMBERS, _TIMES, _TIMES, _PAYLOADS, _LISTS),  # RESULTS without its first two
    Kind.GIVEN_BACK: (_NUMBERS,),  # a poked worker's jobs that it has not begun
    Kind.INTERIM: (_WHOLE, _OPAQUE),  # job, provisional value
    Kind.RETIRE: (),  # this worker cannot be cleaned; it runs nothing more
    # job, {"name": ...}; the open file comes along, and a socket for signs of progress and TAKEN
    Kind.FILE: (_WHOLE, _TABLE),
    Kind.TAKEN: (_OPTIONAL_TEXT,),  # why the owner has not got it
    Kind.SAID: (_WHOLE, _WHOLE, _LIST),  # number, kind, body of what is said; its buffers
    Kind.HEARD: (_WHOLE,),  # what was said up to this number is taken for good
    Kind.CLUSTER: (_WHOLE, _TEXT, _TABLE),  # cluster, name, table; the code as a buffer
    # cluster, node or None: any, jobs, payloads, [[at, options]]
    Kind.SUBMIT: (_WHOLE, _OPTIONAL_TEXT, _NUMBERS, _PAYLOADS, _LISTS),
    # cluster, node, slots, {"own": settings for it alone, "forgive"}
    Kind.ALLOT: (_WHOLE, _TEXT, _WHOLE, _TABLE),
    Kind.WITHDRAW: (_WHOLE, _TEXT),  # cluster, node: it gets no more jobs
    Kind.RULES: (_WHOLE, _TABLE),  # cluster, {"nodes": see dispy.model.rules; None: ask for each}
    Kind.DEPART: (_WHOLE, _TEXT, _TABLE),  # cluster, node, {"again", "terminate"}
    Kind.ASK: (_WHOLE, _TABLE),  # token, what is to be known
    Kind.NODE: (_TEXT, _TABLE),  # node, all that is known of it
    Kind.LOST: (_TEXT, _TEXT),  # node, why
    Kind.STARTED: (_WHOLE, _TEXT, _NUMBERS),  # cluster, node, jobs
    # cluster, node, jobs, starts, ends (seconds since the epoch), results, [[at, extra]]
    Kind.ENDED: (_WHOLE, _TEXT, _NUMBERS, _TIMES, _TIMES, _PAYLOADS, _LISTS),
    # cluster, node that had them or None, jobs, status, why
    Kind.GIVEN_UP: (_WHOLE, _OPTIONAL_TEXT, _NUMBERS, _WHOLE, _TEXT),
    Kind.REQUEUED: (_WHOLE, _TEXT, _NUMBERS, _TEXT),  # cluster, node that had them, jobs, why
    Kind.VALUE: (_WHOLE, _TEXT, _WHOLE, _OPAQUE),  # cluster, node, job, provisional value
    # cluster, node, job, descriptor (1 or 2), where in its output (bytes), text
    Kind.WROTE: (_WHOLE, _TEXT, _WHOLE, _WHOLE, _WHOLE, _BYTES),
    Kind.CHANGED: (_WHOLE, _TEXT, _WHOLE, _OPTIONAL_TEXT),  # cluster, node, status, error
    Kind.FREE: (_WHOLE, _TEXT),  # cluster, node: it may be set up there again
    Kind.CLEANED_UP: (_WHOLE,),  # cluster
    Kind.ANSWER: (_WHOLE, _TABLE),  # token of an ASK
    Kind.NOTED: (_WHOLE, _TEXT, _WHOLE, _TEXT),  # cluster, node, level of `logging`, what it is
    Kind.LABEL: (_WHOLE, _LISTS),  # cluster, [[job, what its program calls it]]
    Kind.COLLECTED: (_NUMBERS,),  # of what was told: the program has asked for those results
    Kind.KEEP: (_REAL,),  # seconds for which the cluster is kept while its program is away
    Kind.RESYNC: (),  # what comes until RESYNCED says how all things stand, from the beginning
    Kind.RESYNCED: (),
    Kind.REQUEST: (_WHOLE, _TEXT, _TABLE),  # token, what is asked for, of what
    Kind.RESPONSE: (_WHOLE, _WHOLE, _TABLE),  # token, 1: more parts follow, a part of the answer
    Kind.ATTACHED: (_WHOLE, _TEXT, _TABLE),  # cluster, name, how it was opened
    Kind.LEFT: (_NUMBERS, _LISTS),  # its jobs that nobody has collected, [[at, label]]
    Kind.OVER: (_TEXT,),  # why this client has the cluster no more
}

# kind -> where its columns of equal length begin and end, and which column has gaps for buffers
_COLUMNS: dict[int, tuple[int, int, int]] = {
    Kind.RUN: (1, 3, 2),
    Kind.RESULTS: (2, 6, 5),
    Kind.JOBS: (0, 2, 1),
    Kind.DONE: (0, 4, 3),
    Kind.SUBMIT: (2, 4, 3),
    Kind.ENDED: (2, 6, 5),
}
_EXTRAS: dict[int, int] = {
    Kind.RUN: 3, Kind.RESULTS: 6, Kind.JOBS: 2, Kind.DONE: 4, Kind.SUBMIT: 4, Kind.ENDED: 6
}  # fmt: skip
# Whose texts are reasons; whose extras tell how jobs ended.
_REASONS = frozenset(map(int, (Kind.REFUSE, Kind.GOODBYE, Kind.DIED, Kind.NOT_FORKED, Kind.OVER)))
_ENDS = frozenset(map(int, (Kind.RESULTS, Kind.DONE, Kind.ENDED)))
_BUFFERS: dict[int, int] = {Kind.OPEN: 1, Kind.LOAD: 1, Kind.PIECE: 1, Kind.CLUSTER: 1}
_LAST_IS_OPAQUE = frozenset(map(int, (Kind.PROVISIONAL, Kind.INTERIM, Kind.VALUE)))


@dataclass(frozen=True, slots=True)
class _Rule:
    """What `check` looks at for one kind, prepared: a round trip checks eight frames."""

    parts: frozenset[tuple[type, ...]]  # the types that its parts may have together
    lists: tuple[tuple[int, frozenset[type]], ...]  # where lists are, and of what
    columns: tuple[int, ...]  # lists that are equally long, without the first
    first: int  # the first of these; -1: there are none
    payloads: int  # where the column with payloads begins; 0: none
    extras: int  # where the list of extras is; 0: none
    buffers: int  # without payloads: how many buffers it has
    tables: tuple[int, ...]  # where tables are
    reasons: tuple[int, ...]  # where texts are that people read, or none
    times: tuple[int, ...]  # where columns of seconds are
    ends: bool  # its extras tell how jobs ended


def _rule(kind: int, shape: tuple[Any, ...]) -> _Rule:
    first, end, payloads = _COLUMNS.get(kind, (-1, 0, 0))
    return _Rule(
        parts=frozenset(product(*((list,) if type(part) is list else part for part in shape))),
        lists=tuple((at, frozenset(part)) for at, part in enumerate(shape) if type(part) is list),
        columns=tuple(range(first + 1, end)),
        first=first,
        payloads=len(shape) - 1 if kind in _LAST_IS_OPAQUE else payloads,
        extras=_EXTRAS.get(kind, 0),
        buffers=_BUFFERS.get(kind, 0),
        tables=tuple(at for at, part in enumerate(shape) if part == _TABLE),
        reasons=tuple(
            at
            for at, part in enumerate(shape)
            if part == _OPTIONAL_TEXT or (part == _TEXT and kind in _REASONS)
        ),
        times=tuple(at for at, part in enumerate(shape) if part == _TIMES),
        ends=kind in _ENDS,
    )


_RULES = {int(kind): _rule(int(kind), shape) for kind, shape in SHAPES.items()}


def check(frame: Frame) -> Frame:
    """Return the frame; raises FrameRefused unless its body has the shape of its kind.

    Reasons in it are made legible.
    """
    body = frame.body
    if frame.kind == Kind.SAID and type(body) is list and len(body) == 3:
        unwrap(frame)
        return frame
    rule = _RULES.get(frame.kind)
    if rule is None:
        raise FrameRefused(f"a message of kind {frame.kind}, which this version does not know")
    if type(body) is not list or tuple(map(type, body)) not in rule.parts:
        raise FrameRefused(f"{Kind(frame.kind).name} has not the parts that it should have")
    for at, types in rule.lists:
        if not types.issuperset(map(type, body[at])):
            raise FrameRefused(f"part {at + 1} of {Kind(frame.kind).name} is not what it should be")
    for at in rule.reasons:
        if body[at] is not None:
            body[at] = legible(body[at])
    for at in rule.tables:
        if not is_shallow(body[at]):
            raise FrameRefused(f"a table of {Kind(frame.kind).name} is nested too deep")
    for at in rule.times:
        if not are_times(body[at]):
            raise FrameRefused(f"part {at + 1} of {Kind(frame.kind).name} has no times")
    if rule.first >= 0:
        length = len(body[rule.first])
        for at in rule.columns:
            if len(body[at]) != length:
                raise FrameRefused(f"the columns of {Kind(frame.kind).name} differ in length")
        if rule.extras and body[rule.extras]:
            _check_extras(body[rule.extras], length, rule.ends)
    if rule.payloads:
        column = body[rule.payloads]
        counts = (
            [entry for entry in column if type(entry) is int]
            if type(column) is list
            else ([column] if type(column) is int else [])
        )
    else:
        counts = [1] * rule.buffers
    if counts or frame.buffers:
        _check_buffers(frame, counts)
    return frame


def unwrap(frame: Frame) -> Frame:
    """Return what a SAID says, as a frame that has been checked; raises FrameRefused."""
    number, kind, body = frame.body
    if type(number) is not int or type(kind) is not int or kind not in IN_SAID:
        raise FrameRefused("SAID says something that is never said so")
    return check(Frame(kind, body, frame.buffers))


IN_SAID = frozenset({int(Kind.CANCEL), int(Kind.CLOSE), *range(Kind.CLUSTER, Kind.RESYNCED + 1)})


def _check_buffers(frame: Frame, counts: list[int]) -> None:
    """Each payload has its buffers, and the first of them, a pickle, is not in a memory file."""
    at = 0
    for count in counts:
        if count < 1 or at + count > len(frame.buffers) or isinstance(frame.buffers[at], Shared):
            raise FrameRefused(f"{Kind(frame.kind).name} has not the buffers that it names")
        at += count
    if at != len(frame.buffers):
        raise FrameRefused(f"{Kind(frame.kind).name} has not the buffers that it names")


def is_beside_pickle(frame: Frame) -> bool:
    """Say whether the next buffer of a RUN that is arriving, unchecked, is not a pickle itself."""
    at, body = len(frame.buffers), frame.body
    if frame.kind != Kind.RUN or type(body) is not list or len(body) < 3:
        return False
    for entry in body[2] if type(body[2]) is list else ():
        if type(entry) is int:
            if at < entry:
                return at > 0
            at -= max(entry, 0)
    return False


def _check_extras(extras: list[Any], length: int, are_ends: bool) -> None:
    for extra in extras:
        if len(extra) != 2 or type(extra[0]) is not int or type(extra[1]) is not dict:
            raise FrameRefused("an extra is not [position, table]")
        if not 0 <= extra[0] < length:
            raise FrameRefused("an extra belongs to no job")
        if not is_shallow(extra[1]):
            raise FrameRefused("an extra is nested too deep")
        if are_ends:
            check_end(extra[1])


class Bulk:
    """A payload or result that travels as raw buffers: a pickle, and what lies beside it."""

    __slots__ = ("beside", "pickled", "size")

    def __init__(self, pickled: Memory, beside: Sequence[Buffer] = ()) -> None:
        self.pickled, self.beside = pickled, list(beside)
        self.size = memoryview(pickled).nbytes + sum(
            b.size if isinstance(b, Shared) else memoryview(b).nbytes for b in self.beside
        )

    def __len__(self) -> int:
        """Return its bytes, INLINE_LIMIT at least."""
        return max(self.size, INLINE_LIMIT)

    def startswith(self, prefix: bytes) -> bool:
        """Say how its pickle begins, as bytes do."""
        return bytes(memoryview(self.pickled)[: len(prefix)]) == prefix


Payload = bytes | Bulk


def split_payloads(payloads: Sequence[Payload]) -> tuple[list[Any], list[Buffer]]:
    """Return the column of a frame for these payloads, and its buffers."""
    if not payloads or max(map(len, payloads)) < INLINE_LIMIT:
        return list(payloads), []
    column: list[bytes | int] = []
    buffers: list[Buffer] = []
    for payload in payloads:
        if isinstance(payload, bytes) and len(payload) < INLINE_LIMIT:
            column.append(payload)
            continue
        bulk = payload if isinstance(payload, Bulk) else Bulk(payload)
        column.append(1 + len(bulk.beside))
        buffers += [bulk.pickled, *bulk.beside]
    return column, buffers


def join_payloads(column: list[Any], buffers: Sequence[Buffer]) -> list[Payload]:
    """Return all payloads of a checked frame in order; the inverse of `split_payloads`."""
    if not buffers:
        return column
    payloads: list[Payload] = []
    at = 0
    for entry in column:
        if isinstance(entry, int):
            pickled, *beside = buffers[at : at + entry]
            assert not isinstance(pickled, Shared), "checked above"
            payloads.append(Bulk(pickled, beside))
            at += entry
        else:
            payloads.append(entry)
    return payloads
