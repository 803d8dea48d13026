"""The packed calls of jobs that are not final: in memory as far as there is room, else on disk.

Those that are not in memory are read from the journal, a whole submission at a time, when the
first of them goes to a node; the last few that were read are at hand.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import gevent
from gevent.lock import BoundedSemaphore

from dispy.model.errors import DispyError
from dispy.protocol.messages import Payload, join_payloads
from dispy.scheduler.budget import Budget
from dispy.scheduler.journal import Journal

logger = logging.getLogger("dispy.scheduler")

AT_HAND = 8  # submissions of those that were read: a client has at most 1 MB, or one job, in each
RETRY_SECONDS = 1.0  # between attempts to read from a disk that fails

Found = Sequence[Payload | None]  # None: nobody has it any more


@dataclass(slots=True, eq=False)
class _OnDisk:
    batch: int
    jobs: Sequence[int]


class Calls:
    """Used on its scheduler's hub."""

    def __init__(self, journal: Journal | None, budget: Budget) -> None:
        self._journal, self._budget = journal, budget
        self._held: dict[int, Payload] = {}
        self._on_disk: dict[int, _OnDisk] = {}
        self._read: OrderedDict[_OnDisk, dict[int, Payload]] = OrderedDict()
        self._turn = BoundedSemaphore(1)  # of whoever reads

    def __contains__(self, job: int) -> bool:
        return job in self._held or job in self._on_disk

    def add(self, batch: int, jobs: Sequence[int], payloads: Sequence[Payload]) -> None:
        """Take the calls of new jobs, which the journal is told of under this number."""
        size = sum(map(len, payloads))
        if self._journal is None or self._budget.has_room(size):
            self._budget.used += size
            self._held.update(zip(jobs, payloads, strict=True))
        else:
            self.restore(batch, jobs, jobs)

    def restore(self, batch: int, jobs: Sequence[int], left: Iterable[int]) -> None:
        """Take those that are `left` of a submission's jobs; their calls are in the journal."""
        self._on_disk.update(dict.fromkeys(left, _OnDisk(batch, jobs)))

    def drop(self, jobs: Iterable[int]) -> None:
        """Forget jobs that are final."""
        take, used = self._held.pop, 0
        for job in jobs:
            payload = take(job, None)
            if payload is not None:
                used += len(payload)
            elif self._on_disk:
                self._on_disk.pop(job, None)
        self._budget.used -= used

    def fetch(self, jobs: Sequence[int], then: Callable[[Found], None]) -> None:
        """Call `then` with the calls of jobs, now or when they are read."""
        if self._on_disk and not self._on_disk.keys().isdisjoint(jobs):
            gevent.spawn(self._fetch, jobs, then)
        else:
            then(list(map(self._held.get, jobs)))

    def _fetch(self, jobs: Sequence[int], then: Callable[[Found], None]) -> None:
        found: dict[int, Payload] = {}
        for job in jobs:
            if job in found:
                continue
            if (place := self._on_disk.get(job)) is not None:
                found.update(self._read_all(place))
            elif (held := self._held.get(job)) is not None:
                found[job] = held
        then(list(map(found.get, jobs)))

    def _read_all(self, place: _OnDisk) -> dict[int, Payload]:
        """Return the calls of a submission; waits for the disk."""
        with self._turn:
            if place in self._read:
                self._read.move_to_end(place)
                return self._read[place]
            assert self._journal is not None, "what is on disk is there"
            told = False
            while True:
                try:
                    read = self._journal.payloads([place.batch]).get(place.batch)
                    break
                except DispyError as error:
                    if not told:
                        logger.error("jobs wait for their arguments: %s", error)
                    told = True
                    gevent.sleep(RETRY_SECONDS)
            calls: dict[int, Payload] = {}
            if read is not None:
                payloads = join_payloads(read.column, read.buffers)
                calls = dict(zip(place.jobs, payloads, strict=True))
            self._read[place] = calls
            if len(self._read) > AT_HAND:
                self._read.popitem(last=False)
            return calls
