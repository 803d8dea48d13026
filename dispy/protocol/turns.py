"""Whose handshake comes next: strangers cost a millisecond of processor each. Sans-I/O.

They wait in a line for each network, and networks take turns; so nobody waits long for a crowd at
another place. Two things hold a crowd back:

- Handshakes that came to nothing are paid from a purse that fills slowly. Who proves itself has
  its coin back: however many honest peers come at once, they are served as fast as it goes.
- A network whose peers have failed waits longer each time (back-off), until one of it has proven
  itself. Not longer, though, than that all who stand in its line come up within LINE_SECONDS: who
  is honest there, behind the same router or on the same machine, is not locked out by others.
"""

import heapq
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

PURSE = 500.0  # handshakes that may fail at once: less than a second of one processor
REFILL = 60.0  # a second: less than a tenth of one processor
FREE_FAILURES = 5  # of a network: a person may try
FIRST_PAUSE = 0.1  # seconds after that; it doubles with each failure
LINE_SECONDS = 2.0
FORGET_SECONDS = 60.0  # after the last failure
NETWORKS = 1024  # whose failures are remembered
_MOST_FAILURES = 20  # that make a difference

Who = TypeVar("Who")


@dataclass(slots=True)
class _Failures:
    count: int
    last: float


class Turns(Generic[Who]):
    """The lines; `now` is in monotonic seconds. Each event costs O(log networks)."""

    def __init__(self, now: float) -> None:
        self._purse, self._filled = PURSE, now
        self._lines: dict[str, dict[Who, None]] = {}
        # One entry a network that waits or pauses: when it has its turn, and the order of entries.
        self._order: list[tuple[float, int, str]] = []
        self._queued: set[str] = set()
        self._entries = 0
        self._failures: OrderedDict[str, _Failures] = OrderedDict()

    def enter(self, who: Who, network: str, now: float) -> None:
        """Stand in line."""
        self._lines.setdefault(network, {})[who] = None
        if network not in self._queued:
            self._queue(network, now)

    def leave(self, who: Who, network: str) -> None:
        """Go out of the line; safe for who is not in it."""
        line = self._lines.get(network, {})
        line.pop(who, None)
        if not line:
            self._lines.pop(network, None)

    def due(self, now: float) -> float | None:
        """Return the seconds until somebody may have a turn; None: nobody waits."""
        if not self._lines:
            return None
        self._fill(now)
        lacking = max(0.0, 1.0 - self._purse) / REFILL
        return max(lacking, self._order[0][0] - now, 0.0)

    def next(self, now: float) -> Who | None:
        """Return who begins now; None: nobody may yet."""
        self._fill(now)
        while self._order and self._order[0][0] <= now and self._purse >= 1.0:
            _, _, network = heapq.heappop(self._order)
            self._queued.discard(network)
            line = self._lines.get(network)
            if not line:
                continue  # its pause is over, and nobody waits
            self._purse -= 1.0
            who = next(iter(line))
            pause = self._pause(network, len(line), now)
            self.leave(who, network)
            if pause or network in self._lines:
                self._queue(network, now + pause)
            return who
        return None

    def proven(self, network: str) -> None:
        """One that began has proven itself."""
        self._purse = min(PURSE, self._purse + 1.0)
        self._failures.pop(network, None)

    def failed(self, network: str, now: float) -> None:
        """One that began has not proven itself, and is gone."""
        count = self._recent(network, now) + 1
        self._failures[network] = _Failures(min(count, _MOST_FAILURES), now)
        self._failures.move_to_end(network)
        if len(self._failures) > NETWORKS:
            self._failures.popitem(last=False)

    def _queue(self, network: str, when: float) -> None:
        self._entries += 1
        self._queued.add(network)
        heapq.heappush(self._order, (when, self._entries, network))

    def _pause(self, network: str, waiting: int, now: float) -> float:
        over = self._recent(network, now) - FREE_FAILURES
        if over <= 0:
            return 0.0
        return min(FIRST_PAUSE * 2.0 ** (over - 1), LINE_SECONDS / waiting)

    def _recent(self, network: str, now: float) -> int:
        failures = self._failures.get(network)
        if failures is None or now - failures.last > FORGET_SECONDS:
            return 0
        return failures.count

    def _fill(self, now: float) -> None:
        self._purse = min(PURSE, self._purse + (now - self._filled) * REFILL)
        self._filled = now
