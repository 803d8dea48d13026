"""A flood of refusals is a few lines a minute in the log, and a sum."""

from hypothesis import given
from hypothesis import strategies as st

from dispy.protocol.refusals import LINES, REASONS, Refusals


def test_each_reason_is_said_once_a_minute_and_the_rest_is_counted() -> None:
    log = Refusals()
    assert not log.counts
    said = [log.refused("10.0.0.1", reason) for reason in ("a", "b", "a", "a")]
    assert said == [True, True, False, False]
    assert log.counts
    assert log.sums() == ["refused 10.0.0.1: 2 times more within a minute"]
    assert not log.counts
    assert log.sums() == []
    assert log.refused("10.0.0.1", "a"), "the next minute says it again"


def test_who_invents_reasons_or_addresses_is_not_said_either() -> None:
    log = Refusals()
    assert sum(log.refused("10.0.0.1", str(number)) for number in range(1000)) == REASONS
    log = Refusals()
    said = sum(log.refused(f"10.0.{n // 250}.{n % 250}", "a") for n in range(1000))
    assert said == LINES
    assert log.sums() == [f"refused other addresses: {1000 - LINES} times within a minute"]


@given(st.lists(st.tuples(st.integers(0, 99).map(str), st.integers(0, 9).map(str))))
def test_nothing_is_lost_from_the_sums(refused: list[tuple[str, str]]) -> None:
    log = Refusals()
    said = sum(log.refused(network, reason) for network, reason in refused)
    assert said <= LINES
    sums = log.sums()
    assert len(sums) <= LINES + 1
    counted = sum(int(line.split(": ")[1].split()[0]) for line in sums)
    assert said + counted == len(refused)
