"""A node's decisions: which owner gets which processor, which worker runs what.

A deterministic state machine. Each method is one event: it changes the state and returns what
the node carries out, in order. Nothing here waits, sends, or reads a clock; `now` is in seconds of
any clock that never goes back. No event costs more than O(log computations) beyond the jobs that it
names. Not thread-safe: one greenlet owns it.

Wide jobs do not starve: when the one whose turn it is needs more slots than are free, the node is
reserved for its computation, until it fits: at most as many ends of jobs as there are slots.

Invariant: a job that this node holds is blocked, waiting, or with exactly one worker.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import count

from dispy.execution import holding
from dispy.execution.dealing import Dealing
from dispy.execution.invariants import check_invariants
from dispy.execution.packets import packet_size, take_alike, take_waiting
from dispy.execution.records import (
    NO_LIMIT,
    Action,
    Computation,
    Feed,
    JobNumber,
    Key,
    Owner,
    OwnerId,
    Report,
    StartWorker,
    Stop,
    Worker,
    WorkerId,
)
from dispy.execution.shares import Shares


class Execution:
    """Computations, their workers, and the slots that they share."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.busy = 0  # slots that workers with jobs fill
        self.lost = 0  # slots for which no worker could be started of late
        self.held_back = False  # nothing is given to any worker
        self.owners: dict[OwnerId, Owner] = {}
        self.computations: dict[Key, Computation] = {}
        self.workers: dict[WorkerId, Worker] = {}
        self._dealing = Dealing()
        self._shares = Shares(slots)
        self._worker_ids = count(1)
        self._turn = 0

    @property
    def reserved(self) -> Computation | None:
        """The computation whose next job all free slots are kept for."""
        return self._dealing.reserved

    # -- computations and jobs

    def computation_opened(self, key: Key, width: int = 1) -> None:
        """Take in a computation whose nursery is being started; each job fills `width` slots."""
        assert key not in self.computations, "the node refuses a second one of this name"
        owner = self.owners.setdefault(key[0], Owner(key[0]))
        self.computations[key] = owner.computations[key] = Computation(key, owner, width)

    def computation_ready(self, key: Key) -> list[Action]:
        """Let its jobs run: the nursery has loaded it."""
        if (computation := self.computations.get(key)) is None:
            return []  # closed while it was loading
        computation.ready = True
        self._dealing.wants_changed(computation)
        return self._fill()

    def computation_limited(self, key: Key, workers: int) -> list[Action]:
        """Let its jobs fill at most `workers` slots from now on; what runs goes on."""
        if (computation := self.computations.get(key)) is None:
            return []  # it was refused, or closed
        computation.limit = max(0, workers)
        self._dealing.wants_changed(computation)
        return self._fill()

    def computation_bounded(self, key: Key, alone: bool, jobs_per_worker: int = NO_LIMIT) -> None:
        """Give its workers one job at a time from now on; replace each after so many."""
        bounded = self.computations[key]
        bounded.alone |= alone
        bounded.jobs_per_worker = max(1, min(bounded.jobs_per_worker, jobs_per_worker))

    def computation_unready(self, key: Key) -> None:
        """Hold its jobs back until it is ready again: its nursery was lost."""
        computation = self.computations[key]
        computation.ready = False
        self._dealing.wants_changed(computation)

    def computation_closed(self, key: Key) -> list[Action]:
        """Forget a computation; its workers are stopped and nobody wants their results."""
        if (computation := self.computations.pop(key, None)) is None:
            return []  # its owner closed it and then went away
        owner = computation.owner
        computation.ready = False
        self._dealing.wants_changed(computation)
        del owner.computations[key]
        owner.jobs -= len(computation.jobs)
        owner.busy -= computation.busy
        self.busy -= computation.busy
        stops: list[Action] = [Stop(worker, cancelled=False) for worker in computation.workers]
        for worker_id in computation.workers:
            del self.workers[worker_id]
        self._dealing.owner_changed(owner)
        if not owner.computations and not owner.active:
            del self.owners[owner.owner_id]
        return stops + self._fill()

    def computation_failed(self, key: Key, reason: str) -> tuple[list[JobNumber], list[Action]]:
        """Close a computation whose nursery has ended; return the jobs that were not begun.

        Those that workers ran are reported, because they must not run again.
        """
        if (computation := self.computations.get(key)) is None:
            return [], []
        ran = tuple(holding.begun(computation))
        given = [job for job in computation.jobs if job not in ran]
        actions: list[Action] = [Report(key, ran, False, reason, died=True)] if ran else []
        return given, actions + self.computation_closed(key)

    def jobs_received(
        self,
        key: Key,
        jobs: Sequence[JobNumber],
        now: float,
        blocked: Collection[JobNumber] = (),
        widths: Mapping[JobNumber, int] = holding.NONE_DIFFERS,
    ) -> list[Action]:
        """Queue jobs from their owner and start what can be started; those here already stay.

        widths: slots that a job fills, for those that differ from their computation in it.
        The `blocked` ones are held until `jobs_unblocked`: what they need is not here yet.
        """
        computation = self.computations[key]
        holding.take_in(computation, jobs, blocked, widths)
        actions = self._shares.note_active(computation.owner, now)
        if self._dealing.is_wanted or computation.width > 1 or computation.widths:
            self._dealing.wants_changed(computation)
            return actions + self._fill()
        # Nobody else wants anything: no turns to keep.
        while computation.wants and self._free > 0:
            self._start(computation, actions)
        self._dealing.wants_changed(computation)
        return actions

    def jobs_unblocked(self, key: Key, jobs: Sequence[JobNumber]) -> list[Action]:
        """Let blocked jobs wait for a worker: what they need is here. Others are passed over."""
        if (computation := self.computations.get(key)) is None:
            return []  # it was closed meanwhile
        holding.unblock(computation, jobs)
        self._dealing.wants_changed(computation)
        return self._fill()

    def jobs_recalled(self, key: Key, jobs: Sequence[JobNumber]) -> list[JobNumber]:
        """Give back those of `jobs` that no worker has; the owner moves them elsewhere."""
        if (computation := self.computations.get(key)) is None:
            return []
        given = holding.not_begun(computation, jobs)
        holding.drop_not_begun(computation, given)
        self._dealing.wants_changed(computation)
        return given

    def cancel(self, key: Key, job: JobNumber) -> list[Action]:
        """Cancel one job: at once when it waits, by stopping its worker when that runs it."""
        computation = self.computations.get(key)
        if computation is None or job not in computation.jobs:
            return []  # its result crossed the cancel
        worker = computation.jobs[job]
        if worker is not None:
            return [Stop(worker.worker_id, cancelled=True)]
        holding.drop_not_begun(computation, [job])
        self._dealing.wants_changed(computation)
        return [Report(key, (job,), cancelled=True, reason="cancelled before its start")]

    def jobs_dropped(
        self, owner_id: OwnerId, jobs: Sequence[JobNumber]
    ) -> tuple[list[tuple[Key, JobNumber]], list[Action]]:
        """Forget jobs that run elsewhere now, or are final; return those that are gone.

        No report: the owner may send one of them here anew, and would take it for the end of that.
        What a worker has among others goes on, its result is ignored.
        """
        owner = self.owners.get(owner_id)
        gone: list[tuple[Key, JobNumber]] = []
        actions: list[Action] = []
        for computation in list(owner.computations.values()) if owner is not None else ():
            for job in (job for job in jobs if job in computation.jobs):
                worker = computation.jobs[job]
                if worker is not None and len(worker.jobs) > 1:
                    continue
                gone.append((computation.key, job))
                if worker is not None:
                    holding.drop(computation, [job])
                    worker.jobs.clear()
                    self._leave(worker, was_busy=True)
                    actions.append(Stop(worker.worker_id, cancelled=False))
                else:
                    holding.drop_not_begun(computation, [job])
                    self._dealing.wants_changed(computation)
        return gone, actions + self._fill()

    def owner_connected(self, owner_id: OwnerId) -> None:
        """Tell an owner with a new link anew what it may have missed."""
        if (owner := self.owners.get(owner_id)) is not None:
            owner.crowded, owner.starved_since = False, None

    def held(self, owner_id: OwnerId) -> dict[Key, list[JobNumber]]:
        """Return all jobs of an owner that have no result yet: what a reconnection compares."""
        owner = self.owners.get(owner_id)
        return {} if owner is None else {k: list(c.jobs) for k, c in owner.computations.items()}

    def not_begun(self, key: Key) -> list[JobNumber]:
        """Return the jobs of a computation that no worker has."""
        computation = self.computations[key]
        return holding.not_begun(computation, computation.jobs)

    def running(self, key: Key) -> list[JobNumber]:
        """Return the jobs of a computation that its workers run now, as far as known."""
        computation = self.computations.get(key)
        return [] if computation is None else holding.begun(computation)

    # -- workers

    def jobs_done(
        self, worker_id: WorkerId, jobs: Sequence[JobNumber], seconds: float, now: float
    ) -> list[Action]:
        """Take a packet's results, `seconds` long on average, and feed the worker again."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return []  # stopped while its last results were on the way
        computation = worker.computation
        fed, forget = worker.jobs, computation.jobs.__delitem__
        for job in jobs:
            expected = fed.popleft()
            assert job == expected, "a worker reports in order"
            forget(job)
        holding.forget_widths(computation, jobs)
        computation.owner.jobs -= len(jobs)
        computation.note_duration(seconds)
        actions = self._shares.note_active(computation.owner, now)
        if not fed:
            actions += self._rest(worker)
        elif computation.busy <= computation.limit and not self._dealing.is_somebody_short(
            computation
        ):
            actions += self._feed(worker)
        return actions + self._fill() if self._dealing.is_wanted else actions

    def jobs_given_back(self, worker_id: WorkerId, jobs: Sequence[JobNumber]) -> list[Action]:
        """Take back jobs that a poked worker had not begun; they go to the head."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return []
        mine = holding.take_back(worker, jobs)
        self._dealing.wants_changed(worker.computation)
        actions = self._rest(worker) if mine and not worker.jobs else []
        return actions + self._fill()

    def worker_died(
        self,
        worker_id: WorkerId,
        done: int,
        began: bool,
        reason: str,
        cancelled: bool,
        limited: bool = False,
    ) -> list[Action]:
        """Take out a dead worker: its first `done` jobs left their results; then end the one
        that it had begun, if any; the others wait again. `limited`: it was killed by a limit."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return []  # its computation was closed
        actions: list[Action] = []
        if worker.jobs:
            ended = [worker.jobs.popleft() for _ in range(done + began)]
            holding.drop(worker.computation, ended)
            if began:
                actions.append(Report(
                        worker.key, (ended[-1],), cancelled, reason,
                        died=not (cancelled or limited),
                    )
                )  # fmt: skip
            self._leave(worker, was_busy=True)
        else:
            self._leave(worker, was_busy=False)
        return actions + self._fill()

    def worker_retired(self, worker_id: WorkerId) -> list[Action]:
        """Take out a worker that runs nothing more; all it has was not begun and waits again."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return []
        self._leave(worker, was_busy=bool(worker.jobs))
        return self._fill()

    def slot_lost(self, worker_id: WorkerId) -> list[Action]:
        """Take out a worker that could not be started; its slot stays empty until `slots_back`."""
        if worker_id not in self.workers:
            return []  # its computation was closed
        self.lost += 1
        return self.make_room() + self.worker_retired(worker_id)

    def make_room(self) -> list[Action]:
        """End workers without jobs, as something else needs what they hold of the system."""
        idle = holding.idle_workers(self.computations.values())
        for worker in idle:
            self._leave(worker, was_busy=False)
        return [Stop(worker.worker_id, cancelled=False) for worker in idle]

    def slots_back(self) -> list[Action]:
        """Try again to start workers."""
        self.lost = 0
        return self._fill()

    def hold_back(self) -> None:
        """Give nothing to any worker until `go_on`; what they have goes on."""
        self.held_back = True

    def go_on(self) -> list[Action]:
        """Take `hold_back` back."""
        self.held_back = False
        return self._fill()

    def owner_held_back(self, owner_id: OwnerId, held: bool) -> list[Action]:
        """Give nothing to workers of one owner, or again; what they have goes on."""
        if (owner := self.owners.get(owner_id)) is not None:
            self._dealing.hold_back(owner, held)
        return self._fill()

    # -- shares

    def share_of(self, owner_id: OwnerId) -> int:
        """Return how many slots are this owner's now, or would be if it had jobs."""
        return self._shares.share_of(owner_id)

    @property
    def active_owners(self) -> int:
        """How many owners count when slots are shared."""
        return len(self._shares.active)

    def time_passed(self, now: float) -> list[Action]:
        """Call a few times a second: owners that went quiet give up their share, and those
        whose jobs wait for others' are told."""
        quiet, actions = self._shares.time_passed(self.owners.values(), now)
        for owner in quiet:
            if not owner.computations:
                del self.owners[owner.owner_id]
        return actions + self._fill() if self.reserved is not None else actions  # it may be over

    # -- decisions

    @property
    def _free(self) -> int:
        return 0 if self.held_back else self.slots - self.busy - self.lost

    def _fill(self) -> list[Action]:
        """Give free slots to computations with waiting jobs, the least served owner first."""
        actions: list[Action] = []
        deal = self._dealing
        while (free := self._free) > 0:
            computation = deal.next(free, self.slots)
            if computation is None:
                break
            self._start(computation, actions)
            self._dealing.wants_changed(computation)
        return actions

    def _start(self, computation: Computation, actions: list[Action]) -> None:
        """Give a free slot to a computation with waiting jobs."""
        if computation.idle:
            worker = computation.idle.popitem()[1]
        else:
            worker = self._hire(computation, actions)
        self._turn += 1
        computation.owner.served = computation.served = self._turn
        worker.width = min(computation.head_width, self.slots)
        self._add_busy(computation, worker.width)
        actions += self._feed(worker)

    def _hire(self, computation: Computation, actions: list[Action]) -> Worker:
        worker = Worker(next(self._worker_ids), computation)
        self.workers[worker.worker_id] = computation.workers[worker.worker_id] = worker
        actions.append(StartWorker(computation.key, worker.worker_id))
        return worker

    def _feed(self, worker: Worker) -> list[Action]:
        """Send a worker its next packet; a single job while durations are unknown."""
        computation = worker.computation
        waits, left = computation.waiting_count, computation.jobs_per_worker - worker.given
        size = packet_size(worker, left, self.slots)
        if size <= 0 or self.held_back or computation.owner.held_back:
            return []
        if computation.widths:
            jobs = take_alike(computation, worker, size, self.slots)
            self._dealing.wants_changed(computation)
        else:
            jobs = take_waiting(computation, size)
            computation.jobs.update(dict.fromkeys(jobs, worker))
        if not jobs:
            return []  # the next one fills another number of slots
        worker.jobs.extend(jobs)
        worker.given += len(jobs)
        if len(jobs) == waits and self._dealing.is_wanted:
            self._dealing.wants_changed(computation)
        actions: list[Action] = [Feed(worker.worker_id, tuple(jobs))]
        if len(jobs) == left and waits > left and not computation.idle:
            # Its successor is forked while it runs its last jobs.
            successor = self._hire(computation, actions)
            computation.idle[successor.worker_id] = successor
        return actions

    # -- counts

    def _add_busy(self, computation: Computation, change: int) -> None:
        computation.busy += change
        computation.owner.busy += change
        self.busy += change

    def _rest(self, worker: Worker) -> list[Action]:
        """Take note that a worker has no job any more; one that may have no other is ended."""
        if worker.is_spent:
            self._leave(worker, was_busy=True)
            return [Stop(worker.worker_id, cancelled=False)]
        worker.computation.idle[worker.worker_id] = worker
        self._add_busy(worker.computation, -worker.width)
        if self._dealing.is_wanted or worker.computation.waiting_count:
            self._dealing.wants_changed(worker.computation)
        return []

    def _leave(self, worker: Worker, was_busy: bool) -> None:
        """Take out a worker; the jobs that it still has wait again."""
        computation = worker.computation
        del self.workers[worker.worker_id], computation.workers[worker.worker_id]
        computation.idle.pop(worker.worker_id, None)
        holding.wait_again(computation, worker.jobs)
        if was_busy:
            self._add_busy(computation, -worker.width)
        self._dealing.wants_changed(computation)

    # -- for tests

    def check_invariants(self) -> None:
        """Raise AssertionError where the state contradicts itself; tests call it after events."""
        check_invariants(self)
