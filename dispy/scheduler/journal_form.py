"""Rows of a journal to what is stored of them, and back. Pure.

Two values in the database, `head` and `rest`, of which a load reads the first alone. What carries
much has its rest in a file of its own. Each has a check sum: a disk may give back something else.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from dispy.protocol.frames import Memory
from dispy.scheduler.journal_entries import Payloads
from dispy.scheduler.journal_rows import Row

# Of a rest. To make a file and remove it takes as long as the database does for 200 KB (ext4 on a
# virtual disk: 0.7 ms), and each further megabyte a third of that.
BESIDE_BYTES = 512 * 1024
COPY_BYTES = 64 * 1024  # of a buffer; longer ones stay where they are until they are written
CHECK_BYTES = 4  # at the end of a head
_packer = msgpack.Packer()  # which keeps its memory: to have it anew costs as much as to pack


@dataclass(frozen=True, slots=True)
class Stored:
    """A row as it is stored; `rest` piece after piece."""

    number: int
    kind: int
    head: bytes
    rest: Sequence[Memory]
    rest_bytes: int

    @property
    def weight(self) -> int:
        """Bytes that are written for it."""
        return len(self.head) + self.rest_bytes

    @property
    def has_file(self) -> bool:
        """Whether its rest is too much for the database."""
        return self.rest_bytes > BESIDE_BYTES

    def check(self) -> int:
        """Return the check sum of its rest; takes 0.3 ms for a megabyte."""
        check = 0
        for piece in self.rest:
            check = zlib.crc32(piece, check)
        return check


def store(row: Row) -> Stored:
    """Return what is stored of a row; it shares the memory of long buffers."""
    packed, size = pack(row.head), 0
    rest: list[Memory] = []
    if row.column or row.buffers:
        long: list[memoryview] = []
        places: list[bytes | int] = []
        for buffer in row.buffers:
            view = memoryview(buffer).cast("B")
            if len(view) > COPY_BYTES:
                long.append(view)
                places.append(len(view))
            else:
                places.append(bytes(view))
        first = pack([row.column, places])
        rest = [first, *long]
        size = len(first) + sum(map(len, long))
    head = packed + zlib.crc32(packed).to_bytes(CHECK_BYTES, "big")
    return Stored(row.number, row.kind, head, rest, size)


def restore_head(head: bytes) -> list[Any]:
    """Return a row's head; raises ValueError where it is not what was stored."""
    packed = head[:-CHECK_BYTES]
    if zlib.crc32(packed).to_bytes(CHECK_BYTES, "big") != head[-CHECK_BYTES:]:
        raise ValueError("a row is not what was written")
    found: list[Any] = unpack(packed)
    return found


def restore(rest: bytes, check: int) -> Payloads:
    """Return column and buffers; raises ValueError where they are not what was stored."""
    if zlib.crc32(rest) != check:
        raise ValueError("what it carries is not what was written")
    if not rest:
        return Payloads([], [])
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=len(rest))
    unpacker.feed(rest)
    column, places = unpacker.unpack()
    at = unpacker.tell()
    buffers = []
    for place in places:
        if isinstance(place, int):
            buffers.append(rest[at : at + place])
            at += place
        else:
            buffers.append(place)
    return Payloads(column, buffers)


def pack(value: Any) -> bytes:
    """Return plain data as bytes; for one thread. Raises TypeError, ValueError and OverflowError
    where it is not plain."""
    try:
        packed: bytes = _packer.pack(value)
    except BaseException:
        _packer.reset()
        raise
    return packed


def unpack(packed: bytes) -> Any:
    """Return plain data that was packed; raises ValueError."""
    return msgpack.unpackb(packed, strict_map_key=False)
