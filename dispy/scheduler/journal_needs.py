"""What the rows of a journal are needed for: records of `dispy.scheduler.journal_rows`. Pure."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Thing = TypeVar("Thing")


@dataclass(slots=True, eq=False)
class Said:
    """A row that is needed for some of its jobs, or for some submissions: `left` of them."""

    number: int
    left: int
    jobs: Sequence[int] = ()
    node: str | None = None


@dataclass(slots=True, eq=False)
class Batch:
    number: int
    batch: int
    cluster: int
    jobs: Sequence[int]
    left: int  # jobs that are not final
    ended: list[Said] = field(default_factory=list)  # rows that are needed while it is there


@dataclass(slots=True, eq=False)
class Held:
    """Results that their client has not taken."""

    number: int
    told: int  # their number among what the client is told
    named: Sequence[int]  # their jobs
    jobs: Sequence[int]  # those whose submission was known
    batches: list[Batch]


def count_each(things: Iterable[Thing]) -> Collection[tuple[Thing, int]]:
    """Return each of them, and how often it is there: for the most part all are the same."""
    found = list(things)
    if len(set(found)) == 1:  # a Counter takes four times as long
        return [(found[0], len(found))]
    return Counter(found).items()
