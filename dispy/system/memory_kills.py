"""Processes that the kernel has killed because memory ran out, as the kernel itself counts them.

It counts by control group: of the group that a process is in, with a limit or without one. Where
processes are in none, there is one count for the whole machine. Other systems do not say.
"""

import os
import re
import sys
from typing import NamedTuple

_MEMORY = re.compile(r"^\d+:(?P<kinds>[^:]*):(?P<path>.*)$", re.MULTILINE)
_NO_LIMIT = 1 << 60  # bytes; what version 1 says for none is near 2**63


class Group(NamedTuple):
    """Where the kernel counts for a process."""

    path: str  # its control group, "/" for none; for people
    counts: str  # a file with a line "oom_kill N"
    limit: str | None  # a file with the bytes that all of it may have


_WHOLE_MACHINE = Group("/", "/proc/vmstat", None)


def group_of(pid: int) -> Group | None:
    """Return where kills of a process are counted; None: nobody counts, or it has ended."""
    if sys.platform != "linux":
        return None
    try:
        with open(f"/proc/{pid}/cgroup") as file:
            groups = {found["kinds"]: found["path"] for found in _MEMORY.finditer(file.read())}
    except OSError:
        return None
    for kinds, path in groups.items():
        if "memory" in kinds.split(","):
            places = [f"/sys/fs/cgroup/memory{path}", "/sys/fs/cgroup/memory"]  # a container's own
            found = _first(places, path, "memory.oom_control", "memory.limit_in_bytes")
            return found or _WHOLE_MACHINE
    path = groups.get("", "/")
    places = [f"/sys/fs/cgroup{path}", f"/sys/fs/cgroup/unified{path}", "/sys/fs/cgroup"]
    return _first(places, path, "memory.events", "memory.max") or _WHOLE_MACHINE


def _first(places: list[str], path: str, counts: str, limit: str) -> Group | None:
    for place in places:
        if os.path.exists(f"{place}/{counts}"):
            return Group(path, f"{place}/{counts}", f"{place}/{limit}")
    return None


def kills(group: Group) -> int:
    """Return how many processes of a group were killed for want of memory; 20 us."""
    try:
        with open(group.counts, "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass  # it was removed
    return 0


def limit(group: Group) -> int | None:
    """Return the bytes of memory that a group may have in all; None: any."""
    try:
        with open(group.limit or "") as file:
            size = int(file.read())
    except (OSError, ValueError):  # there is none, or it says "max"
        return None
    return size if size < _NO_LIMIT else None
