"""What a worker has done and not told yet, where neither its death nor its job can take it.

A file in memory that the node makes and the worker maps: a job may kill the process or close
every descriptor, and the node still reads which job ran, and the results of those before it.
Without this they would be lost, or run twice.

Layout: the job that runs, the bytes of records that were told, and those that are used; then a
record for each job, with its result and its extra (msgpack) behind it. What counts a record is
written after it, so that what is counted is whole.

With a process for each job (`dispy.worker.forking`) that writes the record of its job itself, and
then counts it, while its worker may note at the same time what has been told: each writes a word
of its own.
"""

import mmap
import os
import struct
from typing import Any

from dispy.protocol.frames import FrameRefused, unpack_body
from dispy.protocol.messages import Payload
from dispy.system.processes import memory_file

JOURNAL_BYTES = 256 * 1024  # results that a worker may hold back; only what is used costs memory
_HEAD = struct.Struct("=qII")
_WORD = struct.Struct("@I")  # native: one store
_TOLD_AT, _USED_AT = 8, 12
_RECORD = struct.Struct("=qddII")  # job, start, end, bytes of result and of extra
_set_head, _record = _HEAD.pack_into, _RECORD.pack
_NOBODY = -1  # runs: the worker is between two jobs, or has not begun the first


def make_journal() -> int:
    """Return the descriptor of an empty journal; in the node. Raises OSError."""
    descriptor = memory_file("dispy-journal")
    try:
        os.ftruncate(descriptor, JOURNAL_BYTES)
        os.pwrite(descriptor, _HEAD.pack(_NOBODY, 0, 0), 0)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Journal:
    """The worker's side; half a microsecond a job."""

    def __init__(self, descriptor: int) -> None:
        """Map the journal; the descriptor may be closed then."""
        self._map = mmap.mmap(descriptor, JOURNAL_BYTES)
        self._used = 0  # bytes of records

    def begin(self, job: int) -> None:
        """Note which job runs from now on, and that the records before it are whole."""
        _set_head(self._map, 0, job, 0, self._used)

    def end(self) -> None:
        """Note that no job runs."""
        _set_head(self._map, 0, _NOBODY, 0, self._used)

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

    def clear(self, running: int | None) -> None:
        """Forget the records: the node has been told. A job that is `running` goes on."""
        self._used = 0
        if running is not None:
            self.begin(running)


class SharedJournal(Journal):
    """A journal whose records are written by the worker's children, one at a time."""

    def __init__(self, descriptor: int) -> None:
        """As for Journal."""
        super().__init__(descriptor)
        self._told = 0  # bytes of records

    # -- in the worker

    def begin(self, job: int) -> None:
        """Note which job runs from now on; there is no child."""
        _set_head(self._map, 0, job, self._told, self._used)

    def end(self) -> None:
        """Note that no job runs."""
        _set_head(self._map, 0, _NOBODY, self._told, self._used)

    def came(self) -> bool:
        """Say whether the child that has ended left its record."""
        used: int = _WORD.unpack_from(self._map, _USED_AT)[0]
        came = self._used < used <= JOURNAL_BYTES - _HEAD.size
        if came:
            self._used = used
        return came

    def untold(self) -> list[Any]:
        """Return the columns of a DONE message; ValueError where a job has written nonsense."""
        return _columns(self._map, self._told, self._used)

    def clear(self, running: int | None) -> None:
        """Forget the records up to now. A child of a job that is `running` goes on beside us."""
        if running is None:
            self._told = self._used = 0
        else:
            self._told = self._used
            _WORD.pack_into(self._map, _TOLD_AT, self._told)

    # -- in a child

    def leave(self, job: int, start: float, end: float, result: Payload, extra: bytes) -> bool:
        """Write the record of this child's job and count it; False when it has no room."""
        if not self.add(job, start, end, result, extra):
            return False
        _WORD.pack_into(self._map, _USED_AT, self._used)
        return True


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
    whole = os.pread(descriptor, JOURNAL_BYTES, 0)
    try:
        running, told, used = _HEAD.unpack_from(whole)
        columns = _columns(whole, told, used)
    except (struct.error, ValueError):
        return None, [[], [], [], [], []]
    return (None if running == _NOBODY or running in columns[0][-1:] else running), columns


def _columns(whole: bytes | mmap.mmap, told: int, used: int) -> list[Any]:
    """Return the columns of a DONE message for the records between; raises ValueError."""
    columns: list[Any] = [[], [], [], [], []]
    numbers, starts, ends, results, extras = columns
    at, limit = _HEAD.size + told, _HEAD.size + used
    try:
        while at < limit:
            number, start, end, size, extra_size = _RECORD.unpack_from(whole, at)
            at += _RECORD.size
            if extra_size:
                extra = unpack_body(memoryview(whole[at + size : at + size + extra_size]))
                extras.append([len(numbers), extra])
            for column, value in zip(
                (numbers, starts, ends, results),
                (number, start, end, whole[at : at + size]),
                strict=True,
            ):
                column.append(value)
            at += size + extra_size
    except (struct.error, FrameRefused) as error:
        raise ValueError(f"the record at byte {at} makes no sense") from error
    return columns
