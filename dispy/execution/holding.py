"""The jobs that a computation holds on its node, and which of them wait for a worker.

A part of the execution core, and as pure. A job that no worker has is blocked, or it waits;
`Computation.waiting` is not searched for what is taken back, it is passed over later. Who calls
these has the computation's place in the turns brought up to date then.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from dispy.execution.records import Computation, JobNumber, Worker

NONE_DIFFERS: Mapping[JobNumber, int] = {}


def take_in(
    computation: Computation,
    jobs: Sequence[JobNumber],
    blocked: Collection[JobNumber],
    widths: Mapping[JobNumber, int],
) -> None:
    """Hold new jobs behind the others; those that are held already stay where they are."""
    held, new = computation.jobs, dict[JobNumber, Worker | None].fromkeys(jobs)
    if not held.keys().isdisjoint(new):
        new = {job: None for job in new if job not in held}
    held.update(new)
    computation.owner.jobs += len(new)
    if widths:
        usual = computation.width
        computation.widths.update({j: w for j, w in widths.items() if j in new and w != usual})
    if blocked:
        computation.blocked.update(job for job in blocked if job in new)
        new = {job: None for job in new if job not in computation.blocked}
    computation.waiting.extend(new)
    computation.waiting_count += len(new)


def unblock(computation: Computation, jobs: Iterable[JobNumber]) -> None:
    """Let blocked jobs wait; others are passed over."""
    free = [job for job in dict.fromkeys(jobs) if job in computation.blocked]
    computation.blocked.difference_update(free)
    computation.waiting.extend(free)
    computation.waiting_count += len(free)


def wait_again(computation: Computation, jobs: Iterable[JobNumber]) -> None:
    """Let jobs wait at the head that a worker had and did not begin."""
    jobs = list(jobs)
    computation.jobs.update(dict.fromkeys(jobs))
    computation.waiting.extendleft(reversed(jobs))
    computation.waiting_count += len(jobs)


def take_back(worker: Worker, jobs: Iterable[JobNumber]) -> list[JobNumber]:
    """Take from a worker those of `jobs` that it was fed; they wait at the head again."""
    back = set(jobs)
    mine = [job for job in worker.jobs if job in back]
    worker.jobs = type(worker.jobs)(job for job in worker.jobs if job not in back)
    worker.given -= len(mine)
    wait_again(worker.computation, mine)
    return mine


def begun(computation: Computation) -> list[JobNumber]:
    """Return the jobs that its workers run now, as far as known."""
    return [worker.jobs[0] for worker in computation.workers.values() if worker.jobs]


def not_begun(computation: Computation, jobs: Iterable[JobNumber]) -> list[JobNumber]:
    """Return those of `jobs` that are held and that no worker has."""
    missing = computation  # anything that is neither None nor a worker
    held = computation.jobs
    return [job for job in dict.fromkeys(jobs) if held.get(job, missing) is None]


def drop(computation: Computation, jobs: Sequence[JobNumber]) -> None:
    """Hold these jobs no longer, which workers had."""
    for job in jobs:
        del computation.jobs[job]
    forget_widths(computation, jobs)
    computation.owner.jobs -= len(jobs)


def forget_widths(computation: Computation, jobs: Iterable[JobNumber]) -> None:
    """Drop what is noted of how many slots these jobs fill."""
    if computation.widths:
        for job in jobs:
            computation.widths.pop(job, None)


def idle_workers(computations: Iterable[Computation]) -> list[Worker]:
    """Return the workers that have no job, of computations that have none for them."""
    return [w for c in computations if not c.waiting_count for w in c.idle.values()]


def drop_not_begun(computation: Computation, jobs: Sequence[JobNumber]) -> None:
    """Hold these jobs no longer, which no worker has."""
    drop(computation, jobs)
    waited = len(jobs)
    if computation.blocked:
        waited -= len(computation.blocked.intersection(jobs))
        computation.blocked.difference_update(jobs)
    computation.waiting_count -= waited
