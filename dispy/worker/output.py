"""A worker's stdout and stderr, captured at the level of descriptors.

Both are memory files opened for appending, so that C code and child programs are captured
too and endless output never blocks. While a job runs, its node frees what lies beyond the
limit (the file's size goes on counting), so that it never fills the memory either.
"""

import fcntl
import io
import os
import sys

from dispy.system.processes import memory_file
from dispy.worker.channel import move_out_of_the_way

OUTPUT_LIMIT = 1024 * 1024  # bytes of each stream that a job's result carries
NAMES = ("dispy-stdout", "dispy-stderr")  # by which the node knows these files


class Output:
    """Owns descriptors 1 and 2 of this process from its creation on."""

    def __init__(self) -> None:
        self._kept = []
        for name in NAMES:
            kept = move_out_of_the_way(memory_file(name))
            fcntl.fcntl(kept, fcntl.F_SETFL, os.O_APPEND)
            self._kept.append(kept)
        self._inodes = [os.fstat(kept).st_ino for kept in self._kept]
        self.restore()

    def restore(self) -> None:
        """Point descriptors 1 and 2, and sys.stdout and sys.stderr, at the files."""
        for target, kept in enumerate(self._kept, 1):
            os.dup2(kept, target)
        sys.stdout = self._stdout = _text(1)
        sys.stderr = self._stderr = _text(2)

    def take(self) -> tuple[bytes, bytes]:
        """Return what was written since the last call, and forget it; two system calls."""
        if sys.stdout is not self._stdout or sys.stderr is not self._stderr:
            self.restore()
        try:
            self._stdout.flush()
            self._stderr.flush()
            first, second = os.fstat(1), os.fstat(2)
        except (OSError, ValueError):  # the job closed a stream or its descriptor
            self.restore()
            first, second = os.fstat(1), os.fstat(2)
        if first.st_ino != self._inodes[0] or second.st_ino != self._inodes[1]:
            self.restore()  # the job pointed them elsewhere
            first, second = os.fstat(1), os.fstat(2)
        if not first.st_size and not second.st_size:
            return b"", b""
        return self._taken(0, first.st_size), self._taken(1, second.st_size)

    def _taken(self, which: int, size: int) -> bytes:
        if not size:
            return b""
        text = os.pread(self._kept[which], OUTPUT_LIMIT, 0)
        os.ftruncate(self._kept[which], 0)
        if size > OUTPUT_LIMIT:
            text += b"\n[dispy dropped %d bytes beyond %d]\n" % (size - OUTPUT_LIMIT, OUTPUT_LIMIT)
        return text


def _text(descriptor: int) -> io.TextIOWrapper:
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
