"""What a node owes an owner: results and provisional values, until it has acknowledged them.

Each batch of results has a number, and so has each value that a job sends before its end. A link
is mortal, the ledger is the truth: after each connection the owner gets what it has not
acknowledged, in order, then the numbers of all jobs that have no result yet. So nothing is ever
lost, and the owner, who takes each number once (`Scheduling.results_arrived`), never takes one
twice. Pure: knows nothing of links.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

Batch = TypeVar("Batch")


class Ledger(Generic[Batch]):
    """The batches owed to one owner, in order."""

    def __init__(self) -> None:
        self._owed: deque[tuple[int, Batch]] = deque()
        self._number = self._acknowledged = 0

    def next_number(self) -> int:
        """Return the number of the next batch, to be put into it."""
        self._number += 1
        return self._number

    def owe(self, number: int, batch: Batch) -> None:
        """Keep a batch until its number is acknowledged."""
        assert not self._owed or self._owed[-1][0] < number, "batches are owed in order"
        self._owed.append((number, batch))

    def acknowledged(self, number: int) -> list[Batch]:
        """Forget all batches up to `number`, and return them; numbers that were never used change
        nothing more."""
        self._acknowledged = max(self._acknowledged, min(number, self._number))
        forgotten = []
        while self._owed and self._owed[0][0] <= number:
            forgotten.append(self._owed.popleft()[1])
        return forgotten

    def is_owed(self, number: int) -> bool:
        """Say whether the owner has not acknowledged this number."""
        return number > self._acknowledged

    def owed(self) -> Iterator[Batch]:
        """Yield what is to be sent again, the oldest first."""
        return (batch for _, batch in self._owed)

    def __len__(self) -> int:
        return len(self._owed)
