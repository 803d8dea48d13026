"""Puts a worker back after each job to what it was before, or says that this cannot be done.

The interpreter's audit hook (PEP 578) notes what a job did; where Python raises no audit event,
a wrapper notes the call. A job that did nothing of note costs no system call. Names are put
back, not what is inside the objects they name: `isolation="job"` is for computations that
change those.
"""

import _signal  # type: ignore[import-not-found]
import _thread
import contextlib
import functools
import operator
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from dispy.system.forking import note_hooks
from dispy.system.processes import children
from dispy.worker.output import Output

_MOVED = {
    "os.chdir", "os.fchdir", "os.rmdir", "os.rename", "shutil.rmtree", "shutil.move",
}  # fmt: skip
_ENVIRONMENT = {"os.putenv", "os.unsetenv"}
_STARTED = {
    "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen",
    "_posixsubprocess.fork_exec", "_thread.start_new_thread", "_thread.start_joinable_thread",
}  # fmt: skip
_LASTING = {"resource.setrlimit", "resource.prlimit", "sys.settrace", "sys.setprofile"}
# No audit events: noted by our own wrappers.
_SIGNALS, _IDENTITY, _DESCRIPTORS = "signals", "identity", "descriptors"
_NOTED = _MOVED | _ENVIRONMENT | _STARTED | _LASTING

_noted: set[str] = set()  # of the job that runs
_to_undo: list[Callable[[], None]] = []  # what it brought along


def on_clean(undo: Callable[[], None]) -> None:
    """Have this called once, when the job that runs now has ended and is cleaned up after."""
    _to_undo.append(undo)


def watch() -> None:
    """Begin to note what is done in this process and those forked from it; call it once.

    Before any of the user's code is loaded, which may keep the functions that are wrapped here.
    """
    noted, note = _NOTED, _noted.add

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in noted:
            note(event)

    sys.addaudithook(hook)
    note_hooks()
    for name in ("alarm", "setitimer", "pthread_sigmask"):
        _note_calls(signal, name, _SIGNALS)
    _note_calls(_signal, "signal", _SIGNALS)  # what `signal.signal` itself calls
    # Audited from Python 3.12 on only.
    _note_calls(threading, "_start_new_thread", "_thread.start_new_thread")
    _note_calls(_thread, "start_new_thread", "_thread.start_new_thread")
    for name in ("close", "dup2"):
        _note_calls(os, name, _DESCRIPTORS)
    _note_calls(os, "closerange", _IDENTITY)  # may have closed what is ours
    for name in ("umask", "nice", "setpriority", "setsid", "setpgid", "setuid", "setgid", "chroot"):
        _note_calls(os, name, _IDENTITY)


def _note_calls(module: Any, name: str, deed: str) -> None:
    function = getattr(module, name, None)
    if function is None:
        return  # not on this operating system

    @functools.wraps(function)
    def noting(*arguments: Any, **keywords: Any) -> Any:
        _noted.add(deed)
        return function(*arguments, **keywords)

    setattr(module, name, noting)


def reseed() -> None:
    """Give NumPy's global random state a seed of its own in this process, just forked.

    `random` does that itself; without it all processes would draw the same numbers.
    """
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        with contextlib.suppress(Exception):  # the user's to replace
            numpy_random.seed()


class Isolation:
    """The state that every job of this worker begins with; made once, in the worker."""

    def __init__(self, names: dict[str, Any] | None, directory: str, output: Output) -> None:
        self._names, self._output = names, output
        self._before = dict(names) if names is not None else {}
        self._directory = directory
        self._enter_directory()
        self._environment = dict(os.environ)
        self._path = list(sys.path)
        self._depth = sys.getrecursionlimit()
        self._handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        _noted.clear()

    def check(self) -> None:
        """Before a packet: see that no other process has changed our place."""
        try:
            os.getcwd()
        except OSError:  # a job of another worker has removed the directory
            self._enter_directory()

    def recover(self) -> None:
        """Undo at once what would hinder our own code; after every call of the user's."""
        if sys.getrecursionlimit() != self._depth:
            sys.setrecursionlimit(self._depth)
        if _SIGNALS in _noted:  # a timer of the job's must not go off in our code
            self._restore_signals()

    def clean(self) -> bool:
        """Undo what the last job left behind; False: this process must not run another."""
        while _to_undo:
            _to_undo.pop()()
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
        return not (_noted or self._output.lost) or self._clean_noted()

    def _clean_noted(self) -> bool:
        deeds = set(_noted)
        _noted.clear()
        try:
            if deeds & {_DESCRIPTORS, *_STARTED}:
                self._output.check()
            if deeds & (_MOVED | _STARTED):  # a child program may have removed it too
                self._enter_directory()
            if deeds & _ENVIRONMENT and dict(os.environ) != self._environment:
                os.environ.clear()
                os.environ.update(self._environment)
        except OSError:
            return False  # another worker may still be able to
        finally:
            _noted.clear()  # what we did ourselves
        if self._output.lost or deeds & (_LASTING | {_IDENTITY}):
            return False
        return not (deeds & _STARTED and self._has_company())

    def _restore_signals(self) -> None:
        signal.alarm(0)
        for number, handler in self._handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                with contextlib.suppress(OSError):  # SIGKILL and SIGSTOP
                    signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _enter_directory(self) -> None:
        """Be in the computation's directory, also where a job has removed it."""
        os.makedirs(self._directory, exist_ok=True)
        os.chdir(self._directory)

    def _has_company(self) -> bool:
        """Say whether the job left a thread or a child process; ended children are reaped."""
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        return len(threading.enumerate()) > 1 or bool(children(os.getpid()))
