"""Any order of events keeps the node's promises."""

import random
import sys

from dispy.execution.core import Execution
from dispy.execution.ledger import Ledger
from dispy.execution.records import (
    Feed,
    Report,
    StartWorker,
    Stop,
    TellCrowded,
    TellShare,
)
from dispy.execution.shares import ACTIVE_SECONDS, CROWDED_SECONDS


def test_any_order_of_events_keeps_the_promises() -> None:
    reservations = 0
    for seed in range(80):
        chance = random.Random(seed)
        core, now, given, final = Execution(chance.randint(1, 4)), 0.0, {}, set()
        gone = set()  # given back, or dropped because nobody wants them
        keys = [(owner, number) for owner in "abc" for number in (1, 2)]
        wide = seed % 2 == 1

        def open_one(key, core=core, chance=chance, wide=wide) -> None:
            core.computation_opened(key, width=1 + wide * (key[1] - 1))
            core.computation_bounded(
                key, chance.random() < 0.2, chance.choice((1, 3, 100, 1 << 30))
            )

        for key in keys:
            open_one(key)
            given[key] = []

        def take(actions, final=final) -> None:
            for action in actions:
                if isinstance(action, Report):
                    for job in action.jobs:
                        assert (action.key, job) not in final, "a job is final twice"
                        final.add((action.key, job))

        for _ in range(150):
            now += chance.random()
            key = chance.choice(keys)
            busy = [w for w in core.workers.values() if w.jobs]
            match chance.randrange(11):
                case 10:
                    if core.held_back:
                        take(core.go_on())
                    else:
                        core.hold_back()
                case 0 | 1:
                    jobs = range(len(given[key]), len(given[key]) + chance.choice((1, 7, 90)))
                    given[key].extend(jobs)
                    lacking = [job for job in jobs if chance.random() < 0.2]
                    widths = {job: chance.randint(1, 5) for job in jobs} if wide else {}
                    take(core.jobs_received(key, jobs, now, lacking, widths))
                case 2 if chance.random() < 0.7:
                    lacking = sorted(core.computations[key].blocked)
                    some = chance.sample(lacking, chance.randint(0, len(lacking)))
                    take(core.jobs_unblocked(key, [*some, *given[key][-2:]]))
                case 2:
                    take(core.computation_ready(key))
                case 3 | 4 | 5 if busy:
                    worker = chance.choice(busy)
                    done = list(worker.jobs)[: chance.randint(1, len(worker.jobs))]
                    final.update((worker.key, job) for job in done)
                    seconds = chance.choice((1e-6, 1e-4, 1.0))
                    take(core.jobs_done(worker.worker_id, done, seconds, now))
                case 6 if busy:
                    worker = chance.choice(busy)
                    if chance.random() < 0.5:
                        done = list(worker.jobs)[: chance.randint(0, len(worker.jobs))]
                        final.update((worker.key, job) for job in done)
                        began = len(done) < len(worker.jobs) and chance.random() < 0.5
                        take(core.worker_died(worker.worker_id, len(done), began, "killed", False))
                    elif chance.random() < 0.5:
                        take(core.slot_lost(worker.worker_id))
                    else:
                        take(core.jobs_given_back(worker.worker_id, list(worker.jobs)[1:]))
                case 7:
                    take(core.time_passed(now))
                    if chance.random() < 0.5:
                        take(core.slots_back())
                    elif chance.random() < 0.1:
                        take(core.make_room())
                    if core.reserved is not None and not core.held_back:
                        width, free = core.reserved.head_width, core.slots - core.busy - core.lost
                        assert min(width, core.slots) > free, "a wide job that fits waits"
                    if given[key]:
                        take(core.cancel(key, chance.choice(given[key])))
                case 8:
                    take(core.computation_limited(key, chance.randint(0, 3)))
                    asked = given[key][-5:]
                    gone.update((key, job) for job in core.jobs_recalled(key, asked))
                case 9 if chance.random() < 0.3:
                    back, actions = core.computation_failed(key, "its nursery ended")
                    take(actions)
                    gone.update((key, job) for job in back)
                    if key not in core.computations:
                        open_one(key)
                case 9 if given[key]:
                    numbers = chance.sample(given[key], min(3, len(given[key])))
                    # Numbers of one owner: a job of its other computation may have the same.
                    dropped, actions = core.jobs_dropped(key[0], numbers)
                    take(actions)
                    gone.update(dropped)
            core.check_invariants()
            reservations += core.reserved is not None
            for worker in core.workers.values():
                computation = worker.computation
                assert computation is core.computations[worker.key]
            held = [
                (key, job)
                for owner in "abc"
                for key, jobs in core.held(owner).items()
                for job in jobs
            ]
            everything = [(key, job) for key, jobs in given.items() for job in jobs]
            assert sorted([*held, *final, *gone]) == sorted(everything), "a job is lost"
    assert reservations > 50, "nothing had to be collected: the test has lost its meaning"


def test_a_wide_job_begins_after_at_most_as_many_ends_as_there_are_slots() -> None:
    core = two_owners(slots=4)
    core.jobs_received(("b", 1), range(100), 0.0)
    core.jobs_received(("a", 1), [0, 1], 0.0, widths={0: 4})
    ends = 0
    while core.computations["a", 1].busy == 0:
        worker = next(w for w in core.workers.values() if w.jobs)
        core.jobs_done(worker.worker_id, list(worker.jobs), 1.0, 0.0)
        ends += 1
        core.check_invariants()
    assert ends == 4
    assert (core.busy, core.computations["a", 1].busy) == (4, 4)
    (worker,) = [w for w in core.workers.values() if w.jobs]
    core.jobs_done(worker.worker_id, [0], 1.0, 0.0)
    assert core.owners["b"].busy == 3, "the narrow ones are not held back any more"
    assert core.owners["a"].busy == 1


def test_two_wide_jobs_never_hold_half_of_the_node_each() -> None:
    core = two_owners(slots=4)
    order = ""
    core.jobs_received(("a", 1), range(10), 0.0, widths=dict.fromkeys(range(10), 3))
    core.jobs_received(("b", 1), range(10), 0.0, widths=dict.fromkeys(range(10), 4))
    for _ in range(20):
        (worker,) = [w for w in core.workers.values() if w.jobs]
        order += worker.key[0]
        core.jobs_done(worker.worker_id, list(worker.jobs), 1.0, 0.0)
    assert order.count("a") == order.count("b") == 10
    assert "ab" * 8 in order, "they take turns"


def test_a_wide_job_that_is_taken_back_frees_the_slots_that_were_kept_for_it() -> None:
    core = two_owners(slots=2)
    core.jobs_received(("b", 1), range(9), 0.0)
    core.jobs_received(("a", 1), [0], 0.0, widths={0: 2})
    worker = next(iter(core.workers.values()))
    core.jobs_done(worker.worker_id, list(worker.jobs), 1.0, 0.0)
    assert core.busy == 1
    assert core.jobs_recalled(("a", 1), [0]) == [0]
    core.time_passed(0.1)
    assert core.busy == 2


def test_a_job_wider_than_its_limit_or_its_node_runs_alone() -> None:
    core = two_owners(slots=4)
    core.computation_limited(("a", 1), 2)
    core.jobs_received(("a", 1), [0, 1], 0.0, widths={0: 9, 1: 3})
    assert core.busy == 4
    core.jobs_done(1, [0], 1.0, 0.0)
    assert core.busy == 3
    core.check_invariants()


def two_owners(slots: int) -> Execution:
    core = Execution(slots)
    for owner in "ab":
        core.computation_opened((owner, 1))
        core.computation_ready((owner, 1))
    return core


def test_two_owners_take_turns_on_one_processor() -> None:
    core, runs = two_owners(slots=1), ""
    core.jobs_received(("a", 1), range(50), 0.0)
    core.jobs_received(("b", 1), range(50), 0.0)
    for _ in range(20):
        (worker,) = [w for w in core.workers.values() if w.jobs]
        runs += worker.key[0]
        core.jobs_done(worker.worker_id, list(worker.jobs), 1.0, 0.0)
    assert runs.count("a") == runs.count("b") == 10


def test_owners_learn_their_share_and_get_it_back() -> None:
    core = two_owners(slots=4)
    assert TellShare("a", 4) in core.jobs_received(("a", 1), [0], 0.0)
    told = core.jobs_received(("b", 1), [0], 0.0)
    assert {TellShare("a", 2), TellShare("b", 2)} <= set(told)
    for worker in list(core.workers.values()):
        if worker.key[0] == "b":
            core.jobs_done(worker.worker_id, [0], 1.0, 0.0)
    assert core.time_passed(ACTIVE_SECONDS / 2) == []
    assert core.time_passed(ACTIVE_SECONDS * 2) == [TellShare("a", 4)]


def test_a_dead_worker_takes_only_the_job_it_ran() -> None:
    core = two_owners(slots=1)
    core.jobs_received(("a", 1), [0], 0.0)
    core.jobs_done(1, [0], 1e-6, 0.0)
    core.jobs_received(("a", 1), range(1, 50), 0.0)
    ended = core.worker_died(1, 0, True, "killed by SIGKILL", cancelled=False)
    assert ended[0] == Report(("a", 1), (1,), False, "killed by SIGKILL", died=True)
    assert isinstance(ended[1], StartWorker)
    assert isinstance(ended[2], Feed)
    assert ended[2].jobs[0] == 2


def test_a_computation_keeps_to_its_limit() -> None:
    core = two_owners(slots=4)
    core.computation_limited(("a", 1), 1)
    core.jobs_received(("a", 1), range(9), 0.0)
    assert [worker.key[0] for worker in core.workers.values()] == ["a"]
    core.jobs_received(("b", 1), range(9), 0.0)
    assert core.busy == 4
    core.computation_limited(("b", 1), 0)
    for worker in [w for w in core.workers.values() if w.key[0] == "b"]:
        core.jobs_done(worker.worker_id, list(worker.jobs), 1.0, 0.0)
    assert core.busy == 1, "a limit of nothing lets nothing new begin"


def test_a_repeated_batch_runs_once() -> None:
    core = two_owners(slots=1)
    core.jobs_received(("a", 1), [1, 2, 2, 3], 0.0)
    core.jobs_received(("a", 1), [1, 2, 4], 0.0)
    assert core.held("a") == {("a", 1): [1, 2, 3, 4]}
    core.check_invariants()


def test_a_dropped_job_is_not_reported_and_can_come_again() -> None:
    core = two_owners(slots=1)
    core.jobs_received(("a", 1), [1, 2], 0.0)
    gone, actions = core.jobs_dropped("a", [1, 2, 99])
    assert gone == [(("a", 1), 1), (("a", 1), 2)]
    assert not [action for action in actions if isinstance(action, Report)]
    core.jobs_received(("a", 1), [1], 0.0)
    assert core.held("a") == {("a", 1): [1]}


def test_a_worker_gets_its_successor_before_its_last_jobs_are_done() -> None:
    core = two_owners(slots=1)
    core.computation_bounded(("a", 1), alone=False, jobs_per_worker=3)
    core.jobs_received(("a", 1), range(9), 0.0)
    told = core.jobs_done(1, [0], 1e-6, 0.0)
    assert told == [Feed(1, (1, 2)), StartWorker(("a", 1), 2)]
    assert core.jobs_done(1, [1], 1e-6, 0.0) == []
    assert core.jobs_done(1, [2], 1e-6, 0.0) == [
        Stop(1, cancelled=False), Feed(2, (3, 4, 5)), StartWorker(("a", 1), 3),
    ]  # fmt: skip
    core.check_invariants()


def test_a_worker_whose_jobs_are_watched_gets_them_one_by_one() -> None:
    core = two_owners(slots=1)
    core.jobs_received(("a", 1), range(9), 0.0)
    core.computation_bounded(("a", 1), alone=True)
    assert core.jobs_done(1, [0], 1e-6, 0.0) == [Feed(1, (1,))]
    assert core.jobs_done(1, [1], 1e-6, 0.0) == [Feed(1, (2,))]


def test_a_node_that_is_held_back_begins_nothing_and_then_all() -> None:
    core = two_owners(slots=2)
    core.jobs_received(("a", 1), range(1), 0.0)
    core.hold_back()
    core.jobs_received(("a", 1), range(1, 5), 0.0)
    assert core.jobs_done(1, [0], 1e-6, 0.0) == []
    core.check_invariants()
    fed = [action for action in core.go_on() if isinstance(action, Feed)]
    assert [feed.jobs[0] for feed in fed] == [1, 3]
    core.check_invariants()


def test_cancel_recall_and_results_cost_the_same_however_much_waits() -> None:
    core = two_owners(slots=1)
    core.jobs_received(("a", 1), range(100_000), 0.0)
    assert core.cancel(("a", 1), 99_999)
    steps = []
    tracer = sys.gettrace()
    sys.settrace(lambda *_: steps.append(1) or (lambda *_: steps.append(1)))
    try:
        core.cancel(("a", 1), 50_000)
        core.jobs_recalled(("a", 1), [70_000, 70_001])
        core.jobs_done(1, [0], 1.0, 0.0)
    finally:
        sys.settrace(tracer)
    assert len(steps) < 1000
    core.check_invariants()


def test_a_ledger_gives_again_what_was_not_acknowledged() -> None:
    ledger: Ledger[str] = Ledger()
    for batch in "abc":
        ledger.owe(ledger.next_number(), batch)
    ledger.acknowledged(1)
    assert list(ledger.owed()) == ["b", "c"]
    ledger.acknowledged(1)  # the same again, as after a broken link
    ledger.acknowledged(99)
    assert list(ledger.owed()) == []
    assert ledger.next_number() == 4


def test_an_owner_whose_jobs_wait_for_anothers_is_told_whose_and_when_that_is_over() -> None:
    core = two_owners(slots=1)
    core.jobs_received(("a", 1), [0], 0.0)
    core.jobs_received(("b", 1), [0], 0.0)
    core.time_passed(0.1)
    assert core.time_passed(0.2) == [], "it is told before a second has passed"
    assert core.time_passed(0.1 + CROWDED_SECONDS) == [TellCrowded("b", (("a", 1),))]
    assert core.time_passed(0.2 + CROWDED_SECONDS) == [], "it is told once"
    (worker,) = core.workers.values()
    core.jobs_done(worker.worker_id, [0], 1.0, 2.0)
    assert TellCrowded("b", ()) in core.time_passed(2.0)


def test_a_blocked_job_takes_no_slot_until_it_has_what_it_needs() -> None:
    core = two_owners(slots=1)
    core.jobs_received(("a", 1), [0, 1], 0.0, blocked=[0])
    (worker,) = core.workers.values()
    assert list(worker.jobs) == [1]
    core.jobs_done(worker.worker_id, [1], 1.0, 0.0)
    assert not worker.jobs
    assert core.jobs_unblocked(("a", 1), [0, 7]) == [Feed(worker.worker_id, (0,))]
    assert core.jobs_unblocked(("a", 1), [0]) == []
    core.check_invariants()


def test_a_blocked_job_is_held_and_can_be_cancelled_recalled_and_dropped() -> None:
    core, key = two_owners(slots=1), ("a", 1)
    core.jobs_received(key, [0, 1, 2, 3], 0.0, blocked=[0, 1, 2, 3])
    assert core.held("a")[key] == [0, 1, 2, 3]
    (report,) = core.cancel(key, 0)
    assert (report.jobs, report.cancelled) == ((0,), True)
    assert core.jobs_recalled(key, [1]) == [1]
    assert core.jobs_dropped("a", [2]) == ([(key, 2)], [])
    core.check_invariants()
    assert core.held("a")[key] == [3]
    assert core.jobs_unblocked(key, [0, 1, 2]) == []


def test_a_job_that_comes_again_and_is_blocked_now_is_not_run_by_its_old_place() -> None:
    core, key = two_owners(slots=1), ("a", 1)
    core.jobs_received(key, [0, 1, 2], 0.0)
    core.jobs_recalled(key, [1])
    core.jobs_received(key, [1], 0.0, blocked=[1])
    for job in (0, 2):
        (worker,) = core.workers.values()
        assert list(worker.jobs) == [job]
        core.jobs_done(worker.worker_id, [job], 1.0, 0.0)
        core.check_invariants()
    assert not core.workers[1].jobs


def test_a_computation_that_fails_gives_its_blocked_jobs_back() -> None:
    core, key = two_owners(slots=1), ("a", 1)
    core.jobs_received(key, [0, 1], 0.0, blocked=[1])
    given, actions = core.computation_failed(key, "its nursery ended")
    assert given == [1]
    assert actions[0].jobs == (0,)


def test_a_worker_that_cannot_be_started_loses_no_job_and_makes_room() -> None:
    core = two_owners(slots=2)
    core.jobs_received(("a", 1), [0], 0.0)
    (idle,) = core.workers
    core.jobs_done(idle, [0], 1.0, 0.0)
    starts = core.jobs_received(("b", 1), range(2), 0.0)
    lost = [action.worker_id for action in starts if isinstance(action, StartWorker)]
    assert len(lost) == 2
    assert Stop(idle, cancelled=False) in core.slot_lost(lost[0])
    assert not [a for a in core.slot_lost(lost[1]) if isinstance(a, StartWorker)]
    assert core.held("b") == {("b", 1): [0, 1]}
    assert core.workers == {}
    fed = [job for action in core.slots_back() if isinstance(action, Feed) for job in action.jobs]
    assert sorted(fed) == [0, 1]
    core.check_invariants()
