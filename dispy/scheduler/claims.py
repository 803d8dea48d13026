"""What clients of a shared scheduler say of clusters and jobs, as far as the scheduler uses it.

What they need is checked where it is fetched, the rest by nodes themselves.
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
    return table


def own_settings(said: object) -> dict[str, Any] | None:
    """Return the settings that a cluster may have on one node alone; what else is said is none.

    Files, for one, would not have been shown to be the client's.
    """
    kinds = {"setup_args": bytes, "code": list, "untranslated": str}
    if not isinstance(said, dict):
        return None
    return {name: said[name] for name, kind in kinds.items() if isinstance(said.get(name), kind)}
