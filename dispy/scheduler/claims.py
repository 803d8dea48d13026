"""What clients of a shared scheduler say of clusters and jobs, as far as the scheduler uses it.

The rest is for nodes, which check it themselves.
"""

from typing import Any

from dispy.protocol.frames import FrameRefused

WIDEST = 1 << 16  # processors of one job: Linux has 8192 at most
RETRIES_MOST = 1_000_000


def check_claims(table: dict[str, Any]) -> dict[str, Any]:
    """Return settings of a cluster, or options of a job; raises FrameRefused."""
    for name, least, most in (("cpus", 1, WIDEST), ("retries", 0, RETRIES_MOST)):
        value = table.get(name)
        if value is not None and not (type(value) is int and least <= value <= most):
            raise FrameRefused(f"{name!r} is no number from {least} to {most}")
    _check_entries(table, "needs", 0)
    _check_entries(table, "files", 1)
    return table


def _check_entries(table: dict[str, Any], name: str, digest: int) -> None:
    """Check a list of entries, each with a digest at this place, and a path before it."""
    entries = table.get(name)
    if entries is None:
        return
    if not isinstance(entries, list):
        raise FrameRefused(f"{name!r} is no list")
    for entry in entries:
        if not (isinstance(entry, list) and len(entry) > 1 and isinstance(entry[digest], bytes)):
            raise FrameRefused(f"{name!r} has an entry that is none")
        if digest and not isinstance(entry[0], str):
            raise FrameRefused(f"{name!r} has an entry without a path")
