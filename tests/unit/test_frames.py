"""Any split of the bytes gives the same frames; hostile bytes are refused or waited for."""

import tracemalloc
from collections.abc import Iterable
from contextlib import suppress

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispy.protocol.frames import (
    BODY_LIMIT,
    BUFFERS_LIMIT,
    BULK_LIMIT,
    CHUNK_SIZE,
    HEADER,
    SIZE,
    Frame,
    FrameDecoder,
    FrameRefused,
    encode_chunks,
    encode_frame,
    encode_head,
)

BODIES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
FRAMES = st.builds(
    Frame, kind=st.integers(1, 255), body=BODIES, buffers=st.lists(st.binary(), max_size=3)
)


def frames_in(portions: Iterable[bytes]) -> list[Frame]:
    decoder, frames = FrameDecoder(), []
    for portion in portions:
        decoder.feed(portion)
        while (frame := decoder.next_frame()) is not None:
            frames.append(frame)
    return frames


@given(frames=st.lists(FRAMES, max_size=5), size=st.integers(1, 60))
def test_portions_do_not_matter(frames: list[Frame], size: int) -> None:
    wire = b"".join(b"".join(encode_frame(f.kind, f.body, f.buffers)) for f in frames)
    assert frames_in(wire[at : at + size] for at in range(0, len(wire), size)) == frames


@given(st.lists(st.binary()))
@example([HEADER.pack(BODY_LIMIT + 1, 1, 0)])
@example([HEADER.pack(0, 1, BUFFERS_LIMIT + 1)])
@example([HEADER.pack(0, 1, 1) + SIZE.pack(BULK_LIMIT + 1)])
@example([HEADER.pack(1, 1, 0) + b"\xc1"])
def test_hostile_bytes_are_refused_or_waited_for(portions: list[bytes]) -> None:
    with suppress(FrameRefused):  # any other exception is a fault
        frames_in(portions)


@given(frame=FRAMES, at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_waited_for_or_another_frame(
    frame: Frame, at: int, byte: int
) -> None:
    wire = bytearray(b"".join(encode_frame(frame.kind, frame.body, frame.buffers)))
    wire[at % len(wire)] = byte
    with suppress(FrameRefused):  # any other exception is a fault
        frames_in([bytes(wire)])


def test_a_large_declared_size_is_refused_from_the_header_alone() -> None:
    with pytest.raises(FrameRefused, match=str(BODY_LIMIT)):
        frames_in([HEADER.pack(BODY_LIMIT + 1, 1, 0)])


def test_frames_before_a_bad_one_are_delivered() -> None:
    decoder = FrameDecoder()
    decoder.feed(b"".join(encode_frame(1, "good")) + HEADER.pack(BODY_LIMIT + 1, 1, 0))
    assert decoder.next_frame() == Frame(1, "good")
    with pytest.raises(FrameRefused):
        decoder.next_frame()


def test_extension_types_are_refused() -> None:
    packed = msgpack.packb(msgpack.ExtType(5, b"x"))
    with pytest.raises(FrameRefused, match="extension type 5"):
        frames_in([HEADER.pack(len(packed), 1, 0) + packed])


def test_what_the_receiver_would_refuse_is_not_sent() -> None:
    with pytest.raises(FrameRefused, match=str(BODY_LIMIT)):
        encode_frame(1, b"x" * BODY_LIMIT)


def test_a_small_frame_goes_between_the_chunks_of_a_large_one() -> None:
    large = bytes(range(256)) * (CHUNK_SIZE // 100)
    first, *rest = encode_chunks([large])
    decoder = FrameDecoder()
    decoder.feed(encode_head(7, "large", [large]) + b"".join(first) + encode_head(3, []))
    assert decoder.next_frame() == Frame(3, [])
    assert decoder.next_frame() is None
    for chunk in rest:
        decoder.feed(b"".join(chunk))
    assert decoder.next_frame() == Frame(7, "large", [large])


def test_what_is_received_into_the_decoders_own_space_needs_no_copy() -> None:
    large = bytes(range(256)) * (CHUNK_SIZE // 100)
    wire = memoryview(b"".join(encode_frame(7, "large", [large, large[:1000]])))
    decoder, at, direct = FrameDecoder(), 0, 0
    while at < len(wire):
        assert decoder.next_frame() is None
        space = decoder.space()
        if space is None:
            decoder.feed(wire[at : at + 5000])
            at += 5000
        else:
            size = min(len(space), 100_000, len(wire) - at)
            space[:size] = wire[at : at + size]
            decoder.filled(size)
            at, direct = at + size, direct + size
    assert decoder.next_frame() == Frame(7, "large", [large, large[:1000]])
    assert direct > len(large) * 0.9


def test_declared_buffers_take_no_memory_before_they_arrive() -> None:
    sizes = b"".join(SIZE.pack(1 << 20) for _ in range(4000))
    tracemalloc.start()
    try:
        frames_in([HEADER.pack(1, 7, 4000) + sizes + b"\x00"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
