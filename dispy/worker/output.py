"""A worker's stdout and stderr, captured at the level of descriptors.

Both are memory files opened for appending, so that C code and child programs are captured
too and endless output never blocks. The node makes them, so that what a job has written is there
when its process has died. While a job runs, its node frees what lies beyond the limit (the file's
size goes on counting), so that it never fills the memory either.
"""

import contextlib
import fcntl
import io
import os
import sys
from collections.abc import Sequence
from os import SEEK_END, lseek

from dispy.shipping.failures import OWN_PLACES
from dispy.system.processes import flush_c_streams, memory_file
from dispy.worker.channel import move_out_of_the_way

OUTPUT_LIMIT = 1024 * 1024  # bytes of each stream that a job's result carries
_NAMES = ("dispy-stdout", "dispy-stderr")  # for whoever looks into /proc
LAST_LINES, LAST_BYTES = 10, 2048  # of stderr that are told with the end of a process
_FRAME, _EXTENSIONS = '  File "', "Extension modules: "  # in Python's account of a crash
_OWN_FRAMES = tuple(_FRAME + place for place in OWN_PLACES)


def make_outputs() -> tuple[int, int]:
    """Return the descriptors of two empty files, for stdout and stderr. Raises OSError."""
    first = memory_file(_NAMES[0])
    try:
        return first, memory_file(_NAMES[1])
    except OSError:
        os.close(first)
        raise


def read_output(descriptor: int) -> bytes:
    """Return what a file of `make_outputs` holds: the beginning, and a word of what there is more.

    What the node freed of an endless output reads as zeros, beyond the limit only.
    """
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, OUTPUT_LIMIT, 0)
    if size > OUTPUT_LIMIT:
        text += b"\n[dispy dropped %d bytes beyond %d]\n" % (size - OUTPUT_LIMIT, OUTPUT_LIMIT)
    return text


def last_lines(text: str) -> list[str]:
    """Return the lines that what was written to stderr ends with, a few, and none about dispy."""
    told: list[str] = []
    is_ours = False  # this frame of Python's account of a crash, and with that those around it
    for line in text[-8 * LAST_BYTES :].splitlines():
        is_ours = line.startswith(_FRAME) and (is_ours or line.startswith(_OWN_FRAMES))
        if line.strip() and not is_ours and not line.startswith(_EXTENSIONS):
            told.append(line)
    return "\n".join(told[-LAST_LINES:])[-LAST_BYTES:].splitlines()


class Output:
    """Owns descriptors 1 and 2 of this process from its creation on."""

    def __init__(self, files: Sequence[int], by_lines: bool = False) -> None:
        """`files`: those of `make_outputs`, which are closed.

        `by_lines`: what Python writes to stdout can be read at the end of each line.
        """
        self._by_lines = by_lines
        self._kept = []
        for descriptor in files:
            kept = move_out_of_the_way(descriptor)
            fcntl.fcntl(kept, fcntl.F_SETFL, os.O_APPEND)
            self._kept.append(kept)
        self._inodes = [os.fstat(kept).st_ino for kept in self._kept]
        self._nothing = move_out_of_the_way(os.open(os.devnull, os.O_RDONLY))
        self.lost = False  # a job closed the files themselves: nothing is captured any more
        self.restore()

    def restore(self) -> None:
        """Point descriptors 0 to 2, and sys.stdout and sys.stderr, to where they belong."""
        for target, kept in enumerate([self._nothing, *self._kept]):
            os.dup2(kept, target)
        sys.stdout = self._stdout = _text(1, self._by_lines)
        sys.stderr = self._stderr = _text(2, by_lines=True)  # as Python does: it may die any moment

    def close(self) -> None:
        """Free the files, after 0 to 2 have been pointed elsewhere."""
        for descriptor in (self._nothing, *self._kept):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def take(self) -> tuple[bytes, bytes]:
        """Return what was written since the last call, and forget it; two system calls."""
        flush_c_streams()
        try:
            try:
                if sys.stdout is not self._stdout or sys.stderr is not self._stderr:
                    raise ValueError("the job has changed them")
                self._stdout.flush()
                self._stderr.flush()
            except (OSError, ValueError):  # or closed them
                self._flush_what_can_be()
                self.restore()
            try:
                first_file, second_file = os.fstat(1), os.fstat(2)
                if [first_file.st_ino, second_file.st_ino] != self._inodes:
                    self.restore()  # C code has pointed them elsewhere
                elif not first_file.st_size and not second_file.st_size:
                    return b"", b""
            except OSError:  # closed by C code, or no file any more
                self.restore()
            first, second = [lseek(kept, 0, SEEK_END) for kept in self._kept]
            return self._taken(0, first), self._taken(1, second)
        except OSError:
            self.lost = True
            return b"", b""

    def take_last(self) -> tuple[bytes, bytes]:
        """As `take`, in a process that runs no other job: nothing is put back."""
        flush_c_streams()
        try:
            self._stdout.flush()
            self._stderr.flush()
            if sys.stdout is not self._stdout or sys.stderr is not self._stderr:
                raise ValueError("the job has changed them")
        except (OSError, ValueError):  # or closed them
            self._flush_what_can_be()
        first, second = self._kept
        try:
            first_size, second_size = lseek(first, 0, SEEK_END), lseek(second, 0, SEEK_END)
            if not first_size and not second_size:
                return b"", b""
            return self._taken(0, first_size), self._taken(1, second_size)
        except OSError:  # the job has closed the files themselves
            return b"", b""

    def _flush_what_can_be(self) -> None:
        for stream in (self._stdout, self._stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()

    def check(self) -> None:
        """Point 1 and 2 back if a job has moved them; two system calls of 1 us."""
        with contextlib.suppress(OSError):
            if [os.fstat(1).st_ino, os.fstat(2).st_ino] == self._inodes:
                return
        try:
            self.restore()
        except OSError:
            self.lost = True

    def _taken(self, which: int, size: int) -> bytes:
        if not size:
            return b""
        text = read_output(self._kept[which])
        os.ftruncate(self._kept[which], 0)
        return text


def _text(descriptor: int, by_lines: bool) -> io.TextIOWrapper:
    return open(descriptor, "w", 1 if by_lines else -1, "utf-8", "backslashreplace", closefd=False)
