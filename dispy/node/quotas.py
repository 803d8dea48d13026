"""What one client may have of a node: bytes of its memory, bytes of its disk.

An account counts what is held for one owner, by batch, and says whether more may come. What is
turned away for lack of room is remembered, and told once there is room again.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack

from dispy.execution.records import Key
from dispy.model.accounts import Account
from dispy.protocol.frames import Buffer, FrameRefused, Shared
from dispy.protocol.messages import Payload
from dispy.system.usage import available_memory

PART = 2  # of the machine's memory, and of the disk that was free at the start: a half each
JOB_BYTES = 500  # of what a node notes of a job beside its payload and options
RESULT_BYTES = 200  # of what it notes of a result
SMALL_BYTES = 1 << 20  # a frame as small as this is read first and judged then
_TABLE = 4  # times as large is a table in memory as it was on the wire


def client_limits(memory: int | None, disk: int | None, directory: Path) -> tuple[int, int]:
    """Return the bytes of memory and disk of one client; None is half of what there is.

    `directory` is where its files go, on a disk that has what is free at a node's start.
    """
    if memory is None:
        memory = available_memory()[1] // PART
    if disk is None:
        disk = shutil.disk_usage(directory).free // PART
    return memory, disk


@dataclass(slots=True)
class Memory(Account):
    """Payloads of jobs and their options, code, and results that are not acknowledged."""

    lasting: int = 0  # of `held`, what does not go with any job: code
    turned_away: set[Key] = field(default_factory=set)  # whose owner waits for room
    has_room: Callable[[set[Key]], None] | None = None  # called with those once there is some

    def release(self, size: int) -> None:
        """Count bytes that are held no more, and tell who was turned away."""
        self.held -= size
        if self.turned_away:
            self.tell_room()

    def tell_room(self) -> None:
        """Tell who was turned away, if at least half of what jobs may have is free."""
        free = self.limit - self.held
        if self.has_room is not None and 2 * free >= self.limit - self.lasting:
            told, self.turned_away = self.turned_away, set()
            self.has_room(told)

    def ever_fits(self, size: int) -> bool:
        """Say whether so many bytes can be held once nothing else of any job is."""
        return not self.limit or self.lasting + size <= self.limit

    def lets_in(self, size: int) -> bool:
        """Say whether a frame with so many bytes of buffers may be read into memory."""
        return size <= SMALL_BYTES or self.fits(size)


def size_of(buffer: Buffer) -> int:
    """Return the bytes of a buffer."""
    return buffer.size if isinstance(buffer, Shared) else memoryview(buffer).nbytes


def weight_of_jobs(payloads: Sequence[Payload]) -> int:
    """Return the bytes that a node keeps for jobs with these payloads, without their options."""
    return JOB_BYTES * len(payloads) + sum(map(len, payloads))


def weight_of_table(table: Mapping[str, Any]) -> int:
    """Return about how many bytes options of a job, or other settings, take.

    Raises FrameRefused for what is nested more deeply than anybody of ours does it.
    """
    try:
        return _TABLE * len(msgpack.packb(table))
    except ValueError:
        raise FrameRefused("settings, or options of a job, are nested too deeply") from None


def weight_of_results(columns: Sequence[list[Any]], buffers: Sequence[Buffer]) -> int:
    """Return the bytes of a frame with results; `columns` as in DONE."""
    *_, results, extras = columns
    weight = RESULT_BYTES * len(results)
    if buffers:
        weight += sum(map(size_of, buffers))
        results = [result for result in results if type(result) is bytes]
    weight += sum(map(len, results))
    for _, extra in extras:
        weight += sum(len(value) for value in extra.values() if isinstance(value, (str, bytes)))
    return weight
