"""What a node owes an owner: results and provisional values, until it has acknowledged them.

Each batch of results has a number, and so has each value that a job sends before its end. A link
is mortal, the ledger is the truth: after each connection the owner gets what it has not
acknowledged, in order, then the numbers of all jobs that have no result yet. So nothing is ever
lost, and the owner, who takes each number once (`Scheduling.results_arrived`), never takes one
twice. The oldest batches may be stored elsewhere than here. Pure: knows nothing of links and disks.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice, takewhile
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Ledger(Generic[Batch]):
    """The batches owed to one owner, in order; `acknowledged_number`, `stored` and `last` are the
    highest numbers of those that are acknowledged, stored elsewhere, and owed at all.

    What has a number up to `acknowledged_number` is forgotten, what has one up to `stored` is
    elsewhere, and the rest is here.
    """

    def __init__(self) -> None:
        self._owed: deque[tuple[int, Batch]] = deque()
        self.last = self.acknowledged_number = self.stored = 0

    def next_number(self) -> int:
        """Return the number of the next batch, to be put into it."""
        self.last += 1
        return self.last

    def owe(self, number: int, batch: Batch) -> None:
        """Keep a batch until its number is acknowledged."""
        assert number == self.last, "batches are owed in order"
        self._owed.append((number, batch))

    def begin_stored(self, count: int) -> None:
        """Begin with so many batches that are stored elsewhere."""
        assert not self.last, "they come before all others"
        self.last = self.stored = count

    def begin_after(self, number: int) -> None:
        """Go on behind this number, unless something is owed already."""
        if not self.last:
            self.last = self.acknowledged_number = number

    def acknowledged(self, number: int) -> list[Batch]:
        """Forget all batches up to `number`, and return those that were here; numbers that were
        never used change nothing more."""
        self.acknowledged_number = max(self.acknowledged_number, min(number, self.last))
        return self._forget(number)

    def written(self, number: int) -> list[Batch]:
        """Take note that all batches up to `number` are stored elsewhere; return those that were
        here until now."""
        self.stored = max(self.stored, number)
        return self._forget(number)

    def _forget(self, number: int) -> list[Batch]:
        forgotten = []
        while self._owed and self._owed[0][0] <= number:
            forgotten.append(self._owed.popleft()[1])
        return forgotten

    @property
    def is_stored(self) -> bool:
        """Whether something is owed that is stored elsewhere."""
        return self.stored > self.acknowledged_number

    def is_owed(self, number: int) -> bool:
        """Say whether the owner has not acknowledged this number."""
        return number > self.acknowledged_number

    def after(self, number: int, fits: Callable[[Batch], bool]) -> list[Batch]:
        """Return the batches here that follow `number`, as long as each `fits`."""
        skipped = max(0, number + 1 - self._owed[0][0]) if self._owed else 0
        return list(takewhile(fits, (batch for _, batch in islice(self._owed, skipped, None))))

    def owed(self) -> Iterator[Batch]:
        """Yield what is here and to be sent again, the oldest first."""
        return (batch for _, batch in self._owed)

    def __len__(self) -> int:
        return len(self._owed)
