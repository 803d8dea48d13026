"""Output of jobs on this program's own streams while they run, for clusters with `stream=True`.

Every line is led by its job and node. A thread of its own writes, because a terminal may block.
What a node passed over, and what is beyond a terminal's measure, is counted; a job's `stdout`
and `stderr` have all of it.
"""

import sys
from collections.abc import Sequence
from time import monotonic
from typing import Any

from dispy.client.callbacks import Callbacks
from dispy.client.job import DispyJob
from dispy.client.waiting import make_event
from dispy.model.texts import legible

BYTES_A_SECOND = 256 * 1024  # that are written, of all jobs together
QUEUED_BYTES = 4 * 1024 * 1024  # that wait for a terminal which blocks; more is passed over
LINE_BYTES = 64 * 1024  # of a line that does not end; then it is written as it is
FLUSH_SECONDS = 2.0  # that the program's end waits for a terminal


class Terminal:
    """Shows what jobs write; all but `show`, `ended` and `flush` runs on its own thread."""

    def __init__(self) -> None:
        self._queue = Callbacks("dispy-output")
        self._queue.start()
        self._shown: dict[tuple[int, int], _Shown] = {}  # (job, descriptor)
        self._taken = self._looked_at = 0  # bytes of all text: by the hub, by the thread
        self._allowance = float(BYTES_A_SECOND)
        self._refilled = monotonic()

    def show(self, job: DispyJob, node: str, descriptor: int, offset: int, text: bytes) -> None:
        """Show what a running job has written at this offset (bytes). On the hub, never waits."""
        if self._taken + len(text) - self._looked_at > QUEUED_BYTES:
            return
        self._taken += len(text)
        self._queue.put(self._show, job, node, descriptor, offset, text)

    def ended(self, jobs: Sequence[DispyJob], node: str) -> None:
        """Show what was not shown of jobs that have their whole output now."""
        for job in jobs:
            if job.stdout or job.stderr or self._shown:
                self._queue.put(self._end, job, node, (job.stdout, job.stderr))

    def flush(self) -> None:
        """Return when all is written, or has taken too long."""
        done = make_event()
        self._queue.put(done.set)
        done.wait(FLUSH_SECONDS)

    # -- on its thread

    def _show(self, job: DispyJob, node: str, descriptor: int, offset: int, text: bytes) -> None:
        self._looked_at += len(text)
        key = (job._number, descriptor)
        shown = self._shown.get(key)
        if shown is None:
            shown = self._shown[key] = _Shown()
        if offset + len(text) <= shown.offset or not self._allows(len(text)):
            return
        passed_over = max(0, offset - shown.offset)
        text = text[max(0, shown.offset - offset) :]
        shown.offset = max(offset, shown.offset) + len(text)
        lead = f"[job {job.id} on {node}] "
        if passed_over:
            _write(descriptor, _left_out(lead, passed_over, shown.rest))
            shown.rest = b""
        *lines, shown.rest = (shown.rest + text).split(b"\n")
        if len(shown.rest) > LINE_BYTES:
            lines, shown.rest = [*lines, shown.rest], b""
        _write(descriptor, "".join(f"{lead}{_plain(line)}\n" for line in lines))

    def _end(self, job: DispyJob, node: str, outputs: tuple[Any, Any]) -> None:
        for descriptor, output in enumerate(outputs, 1):
            whole = output.encode() if isinstance(output, str) else output or b""
            shown = self._shown.pop((job._number, descriptor), _Shown())
            rest, lead = shown.rest + whole[shown.offset :], f"[job {job.id} on {node}] "
            if not rest:
                continue
            if not self._allows(len(rest)):
                _write(descriptor, _left_out(lead, len(rest), b""))
                continue
            lines = rest.removesuffix(b"\n").split(b"\n")
            _write(descriptor, "".join(f"{lead}{_plain(line)}\n" for line in lines))

    def _allows(self, size: int) -> bool:
        """Say whether so many bytes may be written now, and count them."""
        now = monotonic()
        refill = (now - self._refilled) * BYTES_A_SECOND
        self._allowance = min(float(BYTES_A_SECOND), self._allowance + refill)
        self._refilled = now
        if size > self._allowance:
            return False
        self._allowance -= size
        return True


class _Shown:
    """How far the output of one stream of one job has been taken, and its unfinished line."""

    __slots__ = ("offset", "rest")

    def __init__(self) -> None:
        self.offset, self.rest = 0, b""


def _left_out(lead: str, count: int, rest: bytes) -> str:
    line = f"{lead}{_plain(rest)}\n" if rest else ""
    return f"{line}{lead}({count:,} bytes are not shown here; the job's output has them)\n"


def _plain(line: bytes) -> str:
    """Return a line as text that cannot steer the terminal; colours are left out."""
    return legible(line.decode(errors="replace").removesuffix("\r").rpartition("\r")[2], "\t")


def _write(descriptor: int, text: str) -> None:
    stream = sys.stdout if descriptor == 1 else sys.stderr
    if text and stream is not None:
        stream.write(text)
        stream.flush()
