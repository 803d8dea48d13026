"""Bytes to frames: a fixed header, a msgpack body, then raw buffers. Sans-I/O.

Feed what arrived, then take frames until None. A frame is refused from its header or
its table of sizes alone, before the rest is waited for or allocated. Used by every link
and by the socket pair of a worker, each from its own single thread or greenlet.

Layout, network order: length of the body (4), kind (1), number of buffers (2), then one
size of 8 bytes for each buffer, the body, and the buffers in order.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from dispy.model.errors import DispyError

HEADER = struct.Struct("!IBH")
SIZE = struct.Struct("!Q")
BODY_LIMIT = 16 * 1024 * 1024  # bytes. A batch of jobs is kept below 1 MiB; bulk goes in buffers
BUFFERS_LIMIT = 4096  # buffers a frame; a batch sends each larger argument as one
BULK_LIMIT = 8 * 1024 * 1024 * 1024  # bytes of all buffers of a frame: what a node may be asked for


class FrameRefused(DispyError):
    """The peer broke the framing; the link cannot go on. The text says which rule."""


@dataclass(slots=True)
class Frame:
    """One message as it crossed the wire: its kind, decoded body, and raw buffers."""

    kind: int
    body: Any
    buffers: list[bytes] = field(default_factory=list)


def encode_frame(
    kind: int, body: object, buffers: Sequence[bytes | memoryview] = ()
) -> list[bytes | memoryview]:
    """Return the pieces to send, in order; buffers are passed on without a copy.

    Raises FrameRefused where the receiver would refuse it.
    """
    packed = msgpack.packb(body, use_bin_type=True)
    if not buffers and len(packed) <= BODY_LIMIT:
        return [HEADER.pack(len(packed), kind, 0) + packed]
    sizes = [memoryview(buffer).nbytes for buffer in buffers]
    _check(len(packed), sizes)
    if len(buffers) > BUFFERS_LIMIT:
        raise FrameRefused(f"a frame of {len(buffers)} buffers; the limit is {BUFFERS_LIMIT}")
    head = HEADER.pack(len(packed), kind, len(buffers)) + b"".join(map(SIZE.pack, sizes))
    return [head + packed, *buffers]


def _check(length: int, sizes: Sequence[int]) -> None:
    if length > BODY_LIMIT:
        raise FrameRefused(f"a frame's body of {length} bytes; the limit is {BODY_LIMIT}")
    if sum(sizes) > BULK_LIMIT:
        raise FrameRefused(f"a frame's buffers of {sum(sizes)} bytes; the limit is {BULK_LIMIT}")


class FrameDecoder:
    """Feed what arrived, then take frames until None. Holds one frame and one read at most.

    `bulk_limit` is the most bytes of buffers that this peer may send in one frame; 0 for a
    peer that has not proven who it is.
    """

    def __init__(self, body_limit: int = BODY_LIMIT, bulk_limit: int = BULK_LIMIT) -> None:
        self._body_limit, self._bulk_limit = body_limit, bulk_limit
        self._arrived = bytearray()

    def trust(self) -> None:
        """Raise the limits to those of a peer that has said who it is."""
        self._body_limit, self._bulk_limit = BODY_LIMIT, BULK_LIMIT

    def feed(self, data: bytes | memoryview) -> None:
        """Add what was read from the peer; costs one copy."""
        self._arrived += data

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None until more is fed. Raises FrameRefused."""
        arrived = self._arrived
        if len(arrived) < HEADER.size:
            return None
        length, kind, count = HEADER.unpack_from(arrived)
        if length > self._body_limit:
            raise FrameRefused(f"a frame's body of {length} bytes; the limit is {self._body_limit}")
        if count > BUFFERS_LIMIT:
            raise FrameRefused(f"a frame of {count} buffers; the limit is {BUFFERS_LIMIT}")
        if not count:
            return self._take_plain(kind, HEADER.size + length)
        start = HEADER.size + count * SIZE.size
        if len(arrived) < start:
            return None
        sizes = [SIZE.unpack_from(arrived, HEADER.size + n * SIZE.size)[0] for n in range(count)]
        if sum(sizes) > self._bulk_limit:
            raise FrameRefused(
                f"a frame's buffers of {sum(sizes)} bytes; the limit is {self._bulk_limit}"
            )
        end = start + length
        if len(arrived) < end + sum(sizes):
            return None
        body = _unpack(memoryview(arrived)[start:end])
        buffers = []
        for size in sizes:
            buffers.append(bytes(memoryview(arrived)[end : end + size]))
            end += size
        del arrived[:end]
        return Frame(kind, body, buffers)

    def _take_plain(self, kind: int, end: int) -> Frame | None:
        """Return a frame without buffers: nearly all are, so this is the short way."""
        arrived = self._arrived
        if len(arrived) < end:
            return None
        body = _unpack(memoryview(arrived)[HEADER.size : end])
        del arrived[:end]
        return Frame(kind, body, [])


def _unpack(packed: memoryview) -> Any:
    """Decode a body; no extension types, no keys but text, nothing larger than itself."""
    try:
        return msgpack.unpackb(packed, raw=False, strict_map_key=True, ext_hook=_refuse_extension)
    except FrameRefused:
        raise
    except Exception as error:  # msgpack raises many kinds; each means the same to the link
        raise FrameRefused(f"a frame's body is not msgpack: {error}") from None
    finally:
        packed.release()


def _refuse_extension(code: int, data: bytes) -> Any:
    raise FrameRefused(f"a frame's body has extension type {code}; none is allowed")
