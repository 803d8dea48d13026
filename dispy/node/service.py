"""A node: gives its processors to the jobs of its owners.

The object that owns an `Execution` core and carries out what that decides. Everything runs in
greenlets of one thread; a handler never waits, so that each event is taken as a whole.
Never unpickles anything.
"""

import contextlib
import logging
import secrets
import shutil
import signal
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from time import monotonic, time
from typing import Any

import gevent

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
from dispy.model.statuses import Status
from dispy.net.link import Link
from dispy.net.waking import Awake
from dispy.node.farewell import Farewell
from dispy.node.lending import Lending
from dispy.node.nurseries import Nurseries
from dispy.node.offer import why_not
from dispy.node.owners import Owner
from dispy.node.processes import ComputationProcesses, WorkerProcess
from dispy.node.watching import Watch
from dispy.protocol.frames import Buffer, Frame, FrameRefused
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind, join_payloads, split_payloads

logger = logging.getLogger("dispy.node")

SPARE_SECONDS = 0.05  # after a computation's start before the next nursery is made ready
ZOMBIE_SECONDS = 3600.0  # how long the results of an owner that went away are kept
PULSE_LEAST_SECONDS = 0.05  # more often than this would be work for nothing
FRUITLESS = 3  # processes of a computation that end without a job done before one is blamed


class Node:
    """Serves owners over links that are handed to it; `directory` holds all its files."""

    def __init__(
        self, name: str, cpus: int, directory: Path, address: str = "", path: Sequence[str] = ()
    ) -> None:
        self.name, self.cpus, self.address = name, cpus, address
        self.identity = secrets.token_hex(16)  # of this process: a restarted node is another
        self._directory, self._path = directory, list(path)
        self._core = Execution(cpus)
        self._owners: dict[str, Owner] = {}
        self._computations: dict[Key, ComputationProcesses] = {}
        self._workers: dict[int, WorkerProcess] = {}
        self._lending = Lending()
        self._awake = Awake()
        self._nurseries = Nurseries()
        self.stopping = False
        self._farewell = Farewell(self._core, self._workers, self._owners)
        self._watch = Watch(self._core, self._workers, self._owners, self._perform)

    # -- owners

    def serve(self, link: Link, hello: Hello) -> str:
        """Serve an owner on its new link until that ends; return how it ended."""
        owner = self._owners.get(hello.identity)
        if owner is None:
            owner = self._owners[hello.identity] = Owner(hello.identity, hello.name)
            logger.info("client %s connected", owner.name)
        owner.pulse_seconds = 0.0
        self._wants_pulse(owner, hello.details)
        self._core.owner_connected(owner.owner_id)
        held = self._core.held(owner.owner_id)
        owner.connected(
            link, [job for jobs in held.values() for job in jobs], [key[1] for key in held]
        )
        for key in held:
            self._tell_if_ready(owner, key)  # it may have been lost with the old link
        share = self._core.share_of(owner.owner_id)
        owner.tell(Kind.SHARE, [share, len(self._owners)])
        end = link.read(lambda frame: self._from_owner(owner, frame))
        if owner.link is link:
            owner.link, owner.gone_since = None, monotonic()
            if not any(key[0] == owner.owner_id for key in self._computations):
                del self._owners[owner.owner_id]
                logger.info("client %s left", owner.name)
            elif not self.stopping:
                logger.info("client %s is away: %s; its jobs go on", owner.name, end.reason)
                gevent.spawn_later(ZOMBIE_SECONDS, self._give_up, owner, owner.gone_since)
        return end.reason

    def _wants_pulse(self, owner: Owner, table: dict[str, Any]) -> None:
        """Take an owner's word on how often it wants to hear from us, if it is more often."""
        with contextlib.suppress(TypeError, ValueError):  # a peer's nonsense means no opinion
            asked = float(table.get("pulse") or 0)
            seconds = max(PULSE_LEAST_SECONDS, asked)
            if asked > 0 and not 0 < owner.pulse_seconds <= seconds:
                owner.pulse_seconds = seconds
                self._watch.beat_sooner()

    def _give_up(self, owner: Owner, gone_since: float) -> None:
        if owner.gone_since == gone_since and self._owners.get(owner.owner_id) is owner:
            logger.warning("client %s did not come back; its results are dropped", owner.name)
            self._forget(owner)

    def _forget(self, owner: Owner) -> None:
        for key in [key for key in self._computations if key[0] == owner.owner_id]:
            self._close(key)
        self._owners.pop(owner.owner_id, None)

    def _from_owner(self, owner: Owner, frame: Frame) -> None:
        body = frame.body
        if frame.kind == Kind.RUN:
            self._run(owner, (owner.owner_id, body[0]), body[1], frame)
        elif frame.kind == Kind.ACKNOWLEDGE:
            owner.ledger.acknowledged(body[0])
        elif frame.kind == Kind.OPEN:
            self._open(owner, body[0], body[1], body[2], frame.buffers[0])
        elif frame.kind == Kind.RELEASE:
            self._lending.release(body[0])
        elif frame.kind == Kind.CLOSE:
            self._close((owner.owner_id, body[0]))
        elif frame.kind == Kind.CANCEL:
            for job in body[1]:
                if not self._cancel((owner.owner_id, body[0]), job):
                    owner.early_cancels.append(job)
        elif frame.kind == Kind.DROP:
            dropped, actions = self._core.jobs_dropped(owner.owner_id, body[0])
            for key, job in dropped:
                self._computations[key].payloads.pop(job, None)
            self._perform(actions)
        elif frame.kind == Kind.RECALL:
            key = (owner.owner_id, body[0])
            self._return(owner, key, self._core.jobs_recalled(key, body[1]), None)
        elif frame.kind == Kind.LIMIT:
            self._perform(self._core.computation_limited((owner.owner_id, body[0]), body[1]))
        else:
            raise FrameRefused(f"{Kind(frame.kind).name} is not for a node to receive")

    # -- computations and jobs

    def _open(
        self, owner: Owner, number: int, name: str, settings: dict[str, Any], content: Buffer
    ) -> None:
        key = (owner.owner_id, number)
        self._wants_pulse(owner, settings)
        if key in self._computations:
            self._tell_if_ready(owner, key)
            return
        refusal = why_not(self.name, name, settings)
        if refusal is not None:
            owner.tell(Kind.READY, [number, refusal])
            return
        directory = self._directory / owner.owner_id[:12] / str(number)
        directory.mkdir(parents=True)
        processes = ComputationProcesses(
            directory,
            handle=lambda worker, frame: self._from_worker(key, worker, frame),
            loaded=lambda error: self._loaded(owner, key, error),
            lost=lambda reason: self._nursery_lost(owner, key, reason),
            died=lambda worker: self._worker_died(key, worker),
        )
        self._computations[key] = processes
        self._core.computation_opened(key)
        provided = {
            "dispy_node_name": self.name,
            "dispy_node_ip_addr": self.address,
            "dispy_job_path": str(directory),
        }
        program = bool(settings.get("program"))
        shares = owner.link is not None and owner.link.shares_memory
        settings = {
            "program": program,
            "names": provided,
            "path": self._path,
            "shares_memory": shares,
        }
        processes.load(self._nurseries.take(), name, settings, content)

    def _loaded(self, owner: Owner, key: Key, error: str | None) -> None:
        processes = self._computations.get(key)
        if processes is None:
            return  # closed while it was loading
        if processes.was_ready:  # a nursery was replaced; the owner need not know
            if error is None:
                self._perform(self._core.computation_ready(key))
            else:
                self._break(key, error)
            return
        processes.was_ready = error is None
        if error is not None:
            given, actions = self._core.computation_failed(key, f"the computation ended: {error}")
            self._perform(actions)
            self._return(owner, key, given, error)
            self._close(key)
        owner.tell(Kind.READY, [key[1], error])
        if error is None:
            self._perform(self._core.computation_ready(key))
        gevent.spawn_later(SPARE_SECONDS, self._nurseries.prepare)

    def _nursery_lost(self, owner: Owner, key: Key, reason: str) -> None:
        """Load a computation again whose nursery somebody killed; its jobs go on then."""
        processes = self._computations.get(key)
        if processes is None or self.stopping:
            return
        if not processes.was_ready:
            self._loaded(owner, key, reason)
            return
        self._core.computation_unready(key)
        processes.fruitless += 1
        if processes.fruitless > FRUITLESS:
            self._break(key, reason)
            return
        logger.warning("the nursery of a computation of %s is replaced: %s", owner.name, reason)
        processes.load_again(self._nurseries.take())

    def _break(self, key: Key, reason: str) -> None:
        """Give up a computation that ran before; each job of it ends with the reason."""
        self._computations[key].broken = f"node {self.name} cannot run it any more: {reason}"
        self._refuse(key, self._core.not_begun(key))

    def _refuse(self, key: Key, jobs: list[int]) -> None:
        """End jobs that wait for a computation which is broken."""
        self._core.jobs_recalled(key, jobs)
        reason = self._computations[key].broken or ""
        self._report(Report(key, tuple(jobs), cancelled=False, reason=reason), Status.Terminated)

    def _tell_if_ready(self, owner: Owner, key: Key) -> None:
        if self._core.computations[key].ready:
            owner.tell(Kind.READY, [key[1], None])

    def _close(self, key: Key) -> None:
        processes = self._computations.pop(key, None)
        if processes is None:
            return
        for worker_id in processes.workers:
            self._workers.pop(worker_id, None)
        self._perform(self._core.computation_closed(key))
        self._nurseries.end(processes)

    def _run(self, owner: Owner, key: Key, jobs: list[int], frame: Frame) -> None:
        processes = self._computations.get(key)
        if self.stopping:
            return  # its farewell tells the owner that they were not begun
        if processes is None:
            self._return(owner, key, jobs, "the computation is closed there, or cannot be loaded")
            return
        payloads = join_payloads(frame.body[2], frame.buffers)
        processes.payloads.update(zip(jobs, payloads, strict=True))
        self._perform(self._core.jobs_received(key, jobs, monotonic()))
        if processes.broken is not None:
            self._refuse(key, jobs)
        if owner.early_cancels:
            for job in set(jobs).intersection(owner.early_cancels):
                self._cancel(key, job)
        self._watch.wake()

    def _return(self, owner: Owner, key: Key, jobs: Sequence[int], why: str | None) -> None:
        """Give jobs that were not begun back to their owner: `why`, or None as it asked."""
        processes = self._computations.get(key)
        if processes is not None:
            for job in jobs:
                processes.payloads.pop(job, None)
        if jobs or why is None:  # who asked gets an answer
            owner.tell(Kind.RETURNED, [key[1], list(jobs), why])

    def _cancel(self, key: Key, job: int) -> bool:
        """Begin to cancel a job; False when it is not here."""
        actions = self._core.cancel(key, job)
        for action in actions:
            if isinstance(action, Report):
                self._report(action, Status.Cancelled)
            elif isinstance(action, Stop) and action.worker_id in self._workers:
                worker = self._workers[action.worker_id]
                if len(self._core.workers[action.worker_id].jobs) > 1:
                    worker.cancelling.add(job)  # which one runs is known after a poke
                    worker.signal(signal.SIGURG)
                else:
                    worker.interrupt(job, monotonic())
        self._watch.wake()
        return bool(actions)

    def _cancel_pending(self, key: Key, worker: WorkerProcess) -> None:
        """Look again at cancels that wait until it is known which job the worker runs, and at
        those of jobs that it will not run any more."""
        cancelling, worker.cancelling = worker.cancelling | worker.dropped, set()
        for job in cancelling:
            self._cancel(key, job)

    def _report(self, action: Report, status: Status) -> None:
        """Make jobs final that no worker answers for."""
        owner, count, now = self._owners[action.key[0]], len(action.jobs), time()
        payloads = self._computations[action.key].payloads
        for job in action.jobs:
            payloads.pop(job, None)
        extra = {"status": int(status), "exception": action.reason}
        extras = [[at, extra] for at in range(count)]
        columns = [list(action.jobs), [now] * count, [now] * count, [b""] * count, extras]
        owner.owe(action.key[1], columns, [])

    # -- workers

    def _from_worker(self, key: Key, worker: WorkerProcess, frame: Frame) -> None:
        owner, processes = self._owners.get(key[0]), self._computations.get(key)
        if owner is None or processes is None:
            return  # closed; what it still says is of no use
        worker.last_heard = monotonic()
        if frame.kind == Kind.DONE:
            self._done(owner, key, worker, frame)
        elif frame.kind == Kind.GIVEN_BACK:
            self._perform(self._core.jobs_given_back(worker.worker_id, frame.body[0]))
            self._cancel_pending(key, worker)
        elif frame.kind == Kind.INTERIM:
            owner.tell(Kind.PROVISIONAL, [key[1], *frame.body], frame.buffers)
        elif frame.kind == Kind.RETIRE:
            self._workers.pop(worker.worker_id, None)
            worker.stopped = True
            self._perform(self._core.worker_retired(worker.worker_id))
            worker.link.close()
            self._cancel_pending(key, worker)

    def _done(self, owner: Owner, key: Key, worker: WorkerProcess, frame: Frame) -> None:
        """Take the results of a worker's next jobs; raises FrameRefused for any other."""
        jobs, starts, ends = frame.body[:3]
        if not jobs:
            raise FrameRefused("a worker answered for no jobs")
        self._pass_on(owner, key, worker, frame)
        mean = max(0.0, sum(ends) - sum(starts)) / len(jobs)
        self._awake.passed_back(len(jobs), mean)
        self._perform(self._core.jobs_done(worker.worker_id, jobs, mean, monotonic()))
        if worker.cancelling:
            self._cancel_pending(key, worker)

    def _pass_on(self, owner: Owner, key: Key, worker: WorkerProcess, frame: Frame) -> None:
        """Give results to their owner, unopened."""
        jobs = frame.body[0]
        fed = self._core.workers[worker.worker_id].jobs
        if jobs != list(islice(fed, len(jobs))):
            raise FrameRefused("a worker answered for jobs that it was not given")
        processes = self._computations[key]
        for job in jobs:
            del processes.payloads[job]
        processes.fruitless = 0
        worker.interrupted = None
        worker.cancelling.difference_update(jobs)
        worker.dropped.clear()
        self._lending.lend(worker.link, frame.buffers)
        owner.owe(key[1], frame.body, frame.buffers)

    def _worker_died(self, key: Key, worker: WorkerProcess) -> None:
        """Report what a dead worker had done; blame its end on the job that ran, if any."""
        self._workers.pop(worker.worker_id, None)
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
        reason = f"the worker process {worker.ended}"
        if processes.fruitless > FRUITLESS and left:
            began, reason = True, f"{reason}, as did those before it"
        if interrupted:
            reason = f"cancelled; {reason}"
        reason = f"{reason}, while it ran this job on node {self.name}"
        self._perform(
            self._core.worker_died(worker.worker_id, len(done.body[0]), began, reason, interrupted)
        )
        self._cancel_pending(key, worker)

    def _perform(self, actions: Sequence[Action]) -> None:
        """Carry out the core's orders, in order."""
        for action in actions:
            if isinstance(action, Feed):
                self._feed(action)
            elif isinstance(action, StartWorker):
                worker = self._computations[action.key].start_worker(action.worker_id)
                self._workers[action.worker_id] = worker
            elif isinstance(action, Report):
                self._report(action, Status.Terminated)
            elif isinstance(action, TellShare):
                owner = self._owners.get(action.owner)
                if owner is not None:
                    owner.tell(Kind.SHARE, [action.slots, len(self._owners)])
            elif isinstance(action, TellCrowded):
                self._tell_crowded(action)
            elif isinstance(action, Stop):
                stopped = self._workers.pop(action.worker_id, None)
                if stopped is not None:
                    stopped.kill()

    def _tell_crowded(self, action: TellCrowded) -> None:
        owner = self._owners.get(action.owner)
        if owner is not None:
            names = {self._owners[who].name: busy for who, busy in action.others}
            owner.tell(Kind.STATUS, [{"crowded": names}])

    def _feed(self, action: Feed) -> None:
        worker = self._workers[action.worker_id]
        computation = self._core.workers[action.worker_id].computation
        self._awake.passed_on(len(action.jobs), computation.duration)
        payloads = self._computations[computation.key].payloads
        column, buffers = split_payloads([payloads[job] for job in action.jobs])
        worker.last_heard = monotonic()
        worker.link.send(Kind.JOBS, [action.jobs, column], buffers)

    # -- the end

    def stop(self, reason: str) -> None:
        """Give jobs back, end every process, remove every file; returns when that is done."""
        if self.stopping:
            return
        self.stopping = True
        self._watch.stop()
        self._awake.stop()
        self._farewell.stop_jobs()
        self._farewell.say(reason)
        for processes in self._computations.values():
            self._nurseries.end(processes)
        self._nurseries.stop()  # also those that were closed just before
        for owner in self._owners.values():
            if owner.link is not None:
                owner.link.close()
        shutil.rmtree(self._directory, ignore_errors=True)
