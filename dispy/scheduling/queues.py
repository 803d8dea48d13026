"""Jobs in the order in which they are to go: by priority, and those that came first before others.

Jobs without a priority cost what one deque costs. Priorities are few: each one in use costs a step
when the first job of it comes.
"""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

JobNumber = int  # counted by the owner; unique among its jobs, never used again
JobTurn = float  # an integer: less for jobs that go earlier, by priority and then by number
NOBODY: JobTurn = math.inf  # goes after every job
_ABOVE_ALL = 1 << 64  # job numbers


@dataclass(slots=True, eq=False)
class JobQueue:
    """A deque for each priority in use; that of the highest is at hand."""

    queue: deque[JobNumber] = field(default_factory=deque)  # of the highest priority
    priority: int = 0  # of the jobs in `queue`
    lower: list[tuple[int, deque[JobNumber]]] = field(default_factory=list)  # the highest last

    def of(self, priority: int) -> deque[JobNumber]:
        """Return the queue of this priority, to add jobs to."""
        if priority == self.priority:
            return self.queue
        if not self.queue and not self.lower:
            self.priority = priority
            return self.queue
        if priority > self.priority:
            self.lower.append((self.priority, self.queue))
            self.priority, self.queue = priority, deque()
            return self.queue
        at = bisect_left(self.lower, priority, key=lambda entry: entry[0])
        if at == len(self.lower) or self.lower[at][0] != priority:
            self.lower.insert(at, (priority, deque()))
        return self.lower[at][1]

    def go_on(self) -> None:
        """Pass over the first job; or, where there is none of this priority, to a lower one."""
        if self.queue:
            self.queue.popleft()
        else:
            self.priority, self.queue = self.lower.pop()

    def turn_at(self, place: int) -> JobTurn:
        """Return the turn of the job at that place, those that are to be passed over included."""
        for priority, queue in chain([(self.priority, self.queue)], reversed(self.lower)):
            if place < len(queue):
                return queue[place] - priority * _ABOVE_ALL
            place -= len(queue)
        return NOBODY

    def clear(self) -> None:
        """Drop all jobs."""
        self.queue.clear()
        self.lower.clear()

    def __iter__(self) -> Iterator[JobNumber]:
        yield from self.queue
        for _, queue in reversed(self.lower):
            yield from queue


def turn_of(job: JobNumber, priority: int) -> JobTurn:
    """Return the turn of a job."""
    return job - priority * _ABOVE_ALL if priority else job


def by_priority(
    jobs: Sequence[JobNumber], priorities: dict[JobNumber, int]
) -> list[tuple[int, Sequence[JobNumber]]]:
    """Return jobs by their priority, in order; those that are not in `priorities` have 0."""
    if not priorities:
        return [(0, jobs)]
    found: dict[int, list[JobNumber]] = {}
    for job in jobs:
        found.setdefault(priorities.get(job, 0), []).append(job)
    return list(found.items())
