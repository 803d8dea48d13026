"""The jobs that a node holds, and the workers that run them.

Carries out what the execution core decides. A handler never waits, so that each event is taken
as a whole.
"""

import signal
from collections.abc import MutableMapping, Sequence
from itertools import islice
from time import monotonic, time
from typing import Any

from dispy.execution.core import Execution
from dispy.execution.records import (
    Action,
    Feed,
    Key,
    Report,
    StartWorker,
    Stop,
    TellCrowded,
    TellShare,
)
from dispy.model.sizes import tell_bytes
from dispy.model.statuses import Status
from dispy.net.waking import Awake
from dispy.node.deaths import Death, Deaths, said_death
from dispy.node.farewell import Farewell
from dispy.node.lending import Lending
from dispy.node.limits import wants_watch, watch
from dispy.node.offers import Offers
from dispy.node.owners import Owner, slots_of
from dispy.node.processes import ComputationProcesses, WorkerProcess
from dispy.node.quotas import weight_of_jobs, weight_of_results
from dispy.node.reserve import MemoryGuard
from dispy.node.starts import Starts
from dispy.node.watching import Watch
from dispy.protocol.frames import Frame, FrameRefused, Shared
from dispy.protocol.messages import Kind, join_payloads, split_payloads
from dispy.system.shortage import tell_shortage

RESULT_LEAST = 2000  # bytes of a job's result that are kept in any case: an error has as many
FRUITLESS = 3  # processes of a computation that end without a job done before one is blamed


class Running:
    """Both tables and the core are the node's own."""

    def __init__(
        self,
        name: str,
        core: Execution,
        owners: dict[str, Owner],
        computations: MutableMapping[Key, ComputationProcesses],
        offers: Offers,
        memory_reserve: int | None = None,
    ) -> None:
        self._name, self._core = name, core
        self._owners, self._computations = owners, computations
        self._offers = offers
        self.workers: dict[int, WorkerProcess] = {}
        self.lending = Lending()
        self._awake = Awake()
        self._farewell = Farewell(core, self.workers, owners)
        self.deaths = Deaths(name)
        self._starts = Starts(core, self.perform, lambda why: self.guard.otherwise(why))
        self.guard = MemoryGuard(core, owners, self.perform, memory_reserve)
        self.watch = Watch(core, self.workers, owners, self.perform, self._look)
        self.stopping = False

    def _look(self, now: float) -> None:
        self.guard.look(now)
        self.deaths.look(now)

    # -- jobs

    def run(self, owner: Owner, key: Key, frame: Frame) -> None:
        """Take jobs from their owner (RUN)."""
        _, jobs, column, extras = frame.body
        processes = self._computations.get(key)
        if self.stopping:
            return  # its farewell tells the owner that they were not begun
        if processes is None:
            why = "the computation is closed there, or cannot be loaded"
            self.give_back(owner, key, jobs, why)
            return
        payloads = join_payloads(column, frame.buffers)
        if frame.lacking:
            self._refuse_large(owner, key, frame)
            return
        weight = frame.dropped or weight_of_jobs(payloads)
        if frame.dropped or not owner.memory.fits(weight):
            self._turn_away(owner, key, jobs, weight)
            return
        options = {jobs[at]: table for at, table in extras} if extras else {}
        if any(map(wants_watch, options.values())):
            self._core.computation_bounded(key, alone=True)
        processes.keep(jobs, payloads, options)
        now = monotonic()
        self.guard.look(now)
        lacking = processes.needs.lacking(options) if options else ()
        for job in lacking:
            options[job].pop("files", None)  # its worker finds them in the directory
        widths = {job: slots_of(o["cpus"]) for job, o in options.items() if "cpus" in o}
        self.perform(self._core.jobs_received(key, jobs, now, lacking, widths))
        if lacking:
            processes.needs.fetch(lacking)
        if processes.broken is not None:
            self.refuse(key, jobs)
        if owner.early_cancels:
            for job in set(jobs).intersection(owner.early_cancels):
                self.cancel(key, job)
        self.watch.wake()

    def _refuse_large(self, owner: Owner, key: Key, frame: Frame) -> None:
        """End jobs whose large arguments this process can have no memory for; others come again."""
        _, jobs, column, _ = frame.body
        large = tuple(job for job, entry in zip(jobs, column, strict=True) if type(entry) is int)
        why = f"node {self._name} could get no memory for {tell_bytes(frame.dropped)} of arguments"
        self.report(Report(key, large, cancelled=False, reason=why), Status.Terminated)
        others = [job for job in jobs if job not in large]
        if others:
            owner.memory.turned_away.add(key)
            owner.tell(Kind.FULL, [key[1], others, why])
            owner.memory.tell_room()

    def _turn_away(self, owner: Owner, key: Key, jobs: list[int], weight: int) -> None:
        """Give back jobs for which their owner has no room now, or end those that never have any.

        Who is turned away is told once there is room again; what fits an empty account thus comes
        again until it is taken.
        """
        memory, what = owner.memory, "arguments" if len(jobs) == 1 else "arguments of its jobs"
        why = memory.why_not(what, weight)
        if not memory.ever_fits(weight):
            why = f"node {self._name}: {why}"
            self.report(Report(key, tuple(jobs), cancelled=False, reason=why), Status.Terminated)
            return
        memory.turned_away.add(key)
        owner.tell(Kind.FULL, [key[1], jobs, why])
        memory.tell_room()  # some may have come while what is dropped was on its way

    def cancel_all(self, owner: Owner, key: Key, jobs: Sequence[int]) -> None:
        """Begin to cancel jobs; those that are not here may be on their way."""
        for job in jobs:
            if not self.cancel(key, job):
                owner.early_cancels.append(job)

    def drop(self, owner: Owner, jobs: Sequence[int]) -> None:
        """Forget jobs that run elsewhere now, or are final."""
        dropped, actions = self._core.jobs_dropped(owner.owner_id, jobs)
        for key, job in dropped:
            self._computations[key].forget((job,))
        self.perform(actions)

    def recall(self, owner: Owner, key: Key, jobs: Sequence[int]) -> None:
        """Give back those jobs that were not begun, as their owner asked."""
        self.give_back(owner, key, self._core.jobs_recalled(key, jobs), None)

    def limit(self, key: Key, workers: int) -> None:
        """Run at most so many of a computation's jobs at once."""
        self.perform(self._core.computation_limited(key, workers))

    def hold_owner(self, owner_id: str, why: str) -> None:
        """Begin no more of an owner's jobs, and tell it why; "": begin them again."""
        self.perform(self._core.owner_held_back(owner_id, bool(why)))
        owner = self._owners.get(owner_id)
        if owner is not None:
            self.guard.tell_anew(owner)

    def give_back(self, owner: Owner, key: Key, jobs: Sequence[int], why: str | None) -> None:
        """Give jobs that were not begun back to their owner: `why`, or None as it asked."""
        processes = self._computations.get(key)
        if processes is not None:
            processes.forget(jobs)
        if jobs or why is None:  # who asked gets an answer
            owner.tell(Kind.RETURNED, [key[1], list(jobs), why])

    def refuse(self, key: Key, jobs: list[int]) -> None:
        """End jobs that wait for a computation which is broken; those that a worker has, go on."""
        waiting = self._core.jobs_recalled(key, jobs)
        if waiting:
            reason = self._computations[key].broken or ""
            report = Report(key, tuple(waiting), cancelled=False, reason=reason)
            self.report(report, Status.Terminated)

    def unblock(self, key: Key, job: int) -> None:
        """Let a job start that has all it needs now."""
        self.perform(self._core.jobs_unblocked(key, [job]))
        self.watch.wake()

    def fail(self, key: Key, job: int, why: str) -> None:
        """End a job that cannot have what it needs."""
        if self._core.jobs_recalled(key, [job]):
            reason = why if self._name in why else f"on node {self._name}: {why}"
            self.report(Report(key, (job,), cancelled=False, reason=reason), Status.Terminated)

    def cancel(self, key: Key, job: int) -> bool:
        """Begin to cancel a job; False when it is not here."""
        actions = self._core.cancel(key, job)
        for action in actions:
            if isinstance(action, Report):
                self.report(action, Status.Cancelled)
            elif isinstance(action, Stop) and action.worker_id in self.workers:
                worker = self.workers[action.worker_id]
                if len(self._core.workers[action.worker_id].jobs) > 1:
                    worker.cancelling.add(job)  # which one runs is known after a poke
                    worker.signal(signal.SIGURG)
                else:
                    worker.interrupt(job, monotonic())
        self.watch.wake()
        return bool(actions)

    def _cancel_pending(self, key: Key, worker: WorkerProcess) -> None:
        """Look again at cancels that wait until it is known which job the worker runs, and at
        those of jobs that it will not run any more."""
        cancelling, worker.cancelling = worker.cancelling | worker.dropped, set()
        for job in cancelling:
            self.cancel(key, job)

    def report(
        self, action: Report, status: Status, output: tuple[bytes, bytes] = (b"", b"")
    ) -> None:
        """Make jobs final that no worker answers for; `output` is what they wrote."""
        owner, count, now = self._owners[action.key[0]], len(action.jobs), time()
        self._computations[action.key].forget(action.jobs)
        extra: dict[str, object] = {"status": int(status), "exception": action.reason}
        if action.died:
            extra["died"] = True
        if any(output) and owner.memory.fits(sum(map(len, output))):
            is_program = self._computations[action.key].is_program
            for name, text in zip(("stdout", "stderr"), output, strict=True):
                extra[name] = text if is_program else text.decode(errors="replace")
        extras = [[at, extra] for at in range(count)]
        columns = [list(action.jobs), [now] * count, [now] * count, [b""] * count, extras]
        owner.owe(action.key[1], columns, [])

    # -- workers

    def from_worker(self, key: Key, worker: WorkerProcess, frame: Frame) -> None:
        owner, processes = self._owners.get(key[0]), self._computations.get(key)
        if owner is None or processes is None:
            return  # closed; what it still says is of no use
        worker.last_heard = monotonic()
        if frame.buffers and not owner.shares_memory:
            frame.buffers = worker.views.of(frame.buffers)
        if frame.kind == Kind.DONE:
            self._done(owner, key, worker, frame)
        elif frame.kind == Kind.GIVEN_BACK:
            self.perform(self._core.jobs_given_back(worker.worker_id, frame.body[0]))
            self._cancel_pending(key, worker)
        elif frame.kind == Kind.INTERIM:
            self._interim(owner, key, worker, frame)
        elif frame.kind == Kind.FILE:
            self._offers.take(owner, key, frame, worker.link.take_descriptors(2))
        elif frame.kind == Kind.RETIRE:
            self.workers.pop(worker.worker_id, None)
            worker.stopped = True
            self.perform(self._core.worker_retired(worker.worker_id))
            worker.link.close()
            self._cancel_pending(key, worker)

    def _interim(self, owner: Owner, key: Key, worker: WorkerProcess, frame: Frame) -> None:
        """Take a value that a job sends before its end; none is taken after that."""
        job, value = frame.body
        known = self._core.workers.get(worker.worker_id)
        if known is None or job not in known.jobs:
            return
        owed = owner.owe_value(key[1], job, value, frame.buffers)
        if owed is not None and not owner.shares_memory:  # a local node ends with its program
            self._computations[key].newest.keep(job, owed)

    def _done(self, owner: Owner, key: Key, worker: WorkerProcess, frame: Frame) -> None:
        """Take the results of a worker's next jobs; raises FrameRefused for any other."""
        jobs, starts, ends = frame.body[:3]
        if not jobs:
            raise FrameRefused("a worker answered for no jobs")
        known = self._core.workers.get(worker.worker_id)
        if known is None:
            return  # it was stopped, as its job was dropped, while this was on its way
        now, fed = monotonic(), len(known.jobs)
        mean = worker.mean_seconds(starts, ends, now)
        self._pass_on(owner, key, worker, frame)
        self._awake.passed_back(len(jobs), mean)
        worker.began_at = None if len(jobs) == fed else now
        self.perform(self._core.jobs_done(worker.worker_id, jobs, mean, now))
        if worker.cancelling:
            self._cancel_pending(key, worker)

    def _pass_on(self, owner: Owner, key: Key, worker: WorkerProcess, frame: Frame) -> None:
        """Give results to their owner, unopened."""
        jobs = frame.body[0]
        fed = self._core.workers[worker.worker_id].jobs
        if jobs != list(islice(fed, len(jobs))):
            raise FrameRefused("a worker answered for jobs that it was not given")
        processes = self._computations[key]
        for at, extra in frame.body[4]:
            owner.segments.done(processes.payloads.get(jobs[at]), extra)
            if "death" in extra:
                self._tell_death(worker, extra)
        processes.forget(jobs)
        processes.fruitless = 0
        worker.interrupted = None
        worker.cancelling.difference_update(jobs)
        worker.dropped.clear()
        if worker.allowance is not None:
            worker.allowance.amend(frame.body, self._name)
            worker.allowance = None
        self.lending.lend(key[0], worker.link, frame.buffers)
        weight = weight_of_results(frame.body, frame.buffers)
        if weight > RESULT_LEAST * len(jobs) and not owner.memory.ever_fits(weight):
            self._lose_results(owner, key, frame, weight)
        else:
            owner.owe(key[1], frame.body, frame.buffers, weight)

    def _tell_death(self, worker: WorkerProcess, extra: dict[str, Any]) -> None:
        """Say how the process died that a worker had for a job."""
        death = said_death(extra.pop("death"))
        stderr, cancelled = extra.get("stderr", ""), "died" not in extra
        extra["exception"] = self.deaths.tell(death, worker.pid, stderr, cancelled)

    def _lose_results(self, owner: Owner, key: Key, frame: Frame, weight: int) -> None:
        """End jobs without their results, for which there is no room."""
        jobs, starts, ends, *_ = frame.body
        self.lending.release(key[0], [b.token for b in frame.buffers if isinstance(b, Shared)])
        why = f"node {self._name}: {owner.memory.why_not('what it returned', weight)}"
        extra = {"status": int(Status.Terminated), "exception": why}
        extras = [[at, extra] for at in range(len(jobs))]
        owner.owe(key[1], [jobs, starts, ends, [b""] * len(jobs), extras], [])

    def worker_died(self, key: Key, worker: WorkerProcess) -> None:
        """Take note of the end of a worker's process, whose last words can be read now."""
        try:
            self._settle(key, worker)
        finally:
            self.deaths.ended(worker.pid)

    def _settle(self, key: Key, worker: WorkerProcess) -> None:
        """Report what a dead worker had done; blame its end on the job that ran, if any."""
        self.workers.pop(worker.worker_id, None)
        known, processes = self._core.workers.get(worker.worker_id), self._computations.get(key)
        if processes is None or known is None:
            return  # stopped or retired before
        interrupted = worker.interrupted is not None
        running, done = worker.last_words(known.jobs)
        if done.body[0]:
            self._pass_on(self._owners[key[0]], key, worker, done)
        left = list(islice(known.jobs, len(done.body[0]), None))
        began = bool(left) and left[0] == running
        if self.stopping:
            self._farewell.note_begun(key[0], left[:1] if began else [])
            return
        if not began and not done.body[0]:
            processes.fruitless += 1
        fruitless = processes.fruitless > FRUITLESS and bool(left)
        limited = worker.allowance and worker.allowance.verdict(self._name) if left else None
        began = began or fruitless or bool(limited)
        reason, output = limited or "", (b"", b"")
        if began:
            output = worker.last_output()
        if began and not limited:
            more = ", as did those before it" if fruitless else ""
            death, pid = worker.ended or Death("ended"), worker.pid
            reason = self.deaths.tell(death, pid, output[1], interrupted, more)
        actions = self._core.worker_died(
            worker.worker_id, len(done.body[0]), began, reason, interrupted, bool(limited)
        )
        if actions and isinstance(blamed := actions[0], Report):
            self.report(blamed, Status.Terminated, output)
            del actions[0]
        self.perform(actions)
        self._cancel_pending(key, worker)

    def perform(self, actions: Sequence[Action]) -> None:
        """Carry out the core's orders, in order."""
        for action in actions:
            if isinstance(action, Feed):
                self._feed(action)
            elif isinstance(action, StartWorker):
                self._start(action)
            elif isinstance(action, Report):
                self.report(action, Status.Terminated)
            elif isinstance(action, TellShare):
                owner = self._owners.get(action.owner)
                if owner is not None:
                    owner.tell(Kind.SHARE, [action.slots, len(self._owners)])
            elif isinstance(action, TellCrowded):
                self._tell_crowded(action)
            elif isinstance(action, Stop):
                stopped = self.workers.pop(action.worker_id, None)
                if stopped is not None:
                    stopped.kill()

    def _start(self, action: StartWorker) -> None:
        try:
            worker = self._computations[action.key].start_worker(action.worker_id)
        except OSError as error:
            self._starts.failed(action.worker_id, tell_shortage(error))
        else:
            self.workers[action.worker_id] = worker

    def not_started(self, worker: WorkerProcess, why: str) -> None:
        """Take the news that a worker's nursery could not fork it."""
        if self.workers.pop(worker.worker_id, None) is not None:
            self._starts.failed(worker.worker_id, why)

    def began(self, pid: int) -> None:
        """Take the news that a worker runs, by its process."""
        self.deaths.began(pid)
        self._starts.succeeded()

    def _tell_crowded(self, action: TellCrowded) -> None:
        owner = self._owners.get(action.owner)
        if owner is not None:
            names = {self._owners[who].name: busy for who, busy in action.others}
            owner.tell(Kind.STATUS, [{"crowded": names}])

    def _feed(self, action: Feed) -> None:
        worker = self.workers.get(action.worker_id)
        if worker is None:
            return  # it could not be started
        computation = self._core.workers[action.worker_id].computation
        self._awake.passed_on(len(action.jobs), computation.duration)
        processes = self._computations[computation.key]
        payloads, options = processes.payloads, processes.options
        column, buffers = split_payloads([payloads[job] for job in action.jobs])
        extras = (
            [[at, options[job]] for at, job in enumerate(action.jobs) if job in options]
            if options else []
        )  # fmt: skip
        if processes.watched or extras:
            (job, *_) = action.jobs
            watch(worker, job, processes.limits, options.get(job, {}), processes.is_program)
        worker.last_heard = now = monotonic()
        worker.began_at = worker.began_at or now
        worker.link.send(Kind.JOBS, [action.jobs, column, extras], buffers)

    # -- the end

    def stop(self, reason: str) -> None:
        """End all workers, give what they had not begun back, and say goodbye."""
        self.stopping = True
        self.watch.stop()
        self._starts.stop()
        self._awake.stop()
        self._farewell.stop_jobs()
        self._farewell.say(reason)
