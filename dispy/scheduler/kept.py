"""What is told of a cluster that others may attach to: kept until somebody asks for the results.

That a program has received a result does not mean that anybody has looked at it. So the ends of
jobs stay in the journal when they are delivered, and a program that attaches is told all that none
has collected.
"""

from collections.abc import Sequence, Set
from itertools import chain
from typing import Any

from dispy.scheduler.journal_entries import Collected
from dispy.scheduler.outbox import Outbox, Thing


class KeptOutbox(Outbox):
    """As `Outbox`; what has jobs is forgotten when it is collected."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kept = {thing.number: thing for thing in self._unsent if thing.jobs}
        self._jobs = set(chain.from_iterable(thing.jobs for thing in self._unsent))
        self._with_client: dict[int, Thing] = {}  # those of them that it has been told
        self._collected: set[int] = set()  # numbers of what it has not confirmed yet

    @property
    def jobs(self) -> Set[int]:
        """The jobs whose ends are kept."""
        return self._jobs

    def collect(self, numbers: Sequence[int]) -> list[int]:
        """Forget what the program has asked for; return the jobs of that."""
        found = [self._kept.pop(number) for number in numbers if number in self._kept]
        gone = []
        for thing in found:
            if self._with_client.pop(thing.number, None) is None:
                self._collected.add(thing.number)
            else:
                gone.append(thing)
        self._forget(gone)
        jobs = list(chain.from_iterable(thing.jobs for thing in found))
        self._jobs.difference_update(jobs)
        return jobs

    def begin_anew(self) -> None:
        """Have all that is kept told again, to another program."""
        self.gone()
        self._drop_passing()
        self._forget([thing for thing in self._unsent if thing.number in self._collected])
        self._collected.clear()
        # Values of jobs that go on are told too, if nobody has heard them.
        told = [thing for thing in self._unsent if not thing.jobs or thing.number in self._kept]
        self._unsent.clear()
        self._unsent.extend(chain(self._with_client.values(), told))
        self._with_client.clear()

    def _put(self, thing: Thing) -> None:
        if thing.jobs:
            self._kept[thing.number] = thing
            self._jobs.update(thing.jobs)
        super()._put(thing)

    def _heard(self, things: Sequence[Thing]) -> None:
        gone = []
        for thing in things:
            if thing.number in self._kept:
                self._with_client[thing.number] = thing
                self._let_go(thing)
            else:
                self._collected.discard(thing.number)
                gone.append(thing)
        self._forget(gone)

    def _forget(self, things: Sequence[Thing]) -> None:
        if things:
            self._durable.record(Collected(self._slot, [thing.number for thing in things]))
            for thing in things:
                self._free(thing)
