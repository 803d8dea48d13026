"""What processes have used so far, as this operating system counts it.

A process that has ended meanwhile counts as nothing: who asks looks at a moving picture.
"""

import ctypes
import os
import sys
from collections.abc import Sequence

from dispy.system.processes import children

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_RLIMIT_DATA = 2  # asm-generic/resource.h


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below this one, nearest first."""
    found = children(pid)
    for child in found:  # grows while it is walked
        found += children(child)
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the processor time of these processes and of their children that have ended."""
    if sys.platform != "linux":
        return _cpu_elsewhere(pids)
    ticks = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The name, in parentheses, may hold anything; utime is field 14 of proc(5).
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / _TICK


def resident_bytes(pid: int) -> int:
    """Return the anonymous memory of a process that is in RAM: not files, nor shared memory.

    What it shares with the process that it was forked from counts too. Costs 10 us.
    """
    if sys.platform != "linux":
        return _resident_elsewhere(pid)
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * _PAGE


def private_bytes(pid: int) -> int:
    """Return the memory that a process shares with no other. Costs 1 ms for each GB."""
    if sys.platform != "linux":
        return _resident_elsewhere(pid)
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(b"Private_")) * 1024


def data_bytes() -> int:
    """Return how much memory this process has asked for, in the sense of RLIMIT_DATA."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"VmData:"):
                return int(line.split()[1]) * 1024
    return 0


def lower_data_limit(size: int) -> int:
    """Let this process ask for `size` bytes in all; return the limit that held before.

    Only the soft limit, which may be raised again. Not by `resource`: our audit hook notes its
    calls as deeds of the job. Does nothing but on Linux, where malloc's large blocks count too.
    """
    if sys.platform != "linux":
        return 0
    soft, _ = _data_limits()
    set_data_limit(min(size, soft))
    return soft


def set_data_limit(size: int) -> None:
    """Put back what `lower_data_limit` has returned."""
    if sys.platform == "linux":
        _, hard = _data_limits()
        pair = (ctypes.c_uint64 * 2)(min(size, hard), hard)
        ctypes.CDLL(None).prlimit(0, _RLIMIT_DATA, pair, None)


def _data_limits() -> tuple[int, int]:
    pair = (ctypes.c_uint64 * 2)()
    ctypes.CDLL(None).prlimit(0, _RLIMIT_DATA, None, pair)
    return pair[0], pair[1]


def trim_memory() -> None:
    """Give freed memory back to the system, as far as the C library can."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def available_memory() -> tuple[int, int]:
    """Return the bytes that may still be taken without swapping, and those there are in all.

    Inside a container with a limit of its own: of that. Costs 30 us; 0, 0 where nobody knows.
    """
    if sys.platform != "linux":
        return _available_elsewhere()
    try:
        with open("/proc/meminfo", "rb") as file:
            table = dict(line.split(b":") for line in file)
        total, free = (
            int(table[name].split()[0]) * 1024 for name in (b"MemTotal", b"MemAvailable")
        )
    except (OSError, KeyError, ValueError):
        return 0, 0
    for most, used, statistics, cache in _CONTAINERS:
        try:
            with open(most) as file, open(used) as taken, open(statistics) as told:
                limit = int(file.read())
                reclaimable = dict(line.split() for line in told)[cache]
                left = limit - int(taken.read()) + int(reclaimable)
        except (OSError, KeyError, ValueError):  # there is none, or its limit is "max"
            continue
        if limit < total:
            total, free = limit, max(0, min(free, left))
    return free, total


_CONTAINERS = (  # limit, usage, statistics, name of what can be reclaimed: cgroups 2 and 1
    (
        "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
        "/sys/fs/cgroup/memory.stat", "inactive_file",
    ),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file",
    ),
)  # fmt: skip


def _cpu_elsewhere(pids: Sequence[int]) -> float:
    import psutil

    total = 0.0
    for pid in pids:
        try:
            total += sum(psutil.Process(pid).cpu_times()[:4])
        except psutil.Error:
            continue
    return total


def _resident_elsewhere(pid: int) -> int:
    import psutil

    try:
        size: int = psutil.Process(pid).memory_info().rss
        return size
    except psutil.Error:
        return 0


def _available_elsewhere() -> tuple[int, int]:
    import psutil

    memory = psutil.virtual_memory()
    return memory.available, memory.total
