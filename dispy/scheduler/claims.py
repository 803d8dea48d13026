"""What clients of a shared scheduler say of clusters and jobs, as far as the scheduler uses it.

What they need is checked where it is fetched, the rest by nodes themselves.
"""

from math import isfinite
from typing import Any

from dispy.model.precedence import PRIORITY_MOST, WEIGHT_LEAST, WEIGHT_MOST, Precedence
from dispy.model.rules import Rule, read_rules
from dispy.model.texts import one_line
from dispy.protocol.frames import FrameRefused

WIDEST = 1 << 16  # processors of one job: Linux has 8192 at most
RETRIES_MOST = 1_000_000
OWNER_LETTERS = 100

_NUMBERS = (
    ("cpus", 1, WIDEST),
    ("retries", 0, RETRIES_MOST),
    ("priority", -PRIORITY_MOST, PRIORITY_MOST),
)


def check_claims(table: dict[str, Any]) -> dict[str, Any]:
    """Return settings of a cluster, or options of a job; raises FrameRefused."""
    for name, least, most in _NUMBERS:
        value = table.get(name)
        if value is not None and not (type(value) is int and least <= value <= most):
            raise FrameRefused(f"{name!r} is no number from {least} to {most}")
    return table


def precedence_of(table: dict[str, Any]) -> Precedence:
    """Return how a cluster stands among others, as its program says; raises FrameRefused."""
    check_claims(table)
    priority, weight, owner = (table.get(name) for name in ("priority", "weight", "owner"))
    weight = 1.0 if weight is None else weight
    number = type(weight) in (int, float) and isfinite(weight)
    if not (number and WEIGHT_LEAST <= weight <= WEIGHT_MOST):
        raise FrameRefused(f"'weight' is no number from {WEIGHT_LEAST:g} to {WEIGHT_MOST:g}")
    return Precedence(
        owner=one_line(owner[:OWNER_LETTERS]) if isinstance(owner, str) else "",
        priority=priority or 0, weight=float(weight), exclusive=table.get("exclusive") is True,
    )  # fmt: skip


def rules_in(table: dict[str, Any]) -> tuple[Rule, ...] | None:
    """Return which nodes a cluster may use; None: its program says it of each. Raises
    FrameRefused."""
    said = table.get("nodes")
    try:
        return None if said is None else read_rules(said)
    except ValueError as error:
        raise FrameRefused(f"'nodes': {error}") from None


def own_settings(said: object) -> dict[str, Any]:
    """Return the settings that a cluster may have on one node alone; what else is said is none."""
    kinds = {"setup_args": bytes, "files": list, "code": list, "untranslated": str}
    if not isinstance(said, dict):
        return {}
    return {name: said[name] for name, kind in kinds.items() if isinstance(said.get(name), kind)}
