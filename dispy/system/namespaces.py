"""Process ids across pid namespaces: what a process calls another, and what we do."""

from collections.abc import Iterable


def pid_here(said: int, among: Iterable[int]) -> int | None:
    """Return which of these processes of ours has the id `said` in its own, innermost namespace.

    None: none of them, or it has ended. The kernel says so, whatever that process claims.
    """
    for pid in among:
        if _innermost(pid) == said:
            return pid
    return None


def _innermost(pid: int) -> int | None:
    """Return by which id a process knows itself."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(b"NSpid:"):
                    return int(line.split()[-1])
    except OSError:
        pass  # it has ended
    return None
