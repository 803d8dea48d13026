"""A worker's stdout and stderr, captured at the level of descriptors.

Both are memory files opened for appending, so that C code and child programs are captured
too and endless output never blocks. The node keeps them within bounds while a job runs.
"""

import fcntl
import io
import os
import sys

from dispy.system.processes import memory_file

OUTPUT_LIMIT = 1024 * 1024  # bytes of each stream that a job's result carries


class Output:
    """Owns descriptors 1 and 2 of this process from its creation on."""

    def __init__(self) -> None:
        self._files = []
        for target, name in ((1, "stdout"), (2, "stderr")):
            made = memory_file(name)
            kept = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, 200)  # out of a job's way
            os.close(made)
            fcntl.fcntl(kept, fcntl.F_SETFL, os.O_APPEND)
            self._files.append((target, kept))
        self.restore()

    def restore(self) -> None:
        """Point descriptors 1 and 2, and sys.stdout and sys.stderr, at the files."""
        for target, kept in self._files:
            os.dup2(kept, target)
        sys.stdout = self._stdout = _text(1)
        sys.stderr = self._stderr = _text(2)

    def take(self) -> tuple[str, str]:
        """Return what was written since the last call, as text, and forget it."""
        if sys.stdout is not self._stdout or sys.stderr is not self._stderr:
            self.restore()
        try:
            self._stdout.flush()
            self._stderr.flush()
        except (OSError, ValueError):  # the job closed a stream or its descriptor
            self.restore()
        return self._taken(0), self._taken(1)

    def _taken(self, which: int) -> str:
        kept = self._files[which][1]
        size = os.fstat(kept).st_size
        if not size:
            return ""
        text = os.pread(kept, OUTPUT_LIMIT, 0).decode(errors="replace")
        os.ftruncate(kept, 0)
        if size > OUTPUT_LIMIT:
            text += f"\n[dispy dropped {size - OUTPUT_LIMIT} bytes beyond {OUTPUT_LIMIT}]\n"
        return text


def _text(descriptor: int) -> io.TextIOWrapper:
    return open(
        descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False
    )
