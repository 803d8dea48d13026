"""What a peer puts into the tables of messages harms nobody but itself."""

import os
import struct
import tracemalloc
from typing import Any

import msgpack
import pytest

from dispy.protocol.frames import HEADER, Frame, FrameDecoder, FrameRefused
from dispy.protocol.handshake import Hello, accept_hello
from dispy.protocol.messages import Kind, check
from dispy.protocol.tables import NESTED_LIMIT
from dispy.worker.journal import make_journal, read_journal


def nested(depth: int) -> Any:
    value: Any = {}
    for turn in range(depth - 1):
        value = {"inside": value} if turn % 2 else [value]
    return value


def with_extra(kind: Kind, extra: dict[str, Any]) -> Frame:
    bodies: dict[Kind, list[Any]] = {
        Kind.RUN: [1, [1], [b"x"]], Kind.JOBS: [[1], [b"x"]],
        Kind.RESULTS: [1, 1, [1], [0.0], [0.0], [b"x"]], Kind.DONE: [[1], [0.0], [0.0], [b"x"]],
    }  # fmt: skip
    return Frame(int(kind), [*bodies[kind], [[0, extra]]])


@pytest.mark.parametrize("depth", [NESTED_LIMIT + 1, 300, 520, 1000])
def test_tables_that_nest_deeper_than_they_can_be_passed_on_are_refused(depth: int) -> None:
    """Decoding takes 1024 levels. Encoding takes 511: a node could not pass such a table on."""
    (said,) = Hello("client", "1" * 32, "n").body()
    for name in ("details", "version", "protocol"):
        with pytest.raises(FrameRefused, match="nested too deep"):
            accept_hello(Frame(int(Kind.HELLO), [{**said, name: nested(depth)}]), "client")
    with pytest.raises(FrameRefused, match="OPEN is nested too deep"):
        check(Frame(int(Kind.OPEN), [1, "n", {"isolation": nested(depth)}], [b"code"]))
    for kind in (Kind.RUN, Kind.RESULTS, Kind.JOBS, Kind.DONE):
        with pytest.raises(FrameRefused, match="nested too deep"):
            check(with_extra(kind, {"more": nested(depth)}))


def test_tables_as_deep_as_ours_are_not_refused() -> None:
    files = [["a/b", b"d" * 32, 1, 0o644, 0]]
    check(Frame(int(Kind.OPEN), [1, "n", {"limits": {"env": {"A": "b"}}, "files": files}], [b"x"]))
    check(with_extra(Kind.RUN, {"files": files, "env": {"A": "b"}}))


@pytest.mark.parametrize("status", [0, 3, 5, 6, 7, 10, 16, 99, -1, 2**63, "9", None, [], 9.0, True])
@pytest.mark.parametrize("kind", [Kind.RESULTS, Kind.DONE])
def test_a_job_ends_by_a_status_that_is_an_end_and_that_a_node_may_give(
    kind: Kind, status: Any
) -> None:
    with pytest.raises(FrameRefused, match="not one by which a job ends"):
        check(with_extra(kind, {"status": status}))
    for end in (8, 9, 11):
        check(with_extra(kind, {"status": end}))


@pytest.mark.parametrize("kind", [Kind.RESULTS, Kind.DONE])
def test_what_is_said_of_a_job_s_end_has_the_types_that_programs_rely_on(kind: Kind) -> None:
    for name in ("stdout", "stderr", "exception", "error", "held", "forking"):
        for wrong in (None, 7, {"a": 1}):
            with pytest.raises(FrameRefused, match=f"'{name}' of a job's end"):
                check(with_extra(kind, {name: wrong}))
    check(with_extra(kind, {"stdout": b"", "stderr": "", "exception": "", "of later": None}))


@pytest.mark.parametrize("times", [[float("inf")], [float("nan")], [1e308, 1e308]])
def test_times_that_cannot_be_counted_with_are_refused(times: list[float]) -> None:
    zeros, count = [0.0] * len(times), len(times)
    for starts, ends in ((zeros, times), (times, zeros), (times, times)):
        columns = [list(range(count)), starts, ends, [b"x"] * count, []]
        with pytest.raises(FrameRefused, match="has no times"):
            check(Frame(int(Kind.RESULTS), [1, 1, *columns]))
        with pytest.raises(FrameRefused, match="has no times"):
            check(Frame(int(Kind.DONE), columns))


def test_the_extension_type_of_msgpack_itself_comes_as_a_number() -> None:
    body = msgpack.packb([{"cpus": msgpack.Timestamp(5, 0)}])
    decoder = FrameDecoder()
    decoder.feed(HEADER.pack(len(body), Kind.STATUS, 0) + body)
    frame = decoder.next_frame()
    assert frame is not None
    assert type(frame.body[0]["cpus"]) is float


def test_a_journal_full_of_lists_that_only_begin_costs_little() -> None:
    """A job may write there what it likes, and its node reads it."""
    extra = (b"\xdd" + struct.pack(">I", 50_000)) * 50_000
    record = struct.pack("=qddII", 1, 0.0, 0.0, 0, len(extra))
    head = struct.pack("=qII", 1, 0, len(record) + len(extra))
    journal = make_journal()
    try:
        os.pwrite(journal, head + record + extra, 0)
        tracemalloc.start()
        running, columns = read_journal(journal)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        os.close(journal)
    assert (running, columns) == (None, [[], [], [], [], []])
    assert peak < 8 * 1024 * 1024
