"""Frames made from a fuzzer's choices: of the right shape mostly, with numbers that collide.

A body of random msgpack seldom gets beyond the table of shapes. So each part of a message is made
for what stands there: tables have the keys that are looked at, manifests have entries, and what
is said is said of the few jobs and computations that there are.
"""

import sys
from collections.abc import Sequence
from typing import Any

from fuzz.choices import Choices, pack

from dispy.protocol.frames import HEADER, READ_ONLY, SIZE, encode_chunks
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import SHAPES, Kind
from dispy.shipping.contents import digest_of
from dispy.shipping.files import LINK

CONTENTS = {digest_of(content): content for content in (b"", b"one", b"t" * 5000)}
DIGESTS = [*CONTENTS, b"d" * 32, b"short", b""]
PATHS = ["a", "a/b", "b", "a/b/c", "c", "..", "../x", "/x", "a//b", ".", "a/../../x", "n" * 256]
IDENTITIES = [character * 32 for character in "abc"]
STATUSES = [4, 6, 7, 8, 9, 5, 3, 0, 11, 99, -1]

# What stands in the tables of messages, with the values that it should have.
OPEN = {
    "implementation": [sys.implementation.name], "python": ["3.99"], "program": [True, False],
    "source": [True, False], "cpus": [1, 2, 3], "setup_timeout": [0.001, 100], "stream": [True],
    "cleans_up": [True], "cleanup": [True, False], "dest_path": ["d", "d/e", "../d", "/d", "", 7],
    "isolation": ["job", "worker"], "setup_args": [b"x"], "java": ["java"], "pulse": [0.01, 5],
    "max_result_size": [0, 1000],
}  # fmt: skip
LIMITS = {
    "timeout": [0.001, 5], "cpu_time": [1], "grace": [0], "memory": [1, 10**12], "nice": [1, 19],
    "jobs_per_worker": [1, 2], "worker_growth": [1], "env": [{"A": "b"}, {"A=": 1}, {"": 0}],
}  # fmt: skip
RUN = {**LIMITS, "cpus": [1, 2, 3, 10**9], "retries": [0, 1], "priority": [0, 7, -7, 10**9]}
EXTRA = {
    "status": STATUSES, "exception": ["Traceback\nValueError: no", ""], "stdout": ["out"],
    "stderr": ["err"], "error": [b"x"], "died": [True], "death": [["was killed", 1, 9]],
    "held": [[1, 2]], "forking": [[0.1, 0.2]],
}  # fmt: skip
HELLO = {
    "cpus": [1, 2, 0, 10**6], "available": [[1.0, 2, 3, 4.0], "why"], "pulse": [0.01, 1],
    "recover": [True], "claim": [b"c" * 32, b"d" * 32, b"short"], "begins": [True],
    "attach": [True], "conversation": ["", "t"],
}  # fmt: skip
TABLES: dict[int, dict[str, list[Any]]] = {
    Kind.HELLO: {},
    Kind.OPEN: OPEN,
    Kind.PLACE: {"node": ["n", "m"]},
    Kind.READY: {"stdout": ["o"], "stderr": ["e"], "threads": [["t"]]},
    Kind.STATUS: {
        "crowded": [{"a": 1}], "held_back": ["why", ""], "available": [[1.0, 2, 3, 4.0]],
    },
    Kind.CLOSED: {"stdout": ["o"], "threads": [[1]], "shutdown": [True]},
    Kind.OFFER: {
        "name": [b"file", b"../x", b"a/b", b"\xff", b"", b"\0", b"n" * 300],
        "size": [0, 5, 10**7, 2**62], "mode": [0o644, 0o4755, 2**63], "modified": [0, 2**63],
    },
    Kind.LOADED: {"stdout": ["o"]},
    Kind.CLEANED: {"shutdown": [True]},
    Kind.LOAD: {},
    Kind.FILE: {"name": [b"file"]},
    Kind.CLUSTER: {
        "settings": [OPEN, {}, 1], "reentrant": [True], "retries": [0, 2], "pulse": [0.5, -1],
        "weight": [1, 2.5, 0, -1.0, float("nan"), 1e300], "priority": [0, 3, -3, 2**70, 0.5],
        "owner": ["ann", "ben", ""], "exclusive": [True, False],
    },
    Kind.ALLOT: {
        "own": [{"setup_args": b"x"}, {}, {"files": [["a", b"d" * 32, 1, 0, 0]]}],
        "forgive": [True, False], "untranslated": ["why"],
    },
    Kind.RULES: {"nodes": [[["*", None, 0]], [["n", 51348, 1]], [], None, [[1]]]},
    Kind.DEPART: {"again": [True, False], "terminate": [True, False]},
    Kind.ASK: {"cluster": [0, 1, 2, -1], "job": [0, 1, 5], "node": ["n", "m"], "stuck": [True],
               "lacks": [True]},
    Kind.NODE: {
        "name": ["n"], "ip_addr": ["127.0.0.1"], "port": [51348], "cpus": [1, 2, -1],
        "available": [[1.0, 2, 3, 4.0], "why"],
    },
    Kind.ANSWER: {"lines": [["why"]], "jobs": [[1, 2]], "stuck": [True, False]},
    Kind.REQUEST: {
        "what": ["c", "1.1", "1.1:8", "2.0:7", ":", "1.1:" + "9" * 30, "", 7], "nodes": [True],
        "job": ["1.1:8", "c:9", "c:c"], "node": ["n", "127.0.0.1", "a" * 32], "off": [True, False],
    },
    Kind.RESPONSE: {"lines": [["why"]], "error": ["no"], "nodes": [[{"name": "n"}]]},
}  # fmt: skip
_EXTRAS = {
    Kind.RUN: RUN, Kind.JOBS: RUN, Kind.RESULTS: EXTRA, Kind.DONE: EXTRA, Kind.SUBMIT: RUN,
    Kind.ENDED: EXTRA,
}  # fmt: skip
_COLUMNS = {
    Kind.RUN: (1, 3), Kind.RESULTS: (2, 6), Kind.JOBS: (0, 2), Kind.DONE: (0, 4),
    Kind.SUBMIT: (2, 4), Kind.ENDED: (2, 6),
}  # fmt: skip
WITH_PAYLOADS = (*_COLUMNS, Kind.PROVISIONAL, Kind.INTERIM, Kind.VALUE)


def encode(kind: int, made: Any, buffers: Sequence[bytes] = ()) -> bytes:
    """Return the bytes of a frame, without the checks of our own encoder."""
    try:
        packed = pack(made)
    except (ValueError, OverflowError):
        packed = b"\xc1"  # what msgpack has no meaning for
    sizes = b"".join(SIZE.pack(len(buffer) | READ_ONLY) for buffer in buffers)
    chunks = (piece for chunk in encode_chunks(buffers) for piece in chunk)
    return b"".join([HEADER.pack(len(packed), kind, len(buffers)), sizes, packed, *chunks])


def nonsense(choices: Choices) -> Any:
    """Return what should not stand there."""
    return choices.anything() if choices.below(2) else choices.nested()


def table(choices: Choices, known: dict[str, list[Any]]) -> dict[str, Any]:
    """Return a table with some of the known keys, most of them with values that make sense."""
    made: dict[str, Any] = {}
    names = list(known)
    for _ in range(choices.below(6) if names else 0):
        name = choices.of(names)
        made[name] = nonsense(choices) if choices.byte() >= 200 else choices.of(known[name])
    if choices.seldom():
        made[choices.text()] = nonsense(choices)
    return made


def manifest(choices: Choices) -> Any:
    """Return a list of files, or something else."""
    if choices.seldom():
        return choices.anything()
    return [entry(choices) for _ in range(choices.below(5))]


def entry(choices: Choices) -> Any:
    if choices.seldom():
        return choices.anything()
    path, digest = choices.of(PATHS), choices.of(DIGESTS)
    size = len(CONTENTS.get(digest, b"")) if not choices.seldom() else choices.whole()
    made = [path, digest, size, choices.of([0o644, 0, 0o755, 0o4755]), choices.of([0, 1, 2**62])]
    if choices.byte() >= 200:
        made = [path, choices.of(PATHS).encode(), 0, LINK, 0]
    if choices.seldom():
        made[choices.below(5)] = choices.anything(1)
    return made


def needs(choices: Choices) -> Any:
    """Return what a job says that it needs: [digest, size] of each."""
    if choices.seldom():
        return choices.anything()
    chosen = [choices.of(DIGESTS[:4]) for _ in range(choices.below(4))]
    return [
        [digest, choices.whole() if choices.seldom() else len(CONTENTS.get(digest, b""))]
        for digest in chosen
    ]


def whole_table(choices: Choices, kind: int) -> dict[str, Any]:
    """Return the table that stands in a message of this kind."""
    made = table(choices, TABLES.get(kind, {}))
    if kind == Kind.OPEN:
        here = f"{sys.version_info[0]}.{sys.version_info[1]}"
        made = {"implementation": sys.implementation.name, "python": here, **made}
        if choices.below(2):
            made["limits"] = choices.anything() if choices.seldom() else table(choices, LIMITS)
    if kind in (Kind.OPEN, Kind.PLACE) and (choices.below(2) or kind == Kind.PLACE):
        made["files"] = manifest(choices)
    if kind == Kind.CLUSTER and type(made.get("settings")) is dict and choices.below(2):
        made["settings"] = {**made["settings"], "files": manifest(choices)}
    code = [choices.of(DIGESTS), choices.below(5000)]
    if kind == Kind.ALLOT and choices.below(4) == 3:
        made["own"] = {"files": manifest(choices), "code": code}
    if kind == Kind.RULES and choices.below(4) == 3:
        made["code"] = code
    return made


def extra(choices: Choices, kind: int, jobs: int) -> Any:
    """Return what is said of one job of several."""
    if choices.seldom():
        return choices.anything()
    made = table(choices, _EXTRAS[Kind(kind)])
    takes_files = kind in (Kind.RUN, Kind.SUBMIT)
    if takes_files and choices.below(4) == 3:
        made["needs"] = needs(choices)
    if takes_files and choices.below(4) == 3:
        made["files"] = manifest(choices)
    return [choices.below(max(1, jobs)), made]


def body(choices: Choices, kind: int) -> list[Any]:
    """Return a body of the kind's shape."""
    count = choices.below(5)
    first, end = _COLUMNS.get(Kind(kind), (0, 0))
    made: list[Any] = []
    for at, part in enumerate(SHAPES[kind]):
        if type(part) is list and first <= at < end:
            made.append([choices.of_type(choices.of(part)) for _ in range(count)])
        elif kind in (Kind.LABEL, Kind.LEFT) and part == [list]:
            labels = choices.below(3)
            made.append([[choices.below(20), b"label"] for _ in range(labels)])
        elif type(part) is list and list in part:
            made.append([extra(choices, kind, count) for _ in range(choices.below(3))])
        elif type(part) is list:
            made.append([choices.of_type(choices.of(part)) for _ in range(choices.below(4))])
        elif dict in part:
            made.append(whole_table(choices, kind))
        else:
            made.append(choices.of_type(choices.of(part)))
    return made


def buffers_for(choices: Choices, kind: int, made: list[Any]) -> list[bytes]:
    """Return as many buffers as the body says that there are."""
    count = 1 if kind in (Kind.OPEN, Kind.LOAD, Kind.PIECE, Kind.CLUSTER) else 0
    for part in made:
        entries = part if isinstance(part, list) else [part]
        if kind in WITH_PAYLOADS:
            count = sum(entry for entry in entries if type(entry) is int and 0 < entry < 4)
    return [choices.of([b"bulk", b"", b"x" * 70_000]) for _ in range(count)]


def frame(choices: Choices, kinds: list[Kind]) -> bytes:
    """Return the bytes of a frame of one of these kinds, in most cases a valid one."""
    kind = choices.of(kinds)
    made, buffers = _body_and_buffers(choices, kind)
    return encode(kind, made, buffers)


def said(choices: Choices, number: int, kinds: list[Kind]) -> bytes:
    """Return the bytes of a SAID that says one of these kinds."""
    kind = choices.of(kinds)
    made, buffers = _body_and_buffers(choices, kind)
    return encode(Kind.SAID, [number, int(kind), made], buffers)


def _body_and_buffers(choices: Choices, kind: int) -> tuple[list[Any], list[bytes]]:
    made = body(choices, kind)
    if choices.seldom():
        spoilt = choices.below(len(made) + 1)
        made[spoilt : spoilt + 1] = [choices.anything()]
    buffers = buffers_for(choices, kind, made)
    if choices.seldom():
        buffers.append(b"too many")
    return made, buffers


def hello(choices: Choices, role: str, identity: str) -> bytes:
    """Return the bytes of a first message."""
    python = choices.of([Hello("", "", "").python, "3.12", "3.10", "2.7", "x"])
    said = Hello(role, identity, "peer", python=python, details=table(choices, HELLO)).body()
    if choices.seldom():
        said[0][choices.of(list(said[0]))] = choices.anything()
    return encode(Kind.HELLO, said)
