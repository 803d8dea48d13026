"""Clusters that share nodes get what their policy promises, in simulated time."""

import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sharing import Shared

from dispy.scheduling.choosing import POLICIES, policy_of
from dispy.scheduling.fair import FairShare
from dispy.scheduling.policies import EarlyCluster, FirstCome, LongestUnserved, Policy
from dispy.scheduling.records import Cluster

PLENTY = 100_000  # jobs: more than can end


def share(
    policy: Policy, nodes: list[int], *clusters: tuple[float, Callable[[Shared], float]]
) -> Shared:
    """Let clusters, (weight, how long a job takes), share nodes with so many slots."""
    world = Shared(policy, seed=1)
    for number, slots in enumerate(nodes):
        world.join(f"n{number}", slots)
    for number, (weight, seconds) in enumerate(clusters, 1):
        cluster = Cluster(number, f"c{number}", weight=weight)
        world.open(cluster, lambda seconds=seconds: seconds(world), PLENTY)  # type: ignore[misc]
    return world


def lasting(seconds: float) -> Callable[[Shared], float]:
    return lambda world: seconds


def of_all_lengths(world: Shared) -> float:
    return float(0.001 * 10_000 ** world.random.random())  # 1 ms to 10 s


def worst_window(world: Shared, weights: list[float], start: float, end: float) -> float:
    """Return by how much of all slot-seconds some cluster missed its share in some second."""
    worst, at = 0.0, start
    while at + 1 <= end:
        got = [world.slot_seconds(n, at, at + 1) for n in range(1, len(weights) + 1)]
        for part, weight in zip(got, weights, strict=True):
            worst = max(worst, abs(part / sum(got) - weight / sum(weights)))
        at += 0.05
    return worst


@pytest.mark.parametrize(
    ("weights", "seconds"),
    [
        ((1, 1), (lasting(0.01), lasting(0.01))),
        ((1, 1), (lasting(0.01), lasting(10.0))),
        ((1, 1), (of_all_lengths, of_all_lengths)),
        ((1, 3), (lasting(0.02), lasting(0.3))),
        ((3, 1), (lasting(0.02), lasting(0.3))),
        ((1, 3), (lasting(0.01), lasting(0.01))),
    ],
    ids=["short", "short_and_long", "of_all_lengths", "1_to_3", "3_to_1", "short_1_to_3"],
)
def test_in_any_second_busy_clusters_have_their_shares(
    weights: tuple[float, float], seconds: tuple[Callable[[Shared], float], ...]
) -> None:
    world = share(FairShare(), [4] * 16, *zip(weights, seconds, strict=True))
    world.run(2.5)
    # Two shares that add up differ by twice what one of them misses: 5 % at most.
    assert worst_window(world, list(weights), 1.0, 2.5) < 0.025
    all_slots = sum(world.slot_seconds(n, 1.0, 2.5) for n in (1, 2))
    assert all_slots > 0.95 * 1.5 * 64, "slots idled while jobs waited"


def test_shares_that_do_not_divide_go_back_and_forth() -> None:
    world = share(FairShare(), [2], (1, lasting(0.01)), (3, lasting(0.03)))
    world.run(12.0)
    got = [world.slot_seconds(n, 1.0, 12.0) for n in (1, 2)]
    assert got[0] / sum(got) == pytest.approx(0.25, abs=0.02)


def test_ten_jobs_are_not_stuck_behind_a_million() -> None:
    world = share(FairShare(), [4] * 2, (1, lasting(0.05)))
    world.submit(1, 1_000_000 - PLENTY)
    world.run(1.0)
    last = world.open(Cluster(2, "c2"), lambda: 0.05, 10)
    world.run(9.0, stop=lambda: last in world.ended)
    # Ten jobs on its four of eight slots, and what runs there must end before: 4 times 50 ms. A
    # little more for what is on its way.
    assert world.done[2] == 10
    assert world.now - 1.0 < 0.25


def test_who_was_idle_has_saved_nothing_up() -> None:
    world = share(FairShare(), [4] * 8, (1, lasting(0.02)))
    world.open(Cluster(2, "c2"), lambda: 0.02, 10)
    world.run(3.0)
    world.submit(2, PLENTY)
    world.run(4.5)
    assert worst_window(world, [1, 1], 3.1, 4.5) < 0.025


def test_who_was_idle_takes_turns_on_a_single_slot() -> None:
    world = share(FairShare(), [1], (1, lasting(0.5)))
    seconds = iter([2.0] + [0.5] * 10)  # a long job once: so much could be owed
    world.open(Cluster(2, "c2"), lambda: next(seconds), 1)
    world.run(20.0)
    before = len(world.ended)
    last = world.submit(2, 6)
    world.run(40.0, stop=lambda: last in world.ended)
    order = [job > last - 6 for job in sorted(world.ended, key=world.ended.__getitem__)[before:]]
    assert order[1:] in ([True, False] * 5 + [True], [False, True] * 6), "it caught up"


def test_a_crowd_of_clusters_have_equal_shares() -> None:
    world = share(FairShare(), [4] * 6, *[(1, lasting(0.05))] * 60)
    world.run(4.0)
    got = [world.slot_seconds(n, 1.0, 4.0) for n in range(1, 61)]
    assert max(got) - min(got) < 0.5 * sum(got) / len(got)  # of 24 jobs each


def test_nothing_is_lost_of_two_clusters_speed_with_short_jobs() -> None:
    world = share(FairShare(), [2], (1, lasting(0.0005)), (1, lasting(0.0005)))
    world.run(3.0)
    assert sum(world.done.values()) > 0.85 * 2 * 3.0 / 0.0005
    assert worst_window(world, [1, 1], 1.0, 3.0) < 0.05


def test_early_clusters_have_all_they_want_and_later_ones_the_rest() -> None:
    world = Shared(EarlyCluster())
    world.join("a", 4)
    late = world.open(Cluster(2, "c2"), lambda: 0.1, 20)
    world.core.cluster_closed(2)  # so that the number says nothing
    first = world.open(Cluster(9, "first"), lambda: 0.1, 20)
    late = world.open(Cluster(1, "late"), lambda: 0.1, 20)
    world.run(20.0)
    assert world.ended[first] < 0.6
    assert min(t for job, t in world.ended.items() if job > first) > 0.5
    assert late in world.ended


def test_the_first_of_a_crowd_is_found() -> None:
    world = Shared(EarlyCluster())
    world.join("a", 1)
    for number in range(30):
        world.open(Cluster(number, f"c{number}"), lambda: 0.1, 3)
    world.run(20.0)
    assert sorted(world.ended, key=world.ended.__getitem__) == list(range(90))


def test_first_come_goes_by_the_age_of_jobs() -> None:
    world = Shared(FirstCome())
    world.join("a", 1)
    world.open(Cluster(1, "c1"), lambda: 0.1, 3)
    second = world.open(Cluster(2, "c2"), lambda: 0.1, 3)
    third = world.submit(1, 3)
    world.run(20.0)
    order = sorted(world.ended, key=world.ended.__getitem__)
    assert order == list(range(9))
    assert (second, third) == (5, 8)


def test_rounds_serve_who_was_served_least_recently() -> None:
    world = Shared(LongestUnserved())
    world.join("a", 1)
    for number in (1, 2, 3):
        world.open(Cluster(number, f"c{number}"), lambda: 0.1, 3)
    world.run(20.0)
    order = sorted(world.ended, key=world.ended.__getitem__)
    assert [job // 3 for job in order] == [0, 1, 2] * 3


def test_a_cluster_with_priority_goes_first() -> None:
    world = Shared(FairShare())
    world.join("a", 1)
    world.open(Cluster(1, "c1"), lambda: 0.1, 5)
    last = world.open(Cluster(2, "c2", priority=1), lambda: 0.1, 5)
    world.run(20.0, stop=lambda: last in world.ended)
    assert world.done == {1: 1, 2: 5}


LONGEST = 100  # times as long as the shortest: what can be simulated for long enough
EXAMPLES = int(os.environ.get("DISPY_EXAMPLES", "12"))


@settings(max_examples=EXAMPLES, deadline=None, derandomize="DISPY_EXAMPLES" not in os.environ)
@given(
    slots=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    shortest=st.sampled_from([0.001, 0.003, 0.01, 0.03, 0.1]),
    clusters=st.lists(
        st.tuples(st.integers(1, 4), st.floats(1, LONGEST)), min_size=2, max_size=4
    ),
)  # fmt: skip
def test_whatever_jobs_take_each_cluster_has_its_slots_by_weight(
    slots: list[int], shortest: float, clusters: list[tuple[int, float]]
) -> None:
    """On average over three of the longest jobs, but for less than one slot."""
    kinds = [(weight, shortest * times) for weight, times in clusters]
    longest = max(seconds for _, seconds in kinds)
    world = share(FairShare(), slots, *[(weight, lasting(s)) for weight, s in kinds])
    start, end = longest + 1, 4 * longest + 2
    world.run(end)
    numbers = range(1, len(kinds) + 1)
    got = [world.slot_seconds(number, start, end) / (end - start) for number in numbers]
    for mean, (weight, _) in zip(got, kinds, strict=True):
        assert abs(mean - sum(got) * weight / sum(w for w, _ in kinds)) < 1
    assert sum(got) > 0.9 * sum(slots), "slots idled while jobs waited"


@settings(max_examples=EXAMPLES, deadline=None, derandomize="DISPY_EXAMPLES" not in os.environ)
@given(
    policy=st.sampled_from(sorted(POLICIES)),
    seed=st.integers(0, 10_000),
    events=st.lists(
        st.tuples(st.sampled_from(["join", "lose", "open", "close", "submit"]), st.integers(0, 3)),
        min_size=5, max_size=25,
    ),
)  # fmt: skip
def test_no_job_waits_for_ever_whatever_comes_and_goes(
    policy: str, seed: int, events: list[tuple[str, int]]
) -> None:
    """Wide ones included; and all invariants hold at any time."""
    world = Shared(policy_of(policy), seed)
    world.check = world.core.check_invariants
    lasts: dict[int, set[int]] = {}
    world.join("n0", 4)
    for number, (event, which) in enumerate(events, 1):
        name = f"n{which}"
        match event:
            case "join" if name not in world.machines:
                world.join(name, 1 + which)
            case "lose" if which and name in world.machines:
                world.lose(name)
            case "open":
                cluster = Cluster(number, f"c{number}", width=1 + which % 3, weight=1.0 + which)
                seconds = 0.001 * 10_000 ** world.random.random()
                lasts[number] = {world.open(cluster, lambda s=seconds: s, 6)}  # type: ignore[misc]
            case "close" if lasts:
                number = list(lasts)[which % len(lasts)]
                del lasts[number]
                world.close(number)
            case "submit" if lasts:
                number = list(lasts)[which % len(lasts)]
                lasts[number].add(world.submit(number, 3, width=1 + which))
        world.run(world.now + world.random.random())
    world.run(world.now + 10.0 * 4 * 9 * 25)  # each after the other, at worst
    assert all(jobs <= world.ended.keys() for jobs in lasts.values()), "some jobs did not end"


def test_a_wide_job_begins_when_each_slot_has_come_free_once() -> None:
    world = share(FairShare(), [4, 4], (1, lasting(1.0)), (1, lasting(0.7)))
    world.run(3.0)
    last = world.open(Cluster(3, "wide", width=4), lambda: 0.5, 1)
    world.run(9.0, stop=lambda: last in world.ended)
    assert world.now - 3.0 < 1.0 + 0.5 + 0.1
