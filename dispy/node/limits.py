"""What a job may use of its node: its time, its processor time, its memory; and its end if it does.

The worker of such a job has no other. The job is asked to end by a signal that its code may
answer (see `dispy.worker.limits`), and killed when that takes too long: also where it sits in one
C call, or is a program.
"""

import signal
from collections.abc import Mapping
from typing import Any

from dispy.model.errors import DispyError
from dispy.model.limits import GRACE_SECONDS, WATCHED, check_limits, limits_of_job
from dispy.model.sizes import tell_bytes
from dispy.model.statuses import Status
from dispy.node.processes import NUDGE_SECONDS, WorkerProcess
from dispy.protocol.frames import FrameRefused
from dispy.system.usage import cpu_seconds, descendants, private_bytes, resident_bytes

MEASURE_SECONDS = 0.05  # between looks at what a job's processes use; 0.1 ms each


def wants_watch(options: Mapping[str, Any]) -> bool:
    """Say whether a job with these options is watched; raises FrameRefused for nonsense."""
    try:
        return not WATCHED.isdisjoint(check_limits(options))
    except DispyError as error:
        raise FrameRefused(f"options of a job: {error}") from None


def watch(
    worker: WorkerProcess,
    job: int,
    cluster: Mapping[str, Any],
    options: Mapping[str, Any],
    is_program: bool,
) -> None:
    """Watch over the job that a worker gets now, if it has a limit that needs it."""
    limits = limits_of_job(cluster, options)
    watched = any(limits.get(name) for name in WATCHED)
    worker.allowance = Allowance(job, limits, is_program, worker.pid) if watched else None


class Allowance:
    """What one job may use, what it has used, and how far its end has gone."""

    def __init__(
        self, job: int, limits: Mapping[str, Any], is_program: bool, pid: int | None
    ) -> None:
        """`pid` is that of its worker, which is idle, if it is known already."""
        self._job = job
        self._timeout: float = limits.get("timeout") or 0.0
        self._cpu_time: float = limits.get("cpu_time") or 0.0
        self._memory: float = limits.get("memory") or 0.0
        self._grace: float = limits.get("grace", GRACE_SECONDS)
        # A function's worker tells by the signal which limit it was; a program knows SIGTERM.
        self._cpu_signal = signal.SIGTERM if is_program else signal.SIGXCPU
        self._began: float | None = None
        self._measured = 0.0  # the second at which it was measured last
        self._cpu_before: float | None = None
        self._memory_before = 0
        if pid is not None:
            self._note_before(pid)
        self._exceeded: str | None = None  # which limit, and by how much
        self._asked = self._nudged = 0.0  # the seconds at which it was told to end
        self._killed = False

    def look(self, worker: WorkerProcess, now: float) -> None:
        """See whether the job keeps to its limits; call often while its worker has it."""
        pid = worker.pid
        if pid is None or worker.ended is not None:
            return
        if self._began is None:
            if worker.running_job() == self._job:
                self._began = self._measured = now
                if self._cpu_before is None:
                    self._note_before(pid)
        elif self._exceeded is not None:
            self._press(worker, now)
        elif self._timeout and now - self._began >= self._timeout:
            ran = f"it had run for {now - self._began:.1f} s"
            self._end(worker, now, f"timeout of {self._timeout:g} s", ran, signal.SIGTERM)
        elif now - self._measured >= MEASURE_SECONDS:
            self._measured = now
            self._measure(worker, pid, now)

    def _note_before(self, pid: int) -> None:
        """Take down what its worker has used for other jobs."""
        self._cpu_before = cpu_seconds([pid]) if self._cpu_time else 0.0
        self._memory_before = resident_bytes(pid) if self._memory else 0

    def _measure(self, worker: WorkerProcess, pid: int, now: float) -> None:
        below = descendants(pid) if self._cpu_time or self._memory else []
        if self._cpu_time:
            used = cpu_seconds([pid, *below]) - (self._cpu_before or 0.0)
            if used >= self._cpu_time:
                took = f"it had taken {used:.1f} s"
                limit = f"cpu_time of {self._cpu_time:g} s"
                self._end(worker, now, limit, took, self._cpu_signal)
                return
        if self._memory:
            taken = self._taken(pid, below)
            if taken > self._memory:
                took = f"it had taken {tell_bytes(taken)}"
                limit = f"memory of {tell_bytes(self._memory)}"
                self._end(worker, now, limit, took, signal.SIGKILL)

    def _taken(self, pid: int, below: list[int]) -> int:
        """Return the memory that the job has taken.

        A forked child counts with what is its own alone, which is dear to find out, so that is
        asked only where it matters.
        """
        own = resident_bytes(pid) - self._memory_before
        taken = own + sum(map(resident_bytes, below))
        if taken > self._memory and below:
            return own + sum(map(private_bytes, below))
        return taken

    def _end(self, worker: WorkerProcess, now: float, limit: str, used: str, number: int) -> None:
        self._exceeded = f"it reached its limit, a {limit}: {used}"
        self._asked = self._nudged = now
        self._killed = number == signal.SIGKILL
        worker.signal_group(number)

    def _press(self, worker: WorkerProcess, now: float) -> None:
        """Kill the job that has not ended by itself in time."""
        if self._killed:
            return
        if now - self._asked >= self._grace:
            self._exceeded = (
                f"{self._exceeded}, and was killed because it did not end within {self._grace:g} s"
            )
            self._killed = True
            worker.signal_group(signal.SIGKILL)
        elif now - self._nudged >= NUDGE_SECONDS:
            self._nudged = now
            worker.nudge()

    def verdict(self, node: str) -> str | None:
        """Say which limit has ended the job; None: none has."""
        return self._exceeded and f"{self._exceeded} (on node {node})"

    def amend(self, columns: list[Any], node: str) -> None:
        """Have the job's own end, in the columns of a DONE, say which limit it was due to.

        Its result stays: a function that was asked to end may have returned what it had.
        """
        verdict = self.verdict(node)
        if verdict is None:
            return
        extra = dict(columns[-1][0][1]) if columns[-1] else {}
        extra.pop("died", None)
        extra.pop("error", None)  # who asks for the result gets this reason, not JobTimeout
        if "exception" in extra:
            verdict = f"{verdict}\n{extra['exception']}"
        columns[-1] = [[0, {**extra, "status": int(Status.Terminated), "exception": verdict}]]
