"""A node's decisions: which owner gets which processor, which worker runs what.

A deterministic state machine. Each method is one event: it changes the state and returns what
the node carries out, in order. Nothing here waits, sends, or reads a clock; `now` is in
seconds of any clock that never goes back. Not thread-safe: one greenlet owns it.

Invariant: a job that this node holds is waiting, or with exactly one worker.
"""

from collections.abc import Sequence
from itertools import count

from dispy.execution.records import (
    Action,
    Computation,
    Feed,
    JobNumber,
    Key,
    OwnerId,
    Report,
    StartWorker,
    Stop,
    TellShare,
    Worker,
    WorkerId,
)

PACKET_SECONDS = 0.001  # of work in one packet for a worker, by measured duration
PACKET_JOBS = 256  # however short they are: what one packet may delay
PACKETS_AHEAD = 2  # so that a worker never waits for the node
SHORTEST = 5e-6  # seconds; what a job costs a worker at least
SMOOTHING = 0.2  # weight of the newest packet in the mean duration
ACTIVE_SECONDS = 0.5  # after its last job an owner still counts: shares must not flap


class Execution:
    """Computations, their workers, and the slots that they share."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.computations: dict[Key, Computation] = {}
        self.workers: dict[WorkerId, Worker] = {}
        self._idle: dict[Key, list[WorkerId]] = {}
        self._busy: dict[Key, int] = {}  # workers with jobs
        self._last_active: dict[OwnerId, float] = {}
        self._shares: dict[OwnerId, int] = {}
        self._worker_ids = count(1)
        self._turn = 0

    # -- computations and jobs

    def computation_opened(self, key: Key) -> None:
        """Take in a computation whose nursery is being started."""
        assert key not in self.computations, "the node refuses a second one of this name"
        self.computations[key] = Computation(key)
        self._idle[key] = []
        self._busy[key] = 0

    def computation_ready(self, key: Key) -> list[Action]:
        """Let its jobs run: the nursery has loaded it."""
        if key not in self.computations:
            return []  # closed while it was loading
        self.computations[key].ready = True
        return self._fill()

    def computation_closed(self, key: Key) -> list[Action]:
        """Forget a computation; its workers are stopped and nobody wants their results."""
        if self.computations.pop(key, None) is None:
            return []  # its owner closed it and then went away
        stops: list[Action] = []
        for worker in [w for w in self.workers.values() if w.key == key]:
            del self.workers[worker.worker_id]
            stops.append(Stop(worker.worker_id, cancelled=False))
        del self._idle[key], self._busy[key]
        return stops + self._fill()

    def jobs_received(self, key: Key, jobs: Sequence[JobNumber], now: float) -> list[Action]:
        """Queue jobs from their owner and start what can be started."""
        self.computations[key].waiting.extend(jobs)
        return self._active(key[0], now) + self._fill()

    def jobs_recalled(
        self, key: Key, jobs: Sequence[JobNumber]
    ) -> tuple[list[JobNumber], list[Action]]:
        """Give back those of `jobs` that no worker has; the owner moves them elsewhere."""
        computation = self.computations.get(key)
        if computation is None:
            return [], []
        wanted = set(jobs)
        given = [job for job in computation.waiting if job in wanted]
        computation.waiting = type(computation.waiting)(
            job for job in computation.waiting if job not in wanted
        )
        return given, []

    def cancel(self, key: Key, job: JobNumber) -> list[Action]:
        """Cancel one job: at once when it waits, by stopping its worker when that runs it."""
        computation = self.computations.get(key)
        if computation is None:
            return []
        if job in computation.waiting:
            computation.waiting.remove(job)
            return [Report(key, (job,), cancelled=True, reason="cancelled before its start")]
        for worker in self.workers.values():
            if worker.key == key and job in worker.jobs:
                return [Stop(worker.worker_id, cancelled=True)]
        return []  # its result crossed the cancel

    def held(self, owner: OwnerId) -> dict[Key, list[JobNumber]]:
        """Return all jobs of an owner that have no result yet: what a reconnection compares."""
        held = {key: list(c.waiting) for key, c in self.computations.items() if key[0] == owner}
        for worker in self.workers.values():
            if worker.key in held:
                held[worker.key].extend(worker.jobs)
        return held

    # -- workers

    def jobs_done(
        self, worker_id: WorkerId, jobs: Sequence[JobNumber], seconds: float, now: float
    ) -> list[Action]:
        """Take a packet's results, `seconds` long on average, and feed the worker again."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return []  # stopped while its last results were on the way
        for job in jobs:
            expected = worker.jobs.popleft()
            assert job == expected, "a worker reports in order"
        computation = self.computations[worker.key]
        before = computation.duration
        computation.duration = (
            seconds if before is None else before + SMOOTHING * (seconds - before)
        )
        actions = self._active(worker.key[0], now)
        if not worker.jobs:
            self._busy[worker.key] -= 1
            self._idle[worker.key].append(worker_id)
        elif not self._is_somebody_short(worker.key):
            actions += self._feed(worker)
        return actions + self._fill()

    def jobs_given_back(self, worker_id: WorkerId, jobs: Sequence[JobNumber]) -> list[Action]:
        """Take back jobs that a poked worker had not begun; they go to the head."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return []
        back = set(jobs)
        worker.jobs = type(worker.jobs)(job for job in worker.jobs if job not in back)
        self.computations[worker.key].waiting.extendleft(reversed(jobs))
        if not worker.jobs:
            self._busy[worker.key] -= 1
            self._idle[worker.key].append(worker_id)
        return self._fill()

    def worker_died(self, worker_id: WorkerId, reason: str, cancelled: bool) -> list[Action]:
        """End the job that a dead worker ran; those behind it were not begun and wait again."""
        worker = self.workers.pop(worker_id, None)
        if worker is None:
            return []  # its computation was closed
        actions: list[Action] = []
        if worker.jobs:
            self._busy[worker.key] -= 1
            ran = worker.jobs.popleft()
            self.computations[worker.key].waiting.extendleft(reversed(worker.jobs))
            actions.append(Report(worker.key, (ran,), cancelled, reason))
        else:
            self._idle[worker.key].remove(worker_id)
        return actions + self._fill()

    def worker_retired(self, worker_id: WorkerId) -> list[Action]:
        """Take out a worker that runs nothing more; all it has was not begun and waits again."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return []
        if worker.jobs:
            self._busy[worker.key] -= 1
            self.computations[worker.key].waiting.extendleft(reversed(worker.jobs))
        else:
            self._idle[worker.key].remove(worker_id)
        del self.workers[worker_id]
        return self._fill()

    def share_of(self, owner: OwnerId) -> int:
        """Return how many slots are this owner's now, or would be if it had jobs."""
        return max(1, self.slots // len({owner, *self._last_active}))

    @property
    def active_owners(self) -> int:
        """How many owners count when slots are shared."""
        return len(self._last_active)

    def time_passed(self, now: float) -> list[Action]:
        """Call about every ACTIVE_SECONDS: owners that went quiet give up their share."""
        for owner, last in list(self._last_active.items()):
            if now - last > ACTIVE_SECONDS and not self._has_jobs(owner):
                del self._last_active[owner]
                self._shares.pop(owner, None)
        return self._share()

    # -- decisions

    def _fill(self) -> list[Action]:
        """Give free slots to computations with waiting jobs, the least served owner first."""
        actions: list[Action] = []
        while sum(self._busy.values()) < self.slots:
            ready = [c for c in self.computations.values() if c.ready and c.waiting]
            if not ready:
                break
            chosen = min(ready, key=self._claim)
            self._turn += 1
            chosen.served = self._turn
            if self._idle[chosen.key]:
                worker = self.workers[self._idle[chosen.key].pop()]
            else:
                worker = Worker(next(self._worker_ids), chosen.key)
                self.workers[worker.worker_id] = worker
                actions.append(StartWorker(chosen.key, worker.worker_id))
            self._busy[chosen.key] += 1
            actions += self._feed(worker)
        return actions

    def _claim(self, computation: Computation) -> tuple[int, int, int]:
        """Order computations for the next free slot; the smallest goes first."""
        return (
            self._busy_of(computation.key[0]), self._busy[computation.key], computation.served
        )  # fmt: skip

    def _is_somebody_short(self, key: Key) -> bool:
        """Say whether a computation waits that should have `key`'s slot next."""
        mine = self._busy_of(key[0]), self._busy[key]
        return any(
            (self._busy_of(other[0]) + 1, self._busy[other] + 1) <= mine
            or self._busy_of(other[0]) == 0
            for other, computation in self.computations.items()
            if other != key and computation.ready and computation.waiting
        )

    def _feed(self, worker: Worker) -> list[Action]:
        """Send a worker its next packet; a single job while durations are unknown."""
        computation = self.computations[worker.key]
        packet = 1
        if computation.duration is not None:
            packet = int(PACKET_SECONDS / max(computation.duration, SHORTEST))
        packet = max(1, min(PACKET_JOBS, packet))
        ahead = packet * PACKETS_AHEAD if packet > 1 else 1
        share = -(-len(computation.waiting) // max(1, self.slots))  # leave some to the others
        size = min(ahead - len(worker.jobs), max(share, 1), len(computation.waiting))
        if size <= 0:
            return []
        jobs = tuple(computation.waiting.popleft() for _ in range(size))
        worker.jobs.extend(jobs)
        return [Feed(worker.worker_id, jobs)]

    def _busy_of(self, owner: OwnerId) -> int:
        return sum(busy for key, busy in self._busy.items() if key[0] == owner)

    def _has_jobs(self, owner: OwnerId) -> bool:
        return any(jobs for jobs in self.held(owner).values())

    def _active(self, owner: OwnerId, now: float) -> list[Action]:
        known = owner in self._last_active
        self._last_active[owner] = now
        return [] if known else self._share()

    def _share(self) -> list[Action]:
        """Tell owners whose share has changed; each has one slot at least."""
        actions: list[Action] = []
        parts, rest = divmod(self.slots, max(1, len(self._last_active)))
        for at, owner in enumerate(self._last_active):
            share = max(1, parts + (at < rest))
            if self._shares.get(owner) != share:
                self._shares[owner] = share
                actions.append(TellShare(owner, share))
        return actions

    # -- for tests

    def check_invariants(self) -> None:
        """Raise AssertionError where the state contradicts itself; tests call it after events."""
        for key, computation in self.computations.items():
            workers = [w for w in self.workers.values() if w.key == key]
            jobs = [*computation.waiting, *(job for w in workers for job in w.jobs)]
            assert len(jobs) == len(set(jobs)), "a job is in two places"
            assert self._busy[key] == sum(bool(w.jobs) for w in workers), "busy is miscounted"
            idle = {w.worker_id for w in workers if not w.jobs}
            assert set(self._idle[key]) == idle, "idle workers are miscounted"
            if computation.ready and computation.waiting:
                assert sum(self._busy.values()) >= self.slots, "a slot idles while jobs wait"
        assert sum(self._busy.values()) <= self.slots, "more workers run than there are slots"
