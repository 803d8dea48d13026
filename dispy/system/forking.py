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
from collections.abc import Callable
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


_c = ctypes.PyDLL(None, use_errno=True)


def fork_plainly() -> int:
    """Fork a process of one thread; as `os.fork`. Raises OSError.

    Signal handlers that were due in the parent are due in the child too.
    """
    for hook in reversed(_before):
        _call(hook)
    pid: int = _c.fork()
    for hook in _in_parent if pid else _in_child:
        _call(hook)
    if pid < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return pid


def _call(hook: Callable[[], Any]) -> None:
    try:
        hook()
    except Exception:  # foreign code; `os.fork` does the same
        traceback.print_exc()


def die_with(parent: int) -> None:
    """Have this child, just forked, get SIGKILL when `parent` ends; where the system can do it."""
    if sys.platform == "linux":
        _c.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def end_descriptor(pid: int) -> int | None:
    """Return a descriptor that is readable once a child has ended; None: there is none here."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # a kernel before 5.3, or a sandbox that forbids it
        return None
