"""Rows of a journal to what is stored of them, and back. Pure.

Two values in the database, `head` and `rest`, of which a load reads the first alone; and one file
beside it with all buffers of a row that are longer than 64 KiB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from dispy.protocol.frames import Memory
from dispy.scheduler.journal_entries import Payloads
from dispy.scheduler.journal_rows import Row

BESIDE_BYTES = 64 * 1024  # of a buffer; longer ones cost the database more than a file does


@dataclass(frozen=True, slots=True)
class Stored:
    """A row as it is stored. `beside`: what its own file holds, piece after piece."""

    number: int
    kind: int
    head: bytes
    rest: bytes
    beside: Sequence[Memory]
    beside_bytes: int

    @property
    def weight(self) -> int:
        """Bytes that are written for it."""
        return len(self.head) + len(self.rest) + self.beside_bytes


def store(row: Row) -> Stored:
    """Return what is stored of a row; it shares the memory of long buffers."""
    rest, beside, size = b"", [], 0
    if row.column or row.buffers:
        places: list[bytes | int] = []
        for buffer in row.buffers:
            view = memoryview(buffer)
            if view.nbytes > BESIDE_BYTES:
                beside.append(buffer)
                places.append(view.nbytes)
                size += view.nbytes
            else:
                places.append(bytes(view))
        rest = pack([row.column, places])
    return Stored(row.number, row.kind, pack(row.head), rest, beside, size)


def pack(value: Any) -> bytes:
    """Return plain data as bytes."""
    packed: bytes = msgpack.Packer().pack(value)
    return packed


def unpack(packed: bytes) -> Any:
    """Return plain data that was packed; raises ValueError."""
    return msgpack.unpackb(packed, strict_map_key=False)


def restore(rest: bytes, beside: bytes) -> Payloads:
    """Return column and buffers that were stored; raises ValueError where they are not whole."""
    if not rest:
        return Payloads([], [])
    column, places = unpack(rest)
    buffers, at = [], 0
    for place in places:
        if isinstance(place, int):
            buffers.append(beside[at : at + place])
            at += place
        else:
            buffers.append(place)
    if at != len(beside):
        raise ValueError("the file beside it is not whole")
    return Payloads(column, buffers)
