"""Strangers have a room of their own, which is bounded and shared among networks."""

from collections import Counter

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispy.protocol.admission import (
    CONNECTIONS,
    EXCHANGES,
    STRANGERS,
    STRANGERS_OF_ONE,
    Admission,
    Bounds,
    Stranger,
    bounds,
    network_of,
)

BOUNDS = Bounds(known=100, strangers=12, of_one=5)
ADDRESSES = [f"10.0.0.{number}" for number in range(20)]


class StrangersMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.room = Admission(BOUNDS)
        self.inside: list[Stranger] = []  # the oldest first
        self.now = 0.0

    def most(self) -> int:
        return max(Counter(one.network for one in self.inside).values(), default=0)

    @rule(address=st.sampled_from(ADDRESSES), seconds=st.sampled_from([0.0, 0.001, 0.1]))
    def come(self, address: str, seconds: float) -> None:
        before = list(self.inside)
        of_it = [one for one in before if one.network == address]
        most = self.most()
        self.now += seconds
        stranger, leaving = self.room.arrived(address, self.now)
        if stranger is None:
            full = len(of_it) == BOUNDS.of_one or len(before) == BOUNDS.strangers
            assert full, "nobody is turned away while there is room"
            assert seconds < 1 / EXCHANGES
            assert leaving is None
            return
        self.inside.append(stranger)
        if len(of_it) >= BOUNDS.of_one:
            assert leaving is of_it[0], "its own network's oldest makes room"
        elif len(before) >= BOUNDS.strangers:
            assert leaving is not None
            others = [one for one in before if one.network == leaving.network]
            assert len(others) == most, "the network with the most makes room"
            assert leaving is others[0], "by its oldest"
        else:
            assert leaving is None, "nobody goes while there is room"
        if leaving is not None:
            self.inside.remove(leaving)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        stranger = data.draw(st.sampled_from(self.inside))
        self.room.left(stranger)
        self.room.left(stranger)
        self.inside.remove(stranger)

    @invariant()
    def the_room_is_never_too_full(self) -> None:
        assert len(self.room) == len(self.inside) <= BOUNDS.strangers
        assert self.most() <= BOUNDS.of_one

    @invariant()
    def the_oldest_of_the_most_would_go_first(self) -> None:
        oldest = self.room.oldest()
        assert (oldest is None) == (not self.inside)
        if oldest is not None:
            of_it = [one for one in self.inside if one.network == oldest.network]
            assert oldest is of_it[0]
            assert len(of_it) == self.most()


TestStrangers = StrangersMachine.TestCase


def test_a_crowd_at_one_place_never_has_a_stranger_of_another_dropped() -> None:
    room = Admission(BOUNDS)
    honest, _ = room.arrived("10.0.0.1", 0.0)
    dropped = [room.arrived(f"10.0.1.{number % 3}", float(number))[1] for number in range(1000)]
    assert honest is not None
    assert honest not in dropped
    assert room.of(honest.network) == 1


def test_an_honest_one_is_dropped_only_after_a_whole_room_of_newer_ones() -> None:
    room = Admission(bounds(None))
    now = 0.0
    for _ in range(1000):
        room.arrived("10.0.0.1", now)
    honest, _ = room.arrived("10.0.0.1", now := now + 1)
    assert honest is not None
    newer = 0
    while room.arrived("10.0.0.1", now := now + 1)[1] is not honest:
        newer += 1
    assert newer == STRANGERS_OF_ONE - 1


def test_a_flood_from_one_place_costs_a_stated_number_of_exchanges() -> None:
    room = Admission(bounds(None))
    came = [room.arrived("10.0.0.1", number / 10_000) for number in range(100_000)]
    let_in = sum(stranger is not None for stranger, _ in came)
    assert EXCHANGES * 10 <= let_in <= EXCHANGES * 10 + 2 * STRANGERS_OF_ONE + 1
    assert room.arrived("10.0.0.2", 10.0)[0] is not None, "others come in as ever"


def test_nothing_is_remembered_of_who_has_gone() -> None:
    room = Admission(bounds(None))
    for _ in range(1000):
        room.arrived("10.0.0.1", 0.0)
    while (stranger := room.oldest()) is not None:
        room.left(stranger)
    assert (room._inside, room._crowds, room._purses, len(room)) == ({}, {}, {}, 0)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        (":what:", ":what:"),
    ],
)
def test_all_addresses_of_a_machine_count_as_one(address: str, network: str) -> None:
    assert network_of(address) == network


@given(st.integers(1, 1 << 20))
def test_connections_leave_descriptors_for_jobs(descriptors: int) -> None:
    may = bounds(descriptors)
    assert 1 <= may.of_one <= may.strangers <= STRANGERS
    assert may.known <= CONNECTIONS
    if descriptors >= 256:
        assert may.known + 2 * may.strangers <= descriptors * 5 // 8
        assert may.of_one < may.strangers, "one network alone cannot fill the room"
