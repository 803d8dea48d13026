"""What stands in the tables of messages, as far as it has to be of one kind wherever it is read.

Most keys are looked at by whoever knows them, and a peer's nonsense there means that it said
nothing. But what ends a job must be an end, and what one peer sends is passed on to others: so it
is refused here, where the one who sent it has the harm of it.
"""

from math import isfinite
from typing import Any

from dispy.model.statuses import Status
from dispy.protocol.frames import FrameRefused

# Tables and lists within each other; ours have five. Decoding takes 1024 of them, encoding 511,
# and what prints such a value, or walks it, even fewer.
NESTED_LIMIT = 16

_ENDS = frozenset({Status.Cancelled, Status.Terminated, Status.Finished})
_TEXT = frozenset({str, bytes})
_KINDS: dict[str, frozenset[type]] = {
    "stdout": _TEXT,
    "stderr": _TEXT,
    "exception": frozenset({str}),
    "error": frozenset({bytes}),
    "held": frozenset({list}),
    "forking": frozenset({list}),
}


def is_shallow(value: dict[Any, Any] | list[Any], left: int = NESTED_LIMIT) -> bool:
    """Say whether a table nests no deeper than messages of ours do."""
    inside = value.values() if type(value) is dict else value
    return left > 0 and all(
        is_shallow(part, left - 1) for part in inside if type(part) is dict or type(part) is list
    )


def check_end(extra: dict[str, Any]) -> None:
    """Raise FrameRefused unless this can be said of the end of a job."""
    for name, said in extra.items():
        kinds = _KINDS.get(name)
        if kinds is not None and type(said) not in kinds:
            raise FrameRefused(f"{name!r} of a job's end is not what it should be")
    status = extra.get("status", Status.Finished)
    if type(status) is not int and type(status) is not Status or status not in _ENDS:
        raise FrameRefused(f"status {status!r:.20} is not one by which a job ends")


def are_times(column: list[Any]) -> bool:
    """Say whether all of a column are seconds that one can count with."""
    return isfinite(sum(column))
