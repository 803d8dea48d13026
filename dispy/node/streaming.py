"""Output of jobs on its way to a client's terminal while they run (`stream=True`).

The memory files that a worker writes to are read here now and then, as far as they have grown.
The whole output still comes with a job's result; what is shown before is a copy, and no more of
it than a terminal can bear.
"""

import os
from collections.abc import Iterator, Sequence

from dispy.worker.journal import running_job

SHOWN_BYTES = 8 * 1024  # of one stream in one look; older text is passed over


class Streaming:
    """How much of its running job's output was read from one worker."""

    def __init__(self, journal: int, outputs: Sequence[int]) -> None:
        """Take the descriptors of the worker's journal and of its files for stdout and stderr."""
        self._journal, self._outputs = journal, outputs
        self._job: int | None = None
        self._read = [0, 0]  # bytes of stdout and of stderr

    def news(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield (job, descriptor, offset, text) for what has been written since the last look."""
        job = running_job(self._journal)
        if job != self._job:
            self._job, self._read = job, [0, 0]
        if job is None:
            return
        for which, output in enumerate(self._outputs):
            offset, text = _grown(output, self._read[which])
            # Files are emptied at a job's end, before the journal names the next one.
            if text and running_job(self._journal) == job:
                self._read[which] = offset + len(text)
                yield job, which + 1, offset, text


def _grown(output: int, read: int) -> tuple[int, bytes]:
    """Return where the newest text of a file begins, and that text; empty: there is none."""
    size = os.fstat(output).st_size
    offset = max(read, size - SHOWN_BYTES)
    return offset, os.pread(output, size - offset, offset) if size > offset else b""
