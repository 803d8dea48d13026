"""What surrounds a job in its process, and what it may use there; put back when it has ended.

The node watches over time, processor time and memory, and tells the worker's process group by
SIGTERM or SIGXCPU that the job is to end. Here these signals become JobTimeout in the job's code,
unless that has a handler of its own. The kernel refuses memory beyond the limit (MemoryError).
"""

import _signal  # type: ignore[import-not-found]
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from dispy.model.errors import JobTimeout
from dispy.model.limits import ATTEMPT_VARIABLE, NICE_MOST, limits_of_job
from dispy.model.sizes import tell_bytes
from dispy.system.usage import (
    data_bytes,
    lower_data_limit,
    resident_bytes,
    set_data_limit,
    trim_memory,
)

# What numerical libraries ask for the number of their threads, some of them when they are loaded.
THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
TO_END = (signal.SIGTERM, signal.SIGXCPU)  # tell a job to end
GROWTH_SECONDS = 0.02  # between looks at a worker's memory

# Variables of the job that runs, for a program, which does not get this process's own.
job_environment: dict[str, str] = {}

# As they are before `isolation.watch` notes each call as a deed of the job's.
_set_handler = _signal.signal
_set_mask = signal.pthread_sigmask
_set_priority = getattr(os, "setpriority", None)


class JobLimits:
    """Made in the nursery, before it loads the computation, and copied into each worker."""

    def __init__(self, limits: Mapping[str, Any], cpus: int = 1) -> None:
        """`limits`: of each job; `cpus`: processors of each job."""
        self._limits = {key: value for key, value in limits.items() if key != "env"}
        self._environment: dict[str, str] = limits.get("env", {})
        self._cpus = cpus
        self._thread_names: list[str] = []  # of THREADS, those that the user leaves to us
        self.for_all = any(limits.get(name) for name in ("timeout", "cpu_time", "memory"))
        self._growth = int(limits.get("worker_growth") or 0)
        self.may_wear = self._growth > 0  # `is_worn` must be asked
        self._cannot_go_back = False
        self._looked = 0.0
        self._grown_from = 0  # bytes of this worker at its start
        self._urgency = 0  # niceness of the nursery at its start
        self.in_user_code: Callable[[], bool] = lambda: False
        self._pid = 0
        self._handles_forks = False
        self._mask: set[Any] = set()  # signals that were blocked before a fork
        # of the job that runs
        self._job: Mapping[str, Any] = {}
        self._began = 0.0
        self._data_before = 0
        self._data_limit = 0  # that of the process, while the job's holds
        self.memory = 0  # bytes that the job may ask for; 0: no limit

    def surround(self) -> None:
        """Prepare this process for loading the computation: variables, threads, urgency."""
        os.environ[ATTEMPT_VARIABLE] = "1"
        os.environ.update(self._environment)
        said = os.environ.get("OMP_NUM_THREADS")
        if said is None:
            self._thread_names = [name for name in THREADS if name not in os.environ]
        for name in THREADS:  # where only OpenMP's is said, the others mean the same
            os.environ.setdefault(name, (said or str(self._cpus)).split(",")[0])
        if _set_priority is not None:
            self._urgency = os.getpriority(os.PRIO_PROCESS, 0)
            if nice := self._limits.get("nice"):
                self._be_nice(nice)
                # Where Linux groups processes by session, only the group's own value counts.
                with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as file:
                    file.write(str(min(NICE_MOST, self._urgency + nice)))

    def started(self, in_user_code: Callable[[], bool]) -> None:
        """In a new worker: take note of what it is like before its first job."""
        self.in_user_code = in_user_code
        if self._growth:
            self._grown_from = resident_bytes(os.getpid())

    # -- around one job

    def begin(self, options: Mapping[str, Any], now: float) -> None:
        """Set what holds for the job that begins now, a monotonic second."""
        self._job = job = limits_of_job(self._limits, options)
        self._began, self._pid = now, os.getpid()
        environment = dict(options.get("env", {}))
        if options.get("cpus"):
            environment |= {name: str(options["cpus"]) for name in self._thread_names}
        if environment:  # isolation puts this process's own back
            os.environ.update(environment)
            job_environment.update(environment)
        if options.get("nice") is not None:
            self._be_nice(options["nice"])
        if job.get("timeout"):
            self._answer(signal.SIGTERM)
        if job.get("cpu_time"):
            self._answer(signal.SIGXCPU)
        self.memory = int(job.get("memory") or 0)
        if self.memory:
            self._data_before = data_bytes()
            self._data_limit = lower_data_limit(self._data_before + self.memory)

    def leave_to_children(self) -> None:
        """Do nothing at a signal that tells a job of its processor time: a child runs the job.
        (SIGTERM does not end such a worker in any case.)"""
        _set_handler(signal.SIGXCPU, lambda *_: None)

    def end(self) -> None:
        """Put back what held for the job alone."""
        job_environment.clear()
        self._lift_memory()
        if _set_priority is not None and "nice" in self._job:
            self._be_nice(self._limits.get("nice") or 0)

    def tell_memory(self) -> str:
        """Say of a job that got MemoryError what it had; call before what it held is freed."""
        limit, self.memory = self.memory, self._lift_memory()
        had = max(0, data_bytes() - self._data_before)
        return (
            f"it reached its limit, a memory of {tell_bytes(limit)}: it had taken "
            f"{tell_bytes(had)} and asked for more\n"
        )

    def _lift_memory(self) -> int:
        if self.memory:
            set_data_limit(self._data_limit)
        self.memory = 0
        return 0

    def _be_nice(self, steps: int) -> None:
        """Be so many steps less urgent than the nursery was; upwards takes a privilege."""
        if _set_priority is None:
            return
        wanted = min(NICE_MOST, self._urgency + int(steps))
        if os.getpriority(os.PRIO_PROCESS, 0) == wanted:
            return
        try:
            _set_priority(os.PRIO_PROCESS, 0, wanted)
        except PermissionError:  # a new worker can be what this one cannot be any more
            self._cannot_go_back = self.may_wear = True

    # -- signals

    def _answer(self, number: int) -> None:
        """Answer a signal, unless the user's code does so."""
        if not self._handles_forks:
            self._handles_forks = True
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=lambda: _set_mask(signal.SIG_SETMASK, self._mask),
                after_in_child=self._forked,
            )
        if signal.getsignal(number) is signal.SIG_DFL:
            _set_handler(number, self._out_of_time)

    def _out_of_time(self, number: int, frame: Any) -> None:
        if os.getpid() == self._pid:
            if not self.in_user_code():
                return  # its job has just ended, or is about to begin: then the node asks again
            cpu_time, timeout = self._job.get("cpu_time"), self._job.get("timeout")
            if number == signal.SIGXCPU and cpu_time:
                raise JobTimeout(f"its cpu_time of {cpu_time:g} s is over")
            if number == signal.SIGTERM and timeout and monotonic() - self._began >= timeout:
                raise JobTimeout(f"its timeout of {timeout:g} s is over")
        _set_handler(number, _signal.SIG_DFL)  # it means something else: the last step of a cancel
        os.kill(os.getpid(), number)

    def _before_fork(self) -> None:
        """Have a child find the signals that it gets before it can handle them: Python forgets
        those that come while it forks."""
        self._mask = _set_mask(signal.SIG_BLOCK, TO_END)

    def _forked(self) -> None:
        """In a child that a job has forked: end by these signals, as a child should."""
        for number in TO_END:
            if signal.getsignal(number) == self._out_of_time:
                _set_handler(number, _signal.SIG_DFL)
        _set_mask(signal.SIG_SETMASK, self._mask)

    # -- between jobs

    def is_worn(self) -> bool:
        """Say whether this worker should be replaced before the next job."""
        if self._cannot_go_back:
            return True
        now = monotonic()
        if not self._growth or now - self._looked < GROWTH_SECONDS:
            return False
        self._looked = now
        most = self._grown_from + self._growth
        if resident_bytes(os.getpid()) <= most:
            return False
        trim_memory()  # what the C library only keeps for the next job is no growth
        return resident_bytes(os.getpid()) > most
