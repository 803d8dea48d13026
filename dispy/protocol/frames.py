"""Bytes to frames: a fixed header, a msgpack body, then raw buffers. Sans-I/O.

Feed what arrived, then take frames until None. A frame is refused from its header or its table
of sizes alone, before the rest is waited for. Used by every link and by the socket pair of a
worker, each from its own single thread or greenlet.

A head, in network order: length of the body (4), kind (1), number of buffers (2), then one size
of 8 bytes for each buffer (READ_ONLY or SHARED added), one token of 8 bytes for each that is
SHARED, and the body. The bytes of the other buffers follow in chunks, each with a header of its
own (length, kind 0, 0). Frames without buffers may stand between chunks: so a heartbeat never
waits behind a gigabyte. A second frame with buffers waits for the first's end.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from dispy.model.errors import DispyError

HEADER = struct.Struct("!IBH")
SIZE = struct.Struct("!Q")
CHUNK = 0  # the kind of a piece of a buffer; no message has it
CHUNK_SIZE = 4 * 1024 * 1024  # bytes; at a gigabit a second the next frame waits for 32 ms
BODY_LIMIT = 16 * 1024 * 1024  # bytes. A batch of jobs is kept below 1 MiB; bulk goes in buffers
STRANGERS_ELEMENTS = 64  # of a list or table of a peer that has not proven who it is
SCAN_SIZE = 2048  # bytes of a body; from here on it is looked through before it is decoded
BUFFERS_LIMIT = 4096  # buffers a frame; a batch sends each larger argument as one
BULK_LIMIT = 8 * 1024 * 1024 * 1024  # bytes of all buffers of a frame: what a node may be asked for
READ_ONLY = 1 << 63  # beside a buffer's size: the receiver may make it bytes, which nobody changes
SHARED = 1 << 62  # beside a buffer's size: it lies in a memory file, whose token follows the sizes
_FLAGS = READ_ONLY | SHARED
_NO_PARTS: bytes = msgpack.packb([])
_WASTE = memoryview(bytearray(256 * 1024))  # what is dropped is received here; nobody reads it


@dataclass(slots=True)
class Shared:
    """A buffer in a memory file: its token crosses the wire, and its descriptor beside it.

    `source` has that as its `descriptor`, and lives as long as the bytes are needed; None in a
    decoder, which sees no descriptors.
    """

    token: int
    size: int
    source: Any = None
    readonly: bool = False  # as READ_ONLY: in case it is sent on by a copy


Memory = bytes | bytearray | memoryview
Buffer = Memory | Shared
# Takes a size and whether it may be read-only; returns memory, and the view that fills it.
TakeMemory = Callable[[int, bool], tuple[Memory, memoryview]]
# Takes a frame whose next buffer begins, and its size; returns a place in a memory file of ours.
TakeShared = Callable[["Frame", int], tuple[Shared, memoryview] | None]


class FrameRefused(DispyError):
    """The peer broke the framing; the link cannot go on. The text says which rule."""


@dataclass(slots=True)
class Frame:
    """One message as it crossed the wire: its kind, decoded body, and raw buffers."""

    kind: int
    body: Any
    buffers: list[Buffer] = field(default_factory=list)
    dropped: int = 0  # bytes of its buffers, which were not let in: each is empty
    lacking: bool = False  # not let in because this process could have no memory for them


def encode_head(kind: int, body: object, buffers: Sequence[Buffer] = ()) -> bytes:
    """Return a frame's bytes up to its buffers; raises FrameRefused as the receiver would."""
    if body == [] and not buffers:  # a sign of life: thousands a second from a scheduler
        return HEADER.pack(1, kind, 0) + _NO_PARTS
    packed: bytes = msgpack.Packer().pack(body)  # `packb` takes twice as long
    if len(packed) > BODY_LIMIT:
        raise FrameRefused(f"a frame's body of {len(packed)} bytes; the limit is {BODY_LIMIT}")
    if not buffers:
        return HEADER.pack(len(packed), kind, 0) + packed
    if len(buffers) > BUFFERS_LIMIT:
        raise FrameRefused(f"a frame of {len(buffers)} buffers; the limit is {BUFFERS_LIMIT}")
    sizes = list(map(_size, buffers))
    total = sum(size & ~_FLAGS for size in sizes)
    if total > BULK_LIMIT:
        raise FrameRefused(f"a frame's buffers of {total} bytes; the limit is {BULK_LIMIT}")
    sizes += [buffer.token for buffer in buffers if isinstance(buffer, Shared)]
    table = b"".join(map(SIZE.pack, sizes))
    return HEADER.pack(len(packed), kind, len(buffers)) + table + packed


def _size(buffer: Buffer) -> int:
    if isinstance(buffer, Shared):
        return buffer.size | SHARED | READ_ONLY * buffer.readonly
    view = memoryview(buffer)
    return view.nbytes | READ_ONLY * view.readonly


def encode_chunks(buffers: Sequence[Buffer]) -> Iterator[list[bytes | memoryview]]:
    """Yield the pieces of each chunk of a frame's buffers, in order; copies nothing."""
    pieces: list[bytes | memoryview] = []
    room = CHUNK_SIZE
    for buffer in buffers:
        if isinstance(buffer, Shared):
            continue
        view = memoryview(buffer).cast("B")
        while view:
            pieces.append(view[:room])
            room -= len(pieces[-1])
            view = view[len(pieces[-1]) :]
            if not room:
                yield _chunk(pieces)
                pieces, room = [], CHUNK_SIZE
    if pieces:
        yield _chunk(pieces)


def _chunk(pieces: list[bytes | memoryview]) -> list[bytes | memoryview]:
    return [HEADER.pack(sum(map(len, pieces)), CHUNK, 0), *pieces]


def encode_frame(
    kind: int, body: object, buffers: Sequence[Buffer] = ()
) -> list[bytes | memoryview]:
    """Return all pieces of a frame to send, in order; raises FrameRefused as the receiver would."""
    head = encode_head(kind, body, buffers)
    return [head, *(piece for chunk in encode_chunks(buffers) for piece in chunk)]


def zeroed(size: int, readonly: bool) -> tuple[Memory, memoryview]:
    """Return plain memory; `dispy.system.memory.blank` is faster for large buffers."""
    buffer = bytearray(size)
    return buffer, memoryview(buffer)


class FrameDecoder:
    """Feed what arrived, then take frames until None. Holds two frames and one read at most.

    `bulk_limit` is the most bytes of buffers that this peer may send in one frame; 0 for a
    peer that has not proven who it is. `memory` is where its buffers are received.
    """

    def __init__(
        self,
        body_limit: int = BODY_LIMIT,
        bulk_limit: int = BULK_LIMIT,
        memory: TakeMemory = zeroed,
    ) -> None:
        self._body_limit, self._bulk_limit = body_limit, bulk_limit
        self._elements = -1 if bulk_limit else STRANGERS_ELEMENTS  # -1: as many as there are bytes
        self._memory = memory
        self.take_shared: TakeShared | None = None  # asked first
        self._arrived = bytearray()
        self._frame: Frame | None = None  # whose buffers are arriving
        self._sizes: list[int] = []  # of its buffers that are not begun, last first
        self._tokens: list[int] = []  # of those that are shared, last first
        self._place = memoryview(b"")  # the rest of the one that is being filled
        self._missing = self._bulk = 0  # bytes of all of them that are to come; that there are
        self._chunk_left = 0  # bytes of the chunk that is arriving
        # Asked with the bytes of a frame's buffers before memory is taken for them; False: they
        # are read and dropped, and the frame says so.
        self.lets_in: Callable[[int], bool] | None = None

    def trust(self) -> None:
        """Raise the limits to those of a peer that has said who it is."""
        self._body_limit, self._bulk_limit, self._elements = BODY_LIMIT, BULK_LIMIT, -1

    def feed(self, data: bytes | memoryview) -> None:
        """Add what was read from the peer; costs one copy."""
        self._arrived += data

    @property
    def is_empty(self) -> bool:
        """Whether all frames that arrived have been taken, and none is arriving."""
        return not self._arrived and self._frame is None

    def space(self) -> memoryview | None:
        """Return where the next bytes belong, to be received there without a copy, or None.

        Whoever fills some of it says so with `filled`, and whoever does not may `feed`.
        """
        if not self._chunk_left or self._arrived:
            return None
        return self._place[: self._chunk_left]

    def filled(self, size: int) -> None:
        """Take note of `size` bytes that were received into `space()`."""
        self._chunk_left -= size
        self._missing -= size
        self._place = self._place[size:]
        if not self._place:
            self._begin_buffer()

    def _begin_buffer(self) -> None:
        """Take memory for the next buffer that is not empty: never before its turn has come."""
        assert self._frame is not None
        if self._frame.dropped:
            self._place = _WASTE[: self._missing]
            return
        while self._sizes and not self._place:
            size = self._sizes.pop()
            if size & SHARED:
                shared = Shared(self._tokens.pop(), size & ~_FLAGS, readonly=size >= READ_ONLY)
                self._frame.buffers.append(shared)
                continue
            if self.take_shared is not None:
                taken = self.take_shared(self._frame, size & ~_FLAGS)
                if taken is not None:
                    shared, self._place = taken
                    self._frame.buffers.append(shared)
                    continue
            try:
                buffer, self._place = self._memory(size & ~_FLAGS, size >= READ_ONLY)
            except MemoryError:
                if self.lets_in is None:
                    raise FrameRefused(
                        f"a buffer of {size & ~_FLAGS} bytes; there is no memory for it here"
                    ) from None
                self._frame.lacking = True
                self._sizes.append(size)
                self._drop(self._frame)
                return
            self._frame.buffers.append(buffer)

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None until more is fed. Raises FrameRefused."""
        while True:
            if self._frame is not None and not self._missing:
                frame, self._frame = self._frame, None
                return frame
            if self._chunk_left:
                if not self._arrived:
                    return None
                self._move()
                continue
            if len(self._arrived) < HEADER.size:
                return None
            length, kind, count = HEADER.unpack_from(self._arrived)
            if kind == CHUNK:
                if not length or length > self._missing:
                    raise FrameRefused(
                        f"a chunk of {length} bytes where {self._missing} are missing"
                    )
                self._chunk_left = length
                del self._arrived[: HEADER.size]
                continue
            if length > self._body_limit:
                raise FrameRefused(
                    f"a frame's body of {length} bytes; the limit is {self._body_limit}"
                )
            if count:
                if not self._take_head(length, kind, count):
                    return None
                continue
            end = HEADER.size + length
            if len(self._arrived) < end:
                return None
            body = unpack_body(memoryview(self._arrived)[HEADER.size : end], self._elements)
            del self._arrived[:end]
            return Frame(kind, body)

    def _take_head(self, length: int, kind: int, count: int) -> bool:
        """Take a frame's head and prepare for its buffers; False until it has arrived."""
        if count > BUFFERS_LIMIT:
            raise FrameRefused(f"a frame of {count} buffers; the limit is {BUFFERS_LIMIT}")
        if self._frame is not None:
            raise FrameRefused("a frame with buffers inside another one")
        arrived, start = self._arrived, HEADER.size + count * SIZE.size
        if len(arrived) < start:
            return False
        sizes = _numbers(arrived, HEADER.size, count)
        total = sum(size & ~_FLAGS for size in sizes)
        if total > self._bulk_limit:
            raise FrameRefused(
                f"a frame's buffers of {total} bytes; the limit is {self._bulk_limit}"
            )
        shared = sum(size & SHARED > 0 for size in sizes)
        tokens = start
        start += shared * SIZE.size
        if len(arrived) < start + length:
            return False
        self._tokens = _numbers(arrived, tokens, shared)[::-1]
        body = unpack_body(memoryview(arrived)[start : start + length], self._elements)
        del arrived[: start + length]
        frame = self._frame = Frame(kind, body)
        self._sizes = sizes[::-1]
        self._bulk = self._missing = sum(size & ~_FLAGS for size in sizes if not size & SHARED)
        if self.lets_in is not None and not self.lets_in(self._missing):
            self._drop(frame)
        self._begin_buffer()
        return True

    def _drop(self, frame: Frame) -> None:
        """Take no more memory for a frame, and free what was taken."""
        came: list[Buffer] = [
            buffer if isinstance(buffer, Shared) else b"" for buffer in frame.buffers
        ]
        frame.dropped, sizes, self._sizes = self._bulk, self._sizes[::-1], []
        frame.buffers = came + [
            Shared(self._tokens.pop(), size & ~_FLAGS) if size & SHARED else b"" for size in sizes
        ]
        self._place = _WASTE[: self._missing]

    def _move(self) -> None:
        """Move bytes of a chunk that were fed to their place."""
        size = min(len(self._arrived), self._chunk_left, len(self._place))
        with memoryview(self._arrived) as arrived:
            self._place[:size] = arrived[:size]
        del self._arrived[:size]
        self.filled(size)


def attach_sources(frame: Frame, descriptors: "deque[Any]") -> None:
    """Give the shared buffers of a frame the descriptors that came beside it, in order.

    Those that were received into our own have theirs. Raises FrameRefused where one is missing.
    """
    for buffer in frame.buffers:
        if isinstance(buffer, Shared) and buffer.source is None:
            if not descriptors:
                raise FrameRefused("a shared buffer came without its descriptor")
            buffer.source = descriptors.popleft()


def _numbers(arrived: bytearray, start: int, count: int) -> list[int]:
    return [SIZE.unpack_from(arrived, start + n * SIZE.size)[0] for n in range(count)]


def unpack_body(packed: memoryview, elements: int = -1) -> Any:
    """Decode a body; no extension types, no keys but text, no list longer than `elements`.

    The decoder takes memory for as many elements as a list says it has, before it has seen one:
    a body of 4 KiB that is nothing but nested beginnings of lists would take 26 MB. So larger
    ones are first looked through, which costs a third of decoding them.
    """
    try:
        if elements < 0 and len(packed) >= SCAN_SIZE:
            scanner = msgpack.Unpacker(max_buffer_size=BODY_LIMIT)
            scanner.feed(packed)
            scanner.skip()
        return msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            ext_hook=_refuse_extension,
            timestamp=1,  # the one type that the hook never sees; as a number it is harmless
            max_array_len=elements,
            max_map_len=elements,
        )
    except FrameRefused:
        raise
    except Exception as error:  # msgpack raises many kinds; each means the same to the link
        raise FrameRefused(f"a frame's body is not msgpack: {error}") from None
    finally:
        packed.release()


def _refuse_extension(code: int, data: bytes) -> Any:
    raise FrameRefused(f"a frame's body has extension type {code}; none is allowed")
