"""What a process may do on its machine, given up before it runs other people's code.

Linux can do all of it; elsewhere it is left as it is, but for core files.
"""

import ctypes
import sys

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38


def gain_no_privileges() -> None:
    """Have no program that this process or a child of it starts gain more rights than it has:
    not by a setuid bit, nor by file capabilities. It cannot be taken back."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def write_no_core() -> None:
    """Have this process and its children leave no core file, unless they ask for one."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def limit_processes(most: int) -> None:
    """Let the user of this process have so many processes and threads in all, for good.

    Only what this process and its children start is refused for it; root is not bound by it.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def capabilities() -> int:
    """Return the rights of root that this process has, or can take, as bits; 0 but on Linux."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/status") as file:
        lines = [line.split() for line in file if line.startswith(("CapPrm:", "CapAmb:"))]
    return sum(int(value, 16) for _, value in lines)


def hide_memory() -> None:
    """Keep other processes of this user from this one's memory, descriptors and environment.

    Nor does it leave a core file. Root still sees them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
