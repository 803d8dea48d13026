"""A fork for each job: the cheapest that this operating system has, and how its end is noticed.

`os.fork` puts the interpreter's threads and locks in order in the child. In a process of one
thread they are in order, and doing it again costs more than the rest of the child's life: its
memory is shared with the parent until it is written to, and that walk through the interpreter
writes to 180 pages (fork, exit and wait: 1,060 us with it, 560 us without). So `fork_plainly`
calls the C library's fork, whose own handlers run, and then what libraries have registered with
`os.register_at_fork` (`random`'s new seed, for one), which is noted from `note_hooks` on.
"""

import ctypes
import os
import signal
import sys
import traceback
from _signal import SIG_DFL  # type: ignore[import-not-found]
from _signal import signal as _set_handler
from collections.abc import Callable, Iterable
from functools import partial
from os import close as _close  # as it is before `isolation.watch` notes each call
from os import getppid
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_before: list[Callable[[], Any]] = []
_in_parent: list[Callable[[], Any]] = []
_in_child: list[Callable[[], Any]] = []


def note_hooks() -> None:
    """Begin to note what is registered with `os.register_at_fork`; once, before user code.

    What `threading` and `logging` have registered before concerns other threads and their locks.
    """
    register = os.register_at_fork

    def noting(**hooks: Callable[[], Any]) -> None:
        register(**hooks)
        for kind, noted in (
            ("before", _before),
            ("after_in_parent", _in_parent),
            ("after_in_child", _in_child),
        ):
            if kind in hooks:
                noted.append(hooks[kind])

    os.register_at_fork = noting  # type: ignore[assignment]
    if "random" in sys.modules:
        _in_child.append(sys.modules["random"].seed)


_c = ctypes.PyDLL(None)  # called without releasing the interpreter's lock
_fork = _c.fork
_waitpid, _NO_WAIT = getattr(_c, "waitpid", None), getattr(os, "WNOHANG", 0)
_die_with_parent = None
if sys.platform == "linux":
    _c.prctl.argtypes = [ctypes.c_int] * 5
    _die_with_parent = partial(_c.prctl, _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def fork_plainly() -> int:
    """Fork a process of one thread; as `os.fork`. Raises OSError.

    Signal handlers that were due in the parent are due in the child too.
    """
    if _before:
        _call(reversed(_before))
    pid: int = _fork()
    if pid < 0:
        return os.fork()  # which says why it cannot be done, or was asked a moment later
    if pid and _in_parent:
        _call(_in_parent)
    if not pid and _in_child:
        _call(_in_child)
    return pid


def _call(hooks: Iterable[Callable[[], Any]]) -> None:
    for hook in hooks:
        try:
            hook()
        except Exception:  # foreign code; `os.fork` goes on too
            traceback.print_exc()


def begin_child(parent: int, default: int) -> None:
    """Have this child, just forked, get SIGKILL when `parent` ends, where the system can do it,
    and give the signal `default` back its default action."""
    if _die_with_parent is not None:
        _die_with_parent()
        if getppid() != parent:
            os._exit(1)
    _set_handler(default, SIG_DFL)


def restore_default(number: int) -> None:
    """Give a signal back its default action, without the conversions of `signal.signal`."""
    _set_handler(number, SIG_DFL)


def has_no_children() -> bool:
    """Say whether this process has neither children nor ended ones, without the exception by
    which `os.waitpid` says so. False: perhaps it has."""
    return _waitpid is not None and _waitpid(-1, None, _NO_WAIT) == -1


def end_descriptor(pid: int) -> int | None:
    """Return a descriptor that is readable once a child has ended; None: there is none here."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3, or a sandbox that forbids it
        return None


def release_end(descriptor: int) -> None:
    """Close what `end_descriptor` returned."""
    _close(descriptor)
