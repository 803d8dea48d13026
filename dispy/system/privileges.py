"""What a process may do on its machine, given up before it runs other people's code.

Linux can do all of it; elsewhere users are changed, and the rest is left as it is.
"""

import ctypes
import os
import sys

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_PR_SET_NO_NEW_PRIVS = 38


def read_user(text: str) -> tuple[int, int, list[int]]:
    """Return the user, group and groups that `dispy.system.users.User.text` names."""
    uid, gid, groups = text.split(":")
    return int(uid), int(gid), [int(group) for group in groups.split(",")]


def become(uid: int, gid: int, groups: list[int]) -> None:
    """Be another user for good; raises OSError."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # The kernel hides a process that has changed users from its new user: jobs could not look
    # at themselves in /proc. Nothing that the old one knew is in this process.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


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


def hide_memory() -> None:
    """Keep other processes of this user from this one's memory, descriptors and environment.

    Nor does it leave a core file. Root still sees them.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
