"""The newest provisional value of each job of a computation, for an owner that has lost it.

A program that died has acknowledged values that the one which comes in its place never saw. That
one says so, and is told the newest of each job that has no result yet, as a new entry of the
ledger. What its owner has not acknowledged it gets anyway.
"""

from collections.abc import Collection

from dispy.node.owed import Owed
from dispy.node.owners import Owner
from dispy.node.quotas import Memory


class NewestValues:
    """Those of one computation; counted in its owner's account, though they may be owed too."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._kept: dict[int, Owed] = {}

    def keep(self, job: int, owed: Owed) -> None:
        """Keep what a job has sent, instead of what it has sent before."""
        self.forget((job,))
        if self._memory.fits(owed.weight):
            self._kept[job] = owed
            self._memory.take(owed.weight)

    def forget(self, jobs: Collection[int]) -> None:
        """Keep nothing of jobs that have ended, or are gone."""
        for job in jobs if self._kept else ():
            owed = self._kept.pop(job, None)
            if owed is not None:
                self._memory.release(owed.weight)

    def close(self) -> None:
        """Keep nothing any more."""
        self.forget(list(self._kept))

    def tell_again(self, owner: Owner) -> None:
        """Owe them anew, but for those that are owed still."""
        for job, (_, (number, computation, _, value), buffers, _) in list(self._kept.items()):
            if not owner.backlog.ledger.is_owed(number):
                owed = owner.owe_value(computation, job, value, buffers)
                if owed is not None:
                    self.keep(job, owed)
