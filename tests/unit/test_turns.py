"""Strangers' handshakes take turns; a crowd waits, and nobody else waits long for it."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dispy.protocol.turns import (
    FORGET_SECONDS,
    FREE_FAILURES,
    LINE_SECONDS,
    NETWORKS,
    PURSE,
    REFILL,
    Turns,
)

PLACES = ["a", "b", "c"]
LINE = 64  # that a room lets in of one network


class TurnsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.turns: Turns[int] = Turns(self.now)
        self.waiting: dict[str, list[int]] = {place: [] for place in PLACES}
        self.began: list[str] = []  # and neither proven nor failed
        self.numbers = 0

    def total(self) -> int:
        return sum(map(len, self.waiting.values()))

    @rule(place=st.sampled_from(PLACES), count=st.integers(1, 5))
    def come(self, place: str, count: int) -> None:
        for _ in range(min(count, LINE - len(self.waiting[place]))):
            self.numbers += 1
            self.turns.enter(self.numbers, place, self.now)
            self.waiting[place].append(self.numbers)

    @rule(place=st.sampled_from(PLACES), at=st.integers(0, LINE))
    def go(self, place: str, at: int) -> None:
        if line := self.waiting[place]:
            self.turns.leave(line.pop(at % len(line)), place)

    @rule(seconds=st.floats(0, 100))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(ends=st.lists(st.booleans(), max_size=30))
    def end(self, ends: list[bool]) -> None:
        for proven in ends[: len(self.began)]:
            place = self.began.pop()
            if proven:
                self.turns.proven(place)
            else:
                self.turns.failed(place, self.now)

    @rule(count=st.integers(1, 100))
    def give(self, count: int) -> None:
        for _ in range(count):
            who = self.turns.next(self.now)
            if who is None:
                break
            (place,) = [place for place, line in self.waiting.items() if who in line]
            assert self.waiting[place].pop(0) == who, "who came first of a network begins first"
            self.began.append(place)

    @invariant()
    def whoever_waits_is_told_when(self) -> None:
        seconds = self.turns.due(self.now)
        assert (seconds is None) == (self.total() == 0)

    def teardown(self) -> None:
        """All who wait have their turn in a time that is bounded by how many they are."""
        deadline = self.now + 2 * LINE_SECONDS + self.total() / REFILL + 1
        steps = 0
        while self.total():
            self.now += self.turns.due(self.now) or 0.0
            self.give(1)
            steps += 1
            assert steps < 10_000, "it is told to look again, in vain"
        assert self.now <= deadline


TestTurns = TurnsMachine.TestCase
TestTurns.settings = settings(max_examples=60, stateful_step_count=40)


def fail(turns: Turns[int], place: str, now: float, count: int) -> None:
    for _ in range(count):
        turns.failed(place, now)


def test_ten_thousand_honest_peers_are_served_as_fast_as_they_come() -> None:
    turns: Turns[int] = Turns(0.0)
    for number in range(10_000):
        turns.enter(number, f"place {number % 7}", 0.0)
        assert turns.due(0.0) == 0.0
        assert turns.next(0.0) == number
        turns.proven(f"place {number % 7}")


def test_a_crowd_that_proves_nothing_has_a_stated_part_of_the_processor() -> None:
    turns: Turns[int] = Turns(0.0)
    began, now = 0, 0.0
    for tick in range(100_000):  # of a millisecond, each with a newcomer of another place
        now = tick / 1000
        turns.enter(tick, f"place {tick % 3000}", now)
        if turns.next(now) is not None:
            began += 1
            turns.failed(f"place {tick % 3000}", now)
    assert began <= PURSE + REFILL * now + 1
    assert began >= REFILL * now


def test_a_guest_of_another_network_waits_for_no_crowd() -> None:
    turns: Turns[int] = Turns(0.0)
    fail(turns, "crowd", 0.0, 20)
    for number in range(LINE):
        turns.enter(number, "crowd", 0.0)
    turns.next(0.0)
    turns.enter(-1, "honest", 0.001)
    assert turns.due(0.001) == 0.0
    assert turns.next(0.001) == -1


def test_networks_take_turns() -> None:
    turns: Turns[str] = Turns(0.0)
    for number in range(3):
        for place in PLACES:
            turns.enter(f"{place}{number}", place, 0.0)
    came = [turns.next(0.0) for _ in range(9)]
    assert came == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def pause(turns: Turns[int], now: float, waiting: int = 1) -> float:
    """Return how long the second of a line waits for the first."""
    for number in range(waiting):
        turns.enter(number, "place", now)
    first = turns.next(now)
    turns.enter(99, "place", now)
    seconds = turns.due(now)
    for number in (*range(waiting), 99):
        turns.leave(number, "place")
    assert first is not None
    assert seconds is not None
    return seconds


def after(failures: int, waiting: int = 1) -> float:
    turns: Turns[int] = Turns(0.0)
    fail(turns, "place", 0.0, failures)
    return pause(turns, 0.0, waiting)


def test_failures_make_a_network_wait_longer_each_time_but_never_lock_it_out() -> None:
    assert after(FREE_FAILURES) == 0.0
    pauses = [after(FREE_FAILURES + more) for more in range(1, 15)]
    assert pauses == sorted(pauses)
    assert 0.0 < pauses[0] < pauses[-1] == LINE_SECONDS
    assert after(100, waiting=LINE) <= LINE_SECONDS / LINE


def test_a_proof_and_time_make_failures_forgotten() -> None:
    turns: Turns[int] = Turns(0.0)
    fail(turns, "place", 0.0, 20)
    turns.proven("place")
    assert pause(turns, 0.0) == 0.0
    fail(turns, "place", 0.0, 20)
    assert pause(turns, 10.0) > 0.0
    assert pause(turns, 11.0 + FORGET_SECONDS) == 0.0


def test_what_is_remembered_is_bounded() -> None:
    turns: Turns[int] = Turns(0.0)
    for number in range(20_000):
        now = number / 1000
        turns.enter(number, f"place {number}", now)
        turns.leave(number, f"place {number}")
        turns.failed(f"place {number}", now)
        turns.next(now)
    assert len(turns._failures) <= NETWORKS
    assert len(turns._order) + len(turns._queued) + len(turns._lines) < 10
