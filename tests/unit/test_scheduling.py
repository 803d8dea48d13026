"""Any order of events keeps the scheduler's promises."""

import os

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from scheduling_world import World

from dispy.model.statuses import Status
from dispy.scheduling.actions import CancelOnNode, GiveUp, Recall, Requeued, RunBatch
from dispy.scheduling.choosing import POLICIES, policy_of
from dispy.scheduling.core import Scheduling
from dispy.scheduling.fair import FairShare
from dispy.scheduling.policies import Policy
from dispy.scheduling.recalls import STALL_SECONDS
from dispy.scheduling.records import Cluster, Node

# More, and other, seeds than CI has time for: DISPY_SEED=7 pytest tests/unit/test_scheduling.py
SEED = int(os.environ.get("DISPY_SEED", "0"))
STEPS = int(os.environ.get("DISPY_EVENTS", "30000"))  # in each of five large worlds


def test_any_order_of_events_keeps_the_promises() -> None:
    for seed in range(SEED, SEED + 60):
        world = World(seed, nodes=6)
        try:
            for _ in range(150):
                world.step()
                world.check_all()
        except AssertionError as error:
            raise AssertionError(f"{error}; replay: DISPY_SEED={seed}") from error


def test_any_order_of_events_keeps_the_promises_of_wide_jobs() -> None:
    reservations = starts = 0
    for seed in range(SEED, SEED + 60):
        world = World(seed, nodes=4, wide=True)
        try:
            for _ in range(150):
                world.step()
                world.check_all()
        except AssertionError as error:
            raise AssertionError(f"{error}; replay: DISPY_SEED={seed}") from error
        reservations, starts = reservations + world.reservations, starts + world.starts_of_wide
    assert reservations > 100, "nothing had to be collected: the world has lost its meaning"
    assert starts > 100


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("policy", sorted(POLICIES.keys() - {"load"}))
def test_any_order_of_events_keeps_the_promises_of_each_policy(policy: str, wide: bool) -> None:
    for seed in range(SEED, SEED + 10):
        world = World(seed, nodes=4, wide=wide, policy=policy_of(policy))
        try:
            for _ in range(150):
                world.step()
                world.check_all()
        except AssertionError as error:
            raise AssertionError(f"{error}; replay: DISPY_SEED={seed}") from error


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("policy", [Policy, FairShare])
def test_any_order_of_events_gives_drained_nodes_no_jobs_and_loses_none(
    policy: type[Policy], wide: bool
) -> None:
    drained = 0
    for seed in range(SEED, SEED + 15):
        world = World(seed, nodes=4, wide=wide, policy=policy(), gated=seed % 2 > 0, drains=True)
        try:
            for _ in range(150):
                world.step()
                world.check_all()
        except AssertionError as error:
            raise AssertionError(f"{error}; replay: DISPY_SEED={seed}") from error
        drained += world.drained
    assert drained > 10, "no node with jobs was drained: the world has lost its meaning"


@pytest.mark.parametrize("part", range(5))
def test_many_events_over_thousands_of_nodes_keep_the_promises(part: int) -> None:
    world = World(
        SEED + part, nodes=(1000, 2000, 3000, 4000, 5000)[part], clusters=4, wide=part == 4
    )
    for at in range(STEPS):
        world.step()
        if at % 25_000 == 0:
            world.check_all()
    world.check_all()
    assert world.recalls, "nothing was called back: the world has lost its meaning"
    assert world.finals > STEPS // 10


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("policy", [Policy, FairShare])
def test_any_order_of_events_keeps_limits_and_has_exclusive_clusters_alone(
    policy: type[Policy], wide: bool
) -> None:
    alone = held = 0
    for seed in range(SEED, SEED + 12):
        world = World(seed, nodes=4, clusters=4, wide=wide, policy=policy(), gated=True)
        try:
            for _ in range(150):
                world.step()
                world.check_all()
        except AssertionError as error:
            raise AssertionError(f"{error}; replay: DISPY_SEED={seed}") from error
        alone, held = alone + world.alone, held + world.held
    assert alone > 50, "nothing ran exclusively: the world has lost its meaning"
    assert held > 50, "no limit was reached: the world has lost its meaning"


NAMES = st.sampled_from(["node0", "node1", "node2"])
WIDTHS = st.sampled_from([0, 0, 2, 3])
CLUSTERS = st.integers(0, 1)
EVENTS = st.sampled_from(
    ["ready", "refuse", "limit", "share", "answer", "give_back", "leave", "left"]
)


class SchedulingMachine(RuleBasedStateMachine):
    """The same world, with events that hypothesis chooses, and shortens when one fails."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(seed=0, nodes=3, clusters=2, wide=True)

    @rule(name=NAMES, slots=st.integers(1, 3), limit=st.integers(0, 3))
    def join_or_lose(self, name: str, slots: int, limit: int) -> None:
        if name in self.world.houses:
            self.world.lose(name)
        else:
            self.world.join(name, slots, {0: slots, 1: limit})
            self.world.ready(name, 0)

    @rule(cluster=CLUSTERS, count=st.integers(1, 9), width=WIDTHS)
    def submit(self, cluster: int, count: int, width: int) -> None:
        self.world.submit(cluster, count, width)

    @rule(name=NAMES, cluster=CLUSTERS, count=st.integers(1, 3), width=WIDTHS)
    def pin(self, name: str, cluster: int, count: int, width: int) -> None:
        self.world.pin(cluster, name, count, width)

    @precondition(lambda self: self.world.where)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.world.cancel(data.draw(st.integers(0, len(self.world.where) - 1)))

    @precondition(lambda self: self.world.houses)
    @rule(data=st.data(), cluster=CLUSTERS, count=st.integers(1, 9),
          seconds=st.sampled_from([1e-5, 0.01, 1.0]))  # fmt: skip
    def finish(self, data: st.DataObject, cluster: int, count: int, seconds: float) -> None:
        self.world.finish(self.a_node(data), cluster, count, seconds)

    @precondition(lambda self: self.world.houses)
    @rule(data=st.data(), cluster=CLUSTERS, number=st.integers(0, 4), event=EVENTS)
    def befall(self, data: st.DataObject, cluster: int, number: int, event: str) -> None:
        name = self.a_node(data)
        match event:
            case "ready" | "refuse" | "left":
                getattr(self.world, event)(name, cluster)
            case "leave":
                self.world.leave(name, cluster, terminate=number % 2 > 0, again=number > 1)
            case "share":
                self.world.share(name, number)
            case "answer":
                self.world.answer(name, cluster, number / 4)
            case "limit" | "give_back":
                getattr(self.world, event)(name, cluster, number)

    @precondition(lambda self: self.world.houses)
    @rule(data=st.data(), arrived=st.sampled_from([0.0, 0.5, 1.0]))
    def break_or_mend(self, data: st.DataObject, arrived: float) -> None:
        name = self.a_node(data)
        if self.world.houses[name].settled:
            self.world.silent(name)
        else:
            self.world.settled(name, arrived)

    @rule(seconds=st.sampled_from([0.05, 0.3]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    def a_node(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.world.houses)))

    @invariant()
    def all_promises_are_kept(self) -> None:
        self.world.check_all()


SchedulingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestAnyOrderThatHypothesisFinds = SchedulingMachine.TestCase


# -- single promises


def make(
    *nodes: tuple[str, int],
    clusters: int = 1,
    reentrant: bool = True,
    policy: Policy | None = None,
) -> Scheduling:
    core = Scheduling(policy)
    for number in range(1, clusters + 1):
        core.cluster_opened(Cluster(number, f"c{number}", reentrant))
    for name, slots in nodes:
        core.node_joined(Node(name, name, slots))
        for number in range(1, clusters + 1):
            core.cluster_allocated(name, number, slots)
            core.cluster_ready_on(name, number)
    return core


def there(core: Scheduling, name: str, cluster: int = 1) -> list[int]:
    return list(core.nodes[name].allocations[cluster].jobs)


def test_a_few_jobs_are_spread_over_the_nodes() -> None:
    core = make(*((name, 4) for name in "abcde"))
    core.jobs_submitted(1, range(10))
    core.place(0.0)
    assert [len(there(core, name)) for name in "abcde"] == [2] * 5


@pytest.mark.parametrize("policy", ["load", "fair"])
def test_very_short_jobs_go_in_packets_and_longer_ones_are_spread(policy: str) -> None:
    names = [f"n{number}" for number in range(20)]
    for seconds, most in ((20e-6, 25), (0.01, 1)):
        core = make(*((name, 1) for name in names), policy=policy_of(policy))
        core.jobs_submitted(1, [0])
        core.place(0.0)
        core.jobs_finished("n0", 1, [0], seconds, 0.0)
        core.jobs_submitted(1, range(1, 21))
        batches = [len(batch.jobs) for batch in core.place(0.0)]
        assert sum(batches) == 20
        assert len(batches) == -(-20 // most), batches
        core.check_invariants()


def test_nothing_is_sent_ahead_before_a_duration_is_known_nor_beyond_50_ms() -> None:
    core = make(("a", 2))
    core.jobs_submitted(1, range(1000))
    core.place(0.0)
    assert len(there(core, "a")) == 2
    core.jobs_finished("a", 1, [0, 1], 0.005, 0.0)
    core.place(0.0)
    assert len(there(core, "a")) == 2 + 2 * 10


def test_a_cluster_keeps_to_its_limit_and_leaves_the_rest_to_others() -> None:
    core = make(("a", 4), clusters=2)
    core.cluster_allocated("a", 1, 1)
    core.jobs_submitted(1, range(10))
    core.jobs_submitted(2, range(10, 20))
    core.place(0.0)
    assert len(there(core, "a", 1)) == 1
    assert len(there(core, "a", 2)) == 3
    core.cluster_allocated("a", 2, 0)
    core.jobs_finished("a", 2, there(core, "a", 2), 1.0, 0.0)
    core.place(0.0)
    assert there(core, "a", 2) == []
    assert len(there(core, "a", 1)) == 1


def test_a_limit_of_nothing_calls_back_what_has_not_begun() -> None:
    core = make(("a", 1), ("b", 1))
    core.jobs_submitted(1, range(2))
    core.place(0.0)
    assert core.cluster_allocated("a", 1, 0) == [Recall("a", 1, (0,))]
    (requeued,) = core.jobs_returned("a", 1, [0], None, 0.0)
    assert isinstance(requeued, Requeued)
    core.jobs_finished("b", 1, [1], 1.0, 0.0)
    assert core.place(0.0) == [RunBatch("b", 1, (0,))]


def test_a_pinned_job_goes_before_the_queue_and_to_its_node_alone() -> None:
    core = make(("a", 1), ("b", 1))
    core.jobs_submitted(1, range(10))
    core.place(0.0)
    assert core.jobs_pinned(1, [100], "b") == []
    core.jobs_finished("a", 1, there(core, "a"), 1.0, 0.0)
    core.place(0.0)
    assert 100 not in there(core, "a")
    core.jobs_finished("b", 1, there(core, "b"), 1.0, 0.0)
    core.place(0.0)
    assert there(core, "b") == [100]


def test_pinned_jobs_of_a_lost_node_end_cancelled_if_queued_and_abandoned_if_there() -> None:
    core = make(("a", 1), reentrant=True)
    core.jobs_pinned(1, [1, 2], "a")
    core.place(0.0)
    ended = core.node_lost("a", "cut", 1.0)
    assert [(a.jobs, a.status) for a in ended if isinstance(a, GiveUp)] == [
        ((1,), Status.Abandoned),
        ((2,), Status.Cancelled),
    ]
    (refused,) = core.jobs_pinned(1, [3], "a")
    assert isinstance(refused, GiveUp)
    assert refused.status == Status.Cancelled


def test_a_late_cluster_is_served_first_though_another_has_filled_every_node() -> None:
    core = make(("a", 1), ("b", 1), clusters=2)
    core.jobs_submitted(1, range(100))
    core.place(0.0)
    core.jobs_submitted(2, [1000])
    core.place(0.0)
    core.jobs_finished("a", 1, there(core, "a"), 1.0, 0.0)
    core.place(0.0)
    assert there(core, "a", 2) == [1000]


def test_a_cluster_is_not_kept_out_by_jobs_that_another_sent_ahead() -> None:
    core = make(("a", 1), clusters=2)
    core.jobs_submitted(1, range(1000))
    core.place(0.0)
    core.jobs_finished("a", 1, there(core, "a"), 1e-3, 0.0)
    core.place(0.0)
    assert len(there(core, "a", 1)) > 10  # no slot will look idle for long
    core.jobs_submitted(2, [1000, 1001])
    core.place(0.0)
    assert there(core, "a", 2) == [1000]


def test_jobs_behind_one_that_stalls_are_called_back_once_another_node_idles() -> None:
    core = make(("a", 1))
    core.jobs_submitted(1, range(30))
    core.place(0.0)
    core.jobs_finished("a", 1, [0], 0.001, 0.0)
    core.place(0.0)
    held = tuple(there(core, "a"))
    assert core.time_passed(STALL_SECONDS + 0.01) == []  # nobody else is there
    core.node_joined(Node("b", "b", 1))
    core.cluster_allocated("b", 1, 1)
    core.cluster_ready_on("b", 1)
    core.place(0.3)
    assert core.due is not None
    assert core.time_passed(core.due) == [Recall("a", 1, held)]
    assert core.time_passed(core.due + 9) == []  # not while the answer is on its way
    core.jobs_returned("a", 1, held[1:], None, 0.5)
    core.place(0.5)
    assert there(core, "a") == [held[0]]
    assert there(core, "b") == list(held[1:])


def test_a_node_that_gives_jobs_back_unasked_gets_no_more_of_that_cluster() -> None:
    core = make(("a", 1), clusters=2)
    core.jobs_submitted(1, [1])
    core.place(0.0)
    core.jobs_returned("a", 1, [1], "it cannot load it", 0.0)
    assert core.place(0.0) == []
    core.jobs_submitted(2, [2])
    assert core.place(0.0) == [RunBatch("a", 2, (2,))]
    assert core.explain(1, 1, 2.0)[:2] == [
        "jobs of c1 wait: 1 for any of its nodes",
        "node a: it cannot run c1: it cannot load it",
    ]


def test_a_hostile_return_of_jobs_harms_nothing() -> None:
    core = make(("a", 1))
    core.jobs_submitted(1, [1])
    core.place(0.0)
    core.jobs_returned("a", 1, [1, 1, 99], None, 0.0)
    core.check_invariants()
    assert core.jobs_finished("a", 1, [1, 1, 99], 1.0, 0.0) == []


def test_results_are_taken_once_whatever_a_node_repeats() -> None:
    core = make(("a", 1))
    assert core.results_arrived("a", 1)
    assert not core.results_arrived("a", 1)
    assert core.results_arrived("a", 2)
    assert not core.results_arrived("elsewhere", 1)


def test_a_job_tells_its_story_when_it_is_given_up() -> None:
    core = make(("a", 1), reentrant=False)
    core.jobs_submitted(1, [1])
    core.place(0.0)
    core.node_silent("a")
    core.node_settled("a", [], 1.0)
    core.place(1.0)
    assert core.explain(1, 1, 3.0) == [
        "sent to node a 2.0 s ago; as far as known it runs",
        "2.0 s ago: it never reached a",
    ]
    (given_up,) = core.node_lost("a", "no answer", 4.0)
    assert isinstance(given_up, GiveUp)
    assert given_up.stories == {
        1: ((1.0, "it never reached a"), (4.0, "node a was lost: no answer"))
    }
    assert core.clusters[1].stories == {}


def test_a_plain_job_leaves_nothing_behind() -> None:
    core = make(("a", 1))
    core.jobs_submitted(1, range(5000))
    done = 0
    while core.clusters[1].has_queued or there(core, "a"):
        core.place(0.0)
        done += len(core.jobs_finished("a", 1, there(core, "a"), 1e-4, 0.0))
    cluster = core.clusters[1]
    (lane,) = cluster.lanes.values()
    assert done == 5000
    assert [*cluster.placed, *lane, *cluster.pinned, *cluster.stories] == []
    assert len(lane.candidates) < 100


def test_explain_names_what_keeps_a_job_away_from_each_node() -> None:
    core = make(("busy", 2), ("limited", 2), ("loading", 2), ("cut", 2), ("new", 2), clusters=2)
    core.cluster_allocated("limited", 1, 1)
    core.nodes["loading"].allocations[1].ready = False
    core.node_joined(Node("other", "other", 4))
    core.node_silent("cut", "it fell silent")
    core.node_silent("new")
    core.jobs_submitted(2, range(100, 102))
    core.place(0.0)
    core.jobs_submitted(1, range(10))
    core.place(0.0)
    core.node_shared("busy", 2, 3, 0.0)
    lines = core.explain(1, 9, 0.0)
    assert lines[0].startswith("jobs of c1 wait")
    assert lines[1:] == [
        "node busy: its 2 processors are busy with jobs: 1 of c1, 1 of c2; 3 clients share it",
        "node limited: c1 runs the 1 jobs at once there that it may",
        "node loading: c1 is being set up there",
        "node cut: its link is broken (it fell silent), and is being made again; jobs that it has "
        "go on there",
        "node new: the link to it has just been made; both sides compare what they hold",
        "node other: not one that c1 may use, or it has not been decided yet",
    ]
    assert core.explain(1, 12345, 0.0) == []


def test_explain_says_that_there_is_no_node_and_where_a_job_is() -> None:
    core = make()
    core.jobs_submitted(1, [1])
    core.place(0.0)
    assert core.explain(1, 1, 0.0)[1:] == ["no node is connected"]
    core = make(("a", 1))
    core.jobs_submitted(1, [1, 2, 3])
    core.place(0.0)
    core.jobs_finished("a", 1, [1], 0.01, 1.0)
    core.place(1.0)
    assert core.explain(1, 2, 3.5) == ["sent to node a 2.5 s ago; as far as known it runs"]
    assert core.explain(1, 3, 3.5) == [
        "sent to node a 2.5 s ago; it waits there behind 1 jobs of c1"
    ]
    assert core.cancel(1, 3) == [CancelOnNode("a", 1, 3)]


def test_jobs_that_never_ran_say_nothing_of_durations() -> None:
    core = make(("a", 1))
    core.jobs_submitted(1, range(100))
    core.place(0.0)
    core.jobs_finished("a", 1, [0], None, 0.0)
    core.place(0.0)
    assert core.clusters[1].duration is None
    assert there(core, "a") == [1]


def test_a_node_with_an_idle_slot_is_not_asked_for_jobs_back() -> None:
    core = make(("a", 2))
    core.jobs_submitted(1, range(6))
    core.place(0.0)
    core.jobs_finished("a", 1, [0], 1e-5, 0.0)
    core.place(0.0)
    assert len(core.nodes["a"].allocations[1].jobs) == 5, "nothing was sent ahead"
    core.jobs_finished("a", 1, [1, 2, 3, 4], 1e-5, 0.1)
    assert core.time_passed(10.0) == []
