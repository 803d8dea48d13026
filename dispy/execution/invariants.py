"""What always holds between two events of a node's core; tests ask after each event."""

from typing import TYPE_CHECKING

from dispy.execution.records import Computation, Owner

if TYPE_CHECKING:
    from dispy.execution.core import Execution


def check_invariants(core: "Execution") -> None:
    """Raise AssertionError where the state contradicts itself; costs O(jobs)."""
    for computation in core.computations.values():
        _check_computation(core, computation)
    for owner in core.owners.values():
        _check_owner(owner)
    assert core.busy == sum(o.busy for o in core.owners.values()), "busy is miscounted"
    assert core.busy <= core.slots, "jobs fill more slots than there are"


def _check_computation(core: "Execution", computation: Computation) -> None:
    unfed = {job for job, worker in computation.jobs.items() if worker is None}
    assert computation.blocked <= unfed, "a blocked job is not held, or with a worker"
    waiting = unfed - computation.blocked
    assert waiting <= set(computation.waiting), "a waiting job has lost its place"
    assert len(waiting) == computation.waiting_count, "waiting jobs are miscounted"
    with_workers = [job for worker in computation.workers.values() for job in worker.jobs]
    assert len(with_workers) == len(set(with_workers)), "a job is with two workers"
    for worker in computation.workers.values():
        assert core.workers[worker.worker_id] is worker
        assert all(computation.jobs[job] is worker for job in worker.jobs)
        assert bool(worker.jobs) != (worker.worker_id in computation.idle)
    assert len(unfed) + len(with_workers) == len(computation.jobs), "a job is in two places"
    busy = sum(worker.width for worker in computation.workers.values() if worker.jobs)
    assert busy == computation.busy, "busy is miscounted"
    free = core.busy + core.lost < core.slots and not core.held_back and core.reserved is None
    assert not (computation.wants and free), "a slot idles while jobs wait"
    assert computation.widths.keys() <= computation.jobs.keys(), "a width outlives its job"
    for worker in computation.workers.values():
        assert worker.given <= computation.jobs_per_worker, "a worker has more jobs than it may"
        assert not (worker.is_spent and not worker.jobs), "a worker that is spent was kept"
        widths = {computation.widths.get(job, computation.width) for job in worker.jobs}
        filled = {min(width, core.slots) for width in widths}
        assert filled <= {worker.width}, "slots are miscounted"


def _check_owner(owner: Owner) -> None:
    computations = owner.computations.values()
    assert owner.jobs == sum(len(c.jobs) for c in computations), "an owner's jobs are miscounted"
    assert owner.busy == sum(c.busy for c in computations), "an owner's busy is miscounted"
    wanting = [computation for computation in computations if computation.wants]
    assert owner.turns.wanting == len(wanting), "turns are miscounted"
    first = owner.turns.first()
    assert (first is None) == (not wanting)
    assert first is None or first.busy == min(c.busy for c in wanting), "a turn is passed over"
