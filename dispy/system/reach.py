"""Processes of another user, reached with no more rights than that user has.

A node of root's would else do to the whole machine what a job has it do: signal a process whose
number the job has told or that has got a dead one's. `uid` is that user's number; None: the kernel
looks after it, because it is our own.
"""

import contextlib
import os
import signal


def belongs_to(pid: int, uid: int | None) -> bool:
    """Say whether a process is that user's in every respect."""
    if uid is None:
        return True
    try:
        with open(f"/proc/{pid}/status") as file:
            line = next(line for line in file if line.startswith("Uid:"))
    except (OSError, StopIteration):
        return False
    return {int(number) for number in line.split()[1:]} == {uid}


def signal_process(pid: int, number: int, uid: int | None) -> None:
    """Send a signal to a process, if it is there and that user's."""
    if belongs_to(pid, uid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def signal_group(pid: int, number: int, uid: int | None) -> None:
    """Send a signal to a process and to those of its group, as far as they are that user's."""
    if belongs_to(pid, uid):
        # While it is there, though it be dead, no other group has its number; and only what
        # it has started can be in it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)
        return
    for name in os.listdir("/proc"):
        if name.isdecimal() and _group_of(int(name)) == pid:
            signal_process(int(name), number, uid)


def kill_all(pids: list[int], uid: int | None) -> None:
    """Kill these processes, as far as they are there and that user's."""
    for pid in pids:
        signal_process(pid, signal.SIGKILL, uid)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except OSError:
        return None
