"""First inputs for the fuzzer: peers that mostly do what good ones do, with a slip here and there.

A node whose jobs run is many right steps away from random bytes. So some lives of good peers are
played, and the bytes that they took are what the fuzzer begins with.
"""

import contextlib
import random
from collections.abc import Callable, Sequence

from fuzz.choices import Choices

COUNT = 60  # of each target that has steps
STEPS = 25
# What each step begins with, and what its choice of what to do should be: of targets with steps.
PLANS: dict[str, tuple[int, Sequence[int]]] = {
    "node": (2, [0, 3, 1, 1, 3, 4, 4, 4, 6, 3, 1, 4, 4, 7, 8, 9, 10, 13, 15, 16, 17]),
    "recovery": (2, [5, 6, 5, 0, 1, 2, 3, 7, 9, 0, 1, 8, 7, 5, 10, 5, 11]),
    "sharing": (1, [7, 4, 4, 8, 8, 4, 4, 6, 7, 4, 4, 8, 2, 7, 4, 5, 3, 2, 8, 8, 1, 0]),
    "program": (1, [5, 5, 8, 8, 8, 5, 5, 5, 0, 1, 2, 10, 10, 12, 13, 14]),
}


class Recorder(Choices):
    """Chooses by a plan, else mostly the first thing; keeps the bytes that say so."""

    def __init__(self, rng: random.Random, before: int, plan: Sequence[int]) -> None:
        super().__init__(b"")
        self._rng, self._before, self._plan = rng, before, plan
        self._steps, self._planned = 0, list[int]()
        self.taken = bytearray()

    @property
    def left(self) -> int:
        return STEPS - self._steps

    def next_step(self) -> None:
        ordered = self._steps < len(self._plan) and self._rng.random() < 0.9
        what = self._plan[self._steps] if ordered else self._rng.choice(self._plan)
        self._planned = [0] * self._before + [what]
        self._steps += 1

    def byte(self) -> int:
        if self._planned:
            chosen = self._planned.pop(0)
        else:
            chosen = self._rng.randrange(256) if self._rng.random() < 0.2 else 0
        self.taken.append(chosen)
        return chosen

    def raw(self, size: int) -> bytes:
        data = self._rng.randbytes(min(size, 20))
        self.taken += data
        return data


def seeds(target: str, play: Callable[[Choices], None] | None) -> list[bytes]:
    """Return first inputs for a target; `play` plays choices, where it has steps."""
    if play is None:
        return [random.Random(number).randbytes(10 * number) for number in range(1, 30)]
    made = []
    for number in range(COUNT):
        recorder = Recorder(random.Random(number), *PLANS[target])
        with contextlib.suppress(Exception):
            play(recorder)
        made.append(bytes(recorder.taken))
    return made
