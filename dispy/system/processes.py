"""Processes as this operating system does them: death with the parent, memory files, exits."""

import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

UNIX_BUFFER = 4 * 1024 * 1024  # bytes; the default costs three quarters of the throughput
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
_KEEP_SIZE_AND_PUNCH_HOLE = 0x01 | 0x02  # linux/falloc.h


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Have this process get a signal when `parent`, its parent's id, ends.

    Only Linux can do this; elsewhere processes end by end-of-file. It is tied to the thread
    that forked: call it only in children of a main thread.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # it ended before the call above


def memory_file(name: str) -> int:
    """Return the descriptor of an unnamed file, in memory where there is such a thing."""
    if sys.platform == "linux":
        return os.memfd_create(name)
    import tempfile  # 3 ms that Linux need not wait for

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def outlive_parent() -> None:
    """Take `die_with_parent` back."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)


# Writes out what C code has printed in this process and the C library still holds: `None` means
# all streams. Called without releasing the interpreter's lock, 0.1 us.
flush_c_streams: Callable[[], object] = (
    partial(ctypes.PyDLL(None).fflush, None) if sys.platform != "win32" else lambda: None
)


def how_it_ended(status: int) -> tuple[str, int]:
    """Say in words what a wait status means ("was killed by SIGSEGV"), and by which signal; 0:
    by none."""
    code = os.waitstatus_to_exitcode(status)
    return told_exit(code), max(0, -code)


def most_memory(usage: Any) -> int:
    """Return how many bytes a process had in memory at most, by the usage that `wait4` gives."""
    return int(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


_LIMITS = {  # of the system's own, by which a process gets a signal
    "SIGXCPU": ", because it took more processor time than it may have (ulimit -t)",
    "SIGXFSZ": ", because it wrote a larger file than it may write (ulimit -f)",
}


def told_exit(code: int) -> str:
    """Say in words what an exit code means, as `subprocess` gives it: negative is a signal."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
        return f"was killed by {name}{_LIMITS.get(name, '')}"
    except ValueError:
        return f"was killed by signal {-code}"


def be_killed_before_others(steps: int) -> None:
    """Have the kernel, when memory is short, end this process and what it starts rather than
    others: as if it had so many thousandths of the memory more."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
            own = int(file.read())
            file.seek(0)
            file.write(str(min(1000, max(own, steps))))


ADOPTS_ORPHANS = sys.platform == "linux"


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents end, so that `children` finds them."""
    if ADOPTS_ORPHANS:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Return the process ids of the children of this very process or another; cheap on Linux."""
    if sys.platform == "linux":
        found: list[int] = []
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children") as file:
                    found += map(int, file.read().split())
            return found
        except OSError:
            pass  # it ended, or this kernel lacks CONFIG_PROC_CHILDREN
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def descendants(pid: int) -> list[int]:
    """Return the process ids of a process's children, their children, and so on."""
    found = children(pid)
    for child in found:  # grows meanwhile
        found += children(child)
    return found


def free_beyond(descriptor: int, keep: int) -> None:
    """Free the memory of what a memory file holds after `keep` bytes; its size stays."""
    if sys.platform != "linux":
        return
    size = os.fstat(descriptor).st_size
    if size > keep:
        ctypes.CDLL(None).fallocate(
            descriptor,
            _KEEP_SIZE_AND_PUNCH_HOLE,
            ctypes.c_int64(keep),
            ctypes.c_int64(size - keep),
        )


def widen(sock: Any) -> None:
    """Give a Unix socket buffers that let it run at memory speed."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, UNIX_BUFFER)


def forbids_execution(path: str) -> bool:
    """Say whether programs in this directory cannot be run (mounted noexec)."""
    noexec = getattr(os, "ST_NOEXEC", None)
    return noexec is not None and bool(os.statvfs(path).f_flag & noexec)


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def disconnect(descriptor: int) -> None:
    """Put nothing in the place of a descriptor that objects of this process still mean to close."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        os.dup2(nothing, descriptor, inheritable=False)
    finally:
        os.close(nothing)
