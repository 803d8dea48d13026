"""Processes as this operating system does them: death with the parent, memory files, exits."""

import ctypes
import os
import signal
import sys
import tempfile

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(parent: int) -> None:
    """Have this process killed when `parent`, its parent's id, ends; by end-of-file elsewhere.

    Linux ties this to the thread that forked: call it only in children of a main thread.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it ended before the call above


def memory_file(name: str) -> int:
    """Return the descriptor of an unnamed file, in memory where there is such a thing."""
    if sys.platform == "linux":
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def how_it_ended(status: int) -> str:
    """Say in words what a wait status means ("was killed by SIGSEGV")."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
