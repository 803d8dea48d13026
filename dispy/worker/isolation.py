"""Puts a worker back after each job to what it was before, or says that this cannot be done.

The interpreter's audit hook notes what a job did (PEP 578); a job that did nothing of note
costs no system call. Names are put back, not what is inside the objects they name:
`isolation="job"` is for computations that change those.
"""

import _signal  # type: ignore[import-not-found]
import contextlib
import operator
import os
import signal
import sys
import threading
from typing import Any

from dispy.system.processes import children

_MOVED = {"os.chdir", "os.fchdir"}
_ENVIRONMENT = {"os.putenv", "os.unsetenv"}
_STARTED = {
    "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen",
    "_posixsubprocess.fork_exec", "_thread.start_new_thread", "_thread.start_joinable_thread",
    "signal.signal",
}  # fmt: skip
_NOTED = _MOVED | _ENVIRONMENT | _STARTED


class Isolation:
    """The state that every job of this worker begins with; made once, in the worker."""

    def __init__(self, names: dict[str, Any] | None) -> None:
        self._names = names
        self._before = dict(names) if names is not None else {}
        self._directory = os.getcwd()
        self._environment = dict(os.environ)
        self._path = list(sys.path)
        self._handlers = {
            int(number): _signal.getsignal(number)  # `signal` wraps it in enums: 1 us each
            for number in (signal.SIGINT, signal.SIGURG, signal.SIGTERM, signal.SIGCHLD)
        }
        self._noted: set[str] = set()
        noted, note = _NOTED, self._noted.add

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event in noted:
                note(event)

        sys.addaudithook(hook)

    def clean(self) -> bool:
        """Undo what the last job left behind; False: this process must not run another."""
        names = self._names
        if names is not None and (
            len(names) != len(self._before)
            or not all(map(operator.is_, names.values(), self._before.values()))
            or names.keys() != self._before.keys()
        ):
            names.clear()
            names.update(self._before)
        if sys.path != self._path:
            sys.path[:] = self._path
        for number, handler in self._handlers.items():
            if _signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if not self._noted:
            return True
        if self._noted & _MOVED:
            os.chdir(self._directory)
        if self._noted & _ENVIRONMENT and dict(os.environ) != self._environment:
            os.environ.clear()
            os.environ.update(self._environment)
        clean = not (self._noted & _STARTED and self._has_company())
        self._noted.clear()
        return clean

    def _has_company(self) -> bool:
        """Say whether the job left a thread or a child process; ended children are reaped."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return len(threading.enumerate()) > 1 or bool(children(os.getpid()))
