"""What a job's own process leaves for its worker: a page of memory that both map.

A result that fits needs no system call, and arrives whole even where the job has closed every
descriptor. The head is written last, so that a process that dies before has left nothing.
"""

import mmap
import struct

SLIP_BYTES = 128 * 1024  # result and extra; larger ones go through a socket
_HEAD = struct.Struct("=??IId")  # a result lies here, it spoke; bytes of result, extra; seconds
_EMPTY = _HEAD.pack(False, False, 0, 0, 0.0)


class Slip:
    """Made by the worker, written once by each process that it forks."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, SLIP_BYTES)
        self._spoke = False

    def clear(self) -> None:
        """Make it ready for the next process."""
        self._map[: _HEAD.size] = _EMPTY

    def note_spoke(self) -> None:
        """Say that something went through the socket."""
        self._spoke = True
        self._map[1] = 1

    @property
    def spoke(self) -> bool:
        """Whether `note_spoke` was called."""
        return self._map[1] != 0

    def put(self, result: bytes, extra: bytes, seconds: float) -> bool:
        """Leave a result, made in so many seconds; False where it has no room."""
        end = _HEAD.size + len(result) + len(extra)
        if end > SLIP_BYTES:
            return False
        self._map[_HEAD.size : end] = result + extra
        _HEAD.pack_into(self._map, 0, True, self._spoke, len(result), len(extra), seconds)
        return True

    @property
    def seconds(self) -> float:
        """How long the job ran; 0 where no result lies here."""
        seconds: float = _HEAD.unpack_from(self._map)[-1]
        return seconds

    def take(self) -> tuple[bytes, bytes] | None:
        """Return result and extra; None where nothing was left, or no sense."""
        left, _, size, extra_size, _ = _HEAD.unpack_from(self._map)
        at, end = _HEAD.size + size, _HEAD.size + size + extra_size
        if not left or end > SLIP_BYTES:
            return None
        return self._map[_HEAD.size : at], self._map[at:end]
