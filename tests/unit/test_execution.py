"""Any order of events keeps the node's promises."""

import random

from dispy.execution.core import ACTIVE_SECONDS, Execution
from dispy.execution.records import Feed, Report, StartWorker, TellShare


def test_any_order_of_events_keeps_the_promises() -> None:
    for seed in range(80):
        chance = random.Random(seed)
        core, now, given, final = Execution(chance.randint(1, 4)), 0.0, {}, set()
        keys = [(owner, number) for owner in "abc" for number in (1, 2)]
        for key in keys:
            core.computation_opened(key)
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
            match chance.randrange(8):
                case 0 | 1:
                    jobs = range(len(given[key]), len(given[key]) + chance.choice((1, 7, 90)))
                    given[key].extend(jobs)
                    take(core.jobs_received(key, jobs, now))
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
                        take(core.worker_died(worker.worker_id, "killed", cancelled=False))
                    else:
                        take(core.jobs_given_back(worker.worker_id, list(worker.jobs)[1:]))
                case 7:
                    take(core.time_passed(now))
                    if given[key]:
                        take(core.cancel(key, chance.choice(given[key])))
            core.check_invariants()
            held = [
                (key, job)
                for owner in "abc"
                for key, jobs in core.held(owner).items()
                for job in jobs
            ]
            everything = [(key, job) for key, jobs in given.items() for job in jobs]
            assert sorted([*held, *final]) == sorted(everything), "a job is lost"


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
    ended = core.worker_died(1, "killed by SIGKILL", cancelled=False)
    assert ended[0] == Report(("a", 1), (1,), False, "killed by SIGKILL")
    assert isinstance(ended[1], StartWorker)
    assert isinstance(ended[2], Feed)
    assert ended[2].jobs[0] == 2
