"""Time, what happens when, and links that keep order while they live."""

import heapq
import random
from collections.abc import Callable
from itertools import count
from typing import Any

OTHER_END = {"owner": "node", "node": "owner"}


class Network:
    """The agenda; a seed decides how long each message takes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._numbers), what))

    def advance(self, seconds: float) -> None:
        """Do all that is due within so many seconds."""
        until = self.now + seconds
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, what = heapq.heappop(self._agenda)
            what()
        self.now = until


class Link:
    """One connection: two directions, each in order, with delays of its own.

    A cut loses all that is on the way. What is sent in a direction that has gone silent is lost
    while the link seems to live, and so is all that follows: order is kept.
    """

    def __init__(self, network: Network, slow: float) -> None:
        self.network, self.slow, self.alive = network, slow, True
        self._arrival = {"owner": 0.0, "node": 0.0}
        self.silent: set[str] = set()  # the ends that hear nothing more
        self.receive: dict[str, Callable[..., None]] = {}

    def send(self, to: str, *message: Any) -> None:
        if not self.alive or to in self.silent:
            return
        network = self.network
        delay = network.random.random() ** 4 * self.slow
        at = self._arrival[to] = max(self._arrival[to], network.now + delay)
        network.later(at - network.now, lambda: self._deliver(to, message))

    def _deliver(self, to: str, message: tuple[Any, ...]) -> None:
        if self.alive and to not in self.silent:
            self.receive[to](self, *message)
