"""What a worker has done and not told yet, where neither its death nor its job can take it.

A file in memory that the node makes and the worker maps: a job may kill the process or close
every descriptor, and the node still reads which job ran, and the results of those before it.
Without this they would be lost, or run twice.

Layout: the job that runs and the bytes that are used; then a record for each job, with its
result and its extra (msgpack) behind it. The head is written last, so that what it counts is
whole.
"""

import mmap
import os
import struct
from typing import Any

import msgpack

from dispy.protocol.messages import Payload
from dispy.system.processes import memory_file

JOURNAL_BYTES = 256 * 1024  # results that a worker may hold back; only what is used costs memory
_HEAD = struct.Struct("=qI")
_RECORD = struct.Struct("=qddII")  # job, start, end, bytes of result and of extra
_set_head, _record = _HEAD.pack_into, _RECORD.pack
_NOBODY = -1  # runs: the worker is between two jobs, or has not begun the first


def make_journal() -> int:
    """Return the descriptor of an empty journal; in the node."""
    descriptor = memory_file("dispy-journal")
    os.ftruncate(descriptor, JOURNAL_BYTES)
    os.pwrite(descriptor, _HEAD.pack(_NOBODY, 0), 0)
    return descriptor


class Journal:
    """The worker's side; half a microsecond a job."""

    def __init__(self, descriptor: int) -> None:
        """Map the journal; the descriptor may be closed then."""
        self._map = mmap.mmap(descriptor, JOURNAL_BYTES)
        self._used = 0  # bytes of records

    def begin(self, job: int) -> None:
        """Note which job runs from now on, and that the records before it are whole."""
        _set_head(self._map, 0, job, self._used)

    def end(self) -> None:
        """Note that no job runs."""
        _set_head(self._map, 0, _NOBODY, self._used)

    def add(self, job: int, start: float, end: float, result: Payload, extra: bytes) -> bool:
        """Write a record; False when it has no room: then tell the node at once."""
        if type(result) is not bytes:
            return False
        record = _record(job, start, end, len(result), len(extra)) + result + extra
        at = _HEAD.size + self._used
        if at + len(record) > JOURNAL_BYTES:
            return False
        self._map[at : at + len(record)] = record
        self._used += len(record)
        return True

    def clear(self) -> None:
        """Forget the records: the node has been told."""
        self._used = 0


def running_job(descriptor: int) -> int | None:
    """Return the job that a worker runs, in the node; None between two jobs."""
    head = os.pread(descriptor, _HEAD.size, 0)
    job: int = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else _NOBODY
    return None if job == _NOBODY else job


def read_journal(descriptor: int) -> tuple[int | None, list[Any]]:
    """Return the job that ran when the worker died, and the columns of a DONE message.

    In the node, which believes no word of it: the job could write there what it liked. A
    journal that makes no sense is an empty one.
    """
    columns: list[Any] = [[], [], [], [], []]
    numbers, starts, ends, results, extras = columns
    whole = os.pread(descriptor, JOURNAL_BYTES, 0)
    try:
        running, used = _HEAD.unpack_from(whole)
        at, used = _HEAD.size, used + _HEAD.size
        while at < used:
            number, start, end, size, extra_size = _RECORD.unpack_from(whole, at)
            at += _RECORD.size
            if extra_size:
                extra = msgpack.unpackb(whole[at + size : at + size + extra_size])
                extras.append([len(numbers), extra])
            for column, value in zip(
                (numbers, starts, ends, results),
                (number, start, end, whole[at : at + size]),
                strict=True,
            ):
                column.append(value)
            at += size + extra_size
    except (struct.error, ValueError, msgpack.UnpackException):
        return None, [[], [], [], [], []]
    return (None if running == _NOBODY else running), columns
