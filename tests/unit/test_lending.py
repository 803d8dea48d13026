"""What a node has in memory files is used again when nobody looks at it, and not before."""

import fcntl
import gc
import os
from typing import Any

import gevent
import pytest

from dispy.node.lending import OWNERS_SEGMENTS, OwnersSegments, Views
from dispy.protocol.frames import (
    Frame,
    FrameDecoder,
    FrameRefused,
    Shared,
    encode_frame,
)
from dispy.protocol.messages import Bulk, Kind, is_beside_pickle, join_payloads, split_payloads
from dispy.system.segments import SHARED_SIZE, Descriptor, MappedSegments, SegmentPool

DEADLINE = 30.0  # seconds


class Link:
    """Notes what it is told to do."""

    def __init__(self) -> None:
        self.decoder = FrameDecoder()
        self.sent: list[tuple[int, Any]] = []
        self.told = gevent.event.Event()

    def receive_into(self, take_shared: Any) -> None:
        self.decoder.take_shared = take_shared

    def send(self, kind: int, body: Any) -> None:
        self.sent.append((kind, body))
        self.told.set()


def run_frame(*payloads: bytes | Bulk) -> bytes:
    column, buffers = split_payloads(payloads)
    return b"".join(encode_frame(Kind.RUN, [1, list(range(len(payloads))), column, []], buffers))


def received(link: Link, wire: bytes) -> list[Any]:
    link.decoder.feed(wire)
    frame = link.decoder.next_frame()
    assert frame is not None
    return join_payloads(frame.body[2], frame.buffers)


def test_what_lies_beside_pickles_is_received_into_segments_and_nothing_else() -> None:
    link, segments = Link(), OwnersSegments()
    segments.receive(link)  # type: ignore[arg-type]
    large, pickled = bytes(range(256)) * (SHARED_SIZE // 256), b"p" * SHARED_SIZE
    small = b"s" * (SHARED_SIZE - 1)
    first, inline, second = received(
        link, run_frame(Bulk(pickled, [large, small]), b"x", Bulk(pickled, [small, large]))
    )
    assert inline == b"x"
    for payload, at in ((first, 0), (second, 1)):
        assert payload.pickled == pickled
        assert payload.beside[1 - at] == small
        shared = payload.beside[at]
        assert isinstance(shared, Shared)
        assert shared.source.view() == large


def test_a_segment_is_used_again_after_its_job_unless_the_worker_still_looks_at_it() -> None:
    link, segments = Link(), OwnersSegments()
    segments.receive(link)  # type: ignore[arg-type]
    wire = run_frame(Bulk(b"p", [bytes(SHARED_SIZE)]))

    def token_after(extra: dict[str, Any]) -> tuple[int, int]:
        (payload,) = received(link, wire)
        token = payload.beside[0].token
        segments.done(payload, {key: [token] for key in extra})
        del payload
        (again,) = received(link, wire)
        return token, again.beside[0].token

    first, second = token_after({})
    assert first == second
    first, second = token_after({"held": None})
    assert first != second
    segments.done(None, {"held": [first]})  # of a job that is not known any more
    segments.done(received(link, wire)[0], {"held": "nonsense"})


def test_more_than_an_owner_may_have_in_segments_is_received_elsewhere() -> None:
    link, segments = Link(), OwnersSegments()
    segments.receive(link)  # type: ignore[arg-type]
    (payload,) = received(link, run_frame(Bulk(b"p", [bytes(SHARED_SIZE)] * (OWNERS_SEGMENTS + 2))))
    kinds = [isinstance(buffer, Shared) for buffer in payload.beside]
    assert kinds == [True] * OWNERS_SEGMENTS + [False] * 2


@pytest.mark.parametrize(
    "body", [7, {}, [], [1, [1], 5, []], [1, [1], [-3, "x"], []], [1, [1], [10**30], []], None]
)
def test_a_run_of_any_shape_is_asked_about_and_refused_later(body: object) -> None:
    frame = Frame(Kind.RUN, body, [b""])
    assert is_beside_pickle(frame) in (True, False)


def test_a_view_of_a_workers_result_ends_with_a_word_to_the_worker() -> None:
    link, pool = Link(), SegmentPool()
    lease = pool.share(b"r" * SHARED_SIZE)
    assert lease is not None
    passed = Shared(lease.token, lease.size, Descriptor(os.dup(lease.descriptor)), readonly=True)
    view, other = Views(link).of([passed, b"beside"])  # type: ignore[arg-type]
    assert other == b"beside"
    assert view == b"r" * SHARED_SIZE
    assert memoryview(view).readonly
    gevent.sleep(0)
    assert not link.sent
    del view
    with gevent.Timeout(DEADLINE, AssertionError("nobody is told")):
        link.told.wait()
    assert link.sent == [(Kind.RELEASE, [[lease.token]])]


@pytest.mark.parametrize("fault", ["may shrink", "too small", "no file"])
def test_a_memory_file_that_would_end_who_looks_at_it_is_refused(fault: str) -> None:
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SHARED_SIZE)
    if fault != "may shrink":
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    source = Descriptor(descriptor)
    size = SHARED_SIZE + (fault == "too small")
    if fault == "no file":
        os.close(descriptor)
    with pytest.raises((ValueError, OSError)):
        MappedSegments(lambda token: None).view(1, size, descriptor)
    with pytest.raises(FrameRefused, match="cannot be used"):
        Views(Link()).of([Shared(1, size, source)])  # type: ignore[arg-type]
    if fault == "no file":
        source.descriptor = -1


def test_segments_of_a_pool_that_is_gone_leave_no_descriptors() -> None:
    gc.collect()  # of tests before, which may have descriptors
    before = len(os.listdir("/proc/self/fd"))
    pool = SegmentPool()
    leases = [pool.share(bytes(SHARED_SIZE)) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) > before
    del pool
    leases.clear()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_buffer_that_breaks_off_gives_its_segment_back() -> None:
    link, segments = Link(), OwnersSegments()
    segments.receive(link)  # type: ignore[arg-type]
    wire = run_frame(Bulk(b"p", [bytes(SHARED_SIZE)]))
    link.decoder.feed(wire[: SHARED_SIZE // 2])
    assert link.decoder.next_frame() is None
    del link  # its connection was lost
    other = Link()
    segments.receive(other)  # type: ignore[arg-type]
    (payload,) = received(other, wire)
    assert payload.beside[0].source.view() == bytes(SHARED_SIZE)
    assert segments._pool._count == 1
