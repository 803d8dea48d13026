"""What follows a commit is done in order, and leaves others their turns."""

from collections.abc import Callable
from typing import Any

import gevent
import pytest

from dispy.scheduler import durable
from dispy.scheduler.durable import Durable


class Instant:
    """A journal whose commits end at once."""

    def __init__(self) -> None:
        self.then: list[Callable[[], None]] = []

    def record(self, entry: Any) -> None:
        """Take it."""

    def commit(self, then: Callable[[], None]) -> None:
        self.then.append(then)


def test_others_have_their_turn_within_what_follows_a_commit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durable, "TURN_SECONDS", -1.0)  # each step takes longer
    journal = Instant()
    safe = Durable(journal)  # type: ignore[arg-type]
    done: list[object] = []
    safe.record("an entry")  # type: ignore[arg-type]
    for number in range(5):
        safe.when_safe(lambda number=number: done.append(number))
    safe.commit()
    committed = gevent.spawn(journal.then.pop())
    with gevent.Timeout(30):
        while not done:
            gevent.sleep(0)
        assert len(done) < 5, "nobody else had a turn"
        safe.when_safe(lambda: done.append("last"))  # it follows what waits before it
        committed.join()
    assert done == [0, 1, 2, 3, 4, "last"]
    safe.when_safe(lambda: done.append("at once"))
    assert done[-1] == "at once"
