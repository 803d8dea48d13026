"""The processes of a node's computations, as the node holds them: nurseries and workers."""

import logging
import os
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult, Event

from dispy.net.link import Link
from dispy.node.deaths import Death
from dispy.node.lending import Views
from dispy.node.needs import JobNeeds
from dispy.node.newest import NewestValues
from dispy.node.nursery import NurseryProcess
from dispy.node.preparing import Limit
from dispy.node.quotas import JOB_BYTES, Memory, weight_of_jobs, weight_of_table
from dispy.node.streaming import Streaming
from dispy.node.working import WorkingFiles
from dispy.protocol.frames import Buffer, Frame, FrameRefused
from dispy.protocol.messages import Kind, Payload, check
from dispy.system.processes import free_beyond
from dispy.system.reach import signal_group, signal_process
from dispy.system.shortage import keep_descriptors
from dispy.worker.journal import make_journal, read_journal, running_job
from dispy.worker.output import OUTPUT_LIMIT, make_outputs, read_output

if TYPE_CHECKING:
    from dispy.node.limits import Allowance

logger = logging.getLogger("dispy.node")

POKE_SECONDS = 0.01  # of silence, with jobs behind the one that runs
LATE_DURATIONS = 2  # measured ones, after which those behind it should not wait any longer
# After a SIGINT: one that came just before a system call is noticed by Python with the next signal.
NUDGE_SECONDS = 0.1
TERMINATE_SECONDS = 6.0  # after a cancel's SIGINT: dispy 4's own figures
KILL_SECONDS = 8.0
CLOCK_SET_SECONDS = 1.0  # more than jobs can have taken: the clock was set, not we were late
WORKERS_END_SECONDS = 5.0  # that killed workers may take to be gone
LAST_WORDS_SECONDS = 1.0  # how long a dead worker's socket may hold what it sent before


Told = dict[str, Any]  # what a nursery tells of setup or cleanup: output, threads, shutdown


class WorkerProcess:
    """One worker: its link, what is known of its process, and how far a cancel has gone."""

    def __init__(
        self,
        worker_id: int,
        link: Link,
        journal: int,
        outputs: Sequence[int],
        uid: int | None = None,
    ) -> None:
        """journal, outputs: descriptors, which are its own now.

        uid: of the user as whom it runs; None: of the node's own.
        """
        self.worker_id, self.link, self._uid = worker_id, link, uid
        self.views = Views(link)  # of its results, for owners that cannot map them
        self.reader: gevent.Greenlet[..., None] | None = None  # ends when all is read
        self._journal, self._outputs = journal, outputs
        self.pid: int | None = None  # None until its nursery has forked it
        self.ended: Death | None = None  # once the nursery has said so
        self.allowance: Allowance | None = None  # of a job that is watched
        self.has_ended = Event()
        self.cancelling: set[int] = set()  # jobs to cancel once it is known which one runs
        self.interrupted: float | None = None  # monotonic second of a cancel's SIGINT
        self.dropped: set[int] = set()  # the job that this was for
        self.stopped = False  # killed on purpose; its end is no news
        self.last_heard = monotonic()
        self.began_at: float | None = None  # the second since when it may run what it next tells of
        self._signalled = 0
        self.streams = False  # what its job writes is sent on while that runs
        self._streaming = Streaming(journal, outputs)

    def supervise(self, now: float, expected: float, behind: bool) -> None:
        """Poke, press on with a cancel; call while it has jobs, `expected` seconds long."""
        if self.pid is None:
            return
        if self.allowance is not None:
            self.allowance.look(self, now)
        silent = now - self.last_heard
        late = silent > max(POKE_SECONDS, LATE_DURATIONS * expected)
        if (
            (behind and late)
            or (self.cancelling and silent > POKE_SECONDS)
            or (silent > NUDGE_SECONDS and self.interrupted is not None)
        ):
            self.last_heard = now
            self.signal(signal.SIGURG)
        if self.interrupted is not None:
            waited = now - self.interrupted
            if waited > KILL_SECONDS and self._signalled != signal.SIGKILL:
                self.signal_group(signal.SIGKILL)
            elif waited > TERMINATE_SECONDS and self._signalled == signal.SIGINT:
                self.signal_group(signal.SIGTERM)

    def new_output(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield (job, descriptor, offset, text) for what its job has written of late."""
        yield from self._streaming.news()

    def last_output(self) -> tuple[bytes, bytes]:
        """Return what the job that ran when it died has written to stdout and stderr."""
        stdout, stderr = map(read_output, self._outputs)
        return stdout, stderr

    def bound_output(self) -> None:
        """Free what the running job's output holds beyond the limit."""
        for output in self._outputs:
            free_beyond(output, OUTPUT_LIMIT)

    def interrupt(self, job: int, now: float) -> None:
        """Begin to cancel the only job that it has; it may have begun it, or not yet."""
        if self.interrupted is None:
            self.interrupted = now
            self.dropped.add(job)
            self.link.send(Kind.CANCEL, [0, [job]])  # it has one computation only
            self.signal_group(signal.SIGINT)

    def mean_seconds(self, starts: Sequence[float], ends: list[float], now: float) -> float:
        """Return how long jobs ran on average that it tells of now, a monotonic second.

        Their times are by the wall clock, which somebody may have set meanwhile: then their ends
        are put right, as far as it is known how long they can have taken.
        """
        seconds, most = sum(ends) - sum(starts), now - (self.began_at or now)
        if not -CLOCK_SET_SECONDS <= seconds <= most + CLOCK_SET_SECONDS:
            seconds = most
            ends[:] = [start + most / len(starts) for start in starts]
        return max(0.0, seconds) / len(starts)

    def running_job(self) -> int | None:
        """Return the job that it says it runs."""
        return running_job(self._journal)

    def last_words(self, fed: Collection[int]) -> tuple[int | None, Frame]:
        """Return the job that it ran when it died, and a DONE of the `fed` jobs that it had
        done and not told of."""
        running, columns = read_journal(self._journal)
        numbers, *_, extras = columns
        told = next((at for at, number in enumerate(numbers) if number in fed), len(numbers))
        for column in columns[:-1]:
            del column[:told]
        extras[:] = [[at - told, extra] for at, extra in extras if at >= told]
        frame = Frame(Kind.DONE, columns)
        try:
            if numbers != list(islice(fed, len(numbers))):
                raise FrameRefused("it names jobs that the worker was not given")
            return running, check(frame)
        except FrameRefused as error:  # a job wrote there
            logger.warning("the journal of worker %s makes no sense: %s", self.worker_id, error)
            return None, Frame(Kind.DONE, [[], [], [], [], []])

    def release(self) -> None:
        """Free its descriptors; the process is gone."""
        self.link.close()
        for descriptor in (self._journal, *self._outputs):
            os.close(descriptor)

    def told_ended(self, death: Death) -> None:
        """Take the news that its process is gone."""
        self.ended = self.ended or death
        self.has_ended.set()
        # What a job's own child still holds open must not keep us waiting for the last words.
        gevent.spawn_later(LAST_WORDS_SECONDS, self.link.close)

    def forked(self, pid: int | None) -> None:
        """Take the news that it runs; catch up with what it could not be told before.

        None: it has ended again already, of which there will be news.
        """
        self.pid = pid
        if self.stopped:
            self.kill()
        elif self.interrupted is not None:
            self.signal_group(signal.SIGINT)

    def kill(self) -> None:
        """End it on purpose."""
        self.stopped = True
        self.signal_group(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the worker alone."""
        if self.pid is not None and self.ended is None:
            signal_process(self.pid, number, self._uid)

    def nudge(self) -> None:
        """Have all Python processes of the job look at the signals that they got."""
        if self.pid is not None and self.ended is None:
            signal_group(self.pid, signal.SIGURG, self._uid)

    def signal_group(self, number: int) -> None:
        """Send a signal to the worker and what its job started."""
        self._signalled = number
        if self.pid is not None and self.ended is None:
            signal_group(self.pid, number, self._uid)


class ComputationProcesses:
    """A computation on this node: its directory, its nursery, its workers, its payloads.

    `loaded` is called with None or with what failed, and what else there is to tell; `lost` when
    somebody else ended the nursery, or with True when it could not be started for now; `began` with
    the id of each worker's process; `died` with a worker once its process is gone and its last
    words were read; `not_started` with one whose nursery could not fork it, and why.
    """

    def __init__(
        self,
        files: WorkingFiles,
        memory: Memory,
        handle: Callable[[WorkerProcess, Frame], None],
        loaded: Callable[[str | None, Told], None],
        lost: Callable[[str, bool], None],
        died: Callable[[WorkerProcess], None],
        began: Callable[[int], None],
        not_started: Callable[[WorkerProcess, str], None],
    ) -> None:
        self.files, self.directory = files, files.directory.path
        self.payloads: dict[int, Payload] = {}
        self.options: dict[int, dict[str, Any]] = {}  # of jobs that have some
        self._memory, self._weight = memory, 0  # where what it keeps is counted, and how much
        self.newest = NewestValues(memory)
        self._weights: dict[int, int] = {}  # of options
        self._code_weight = 0
        self.needs: JobNeeds  # of jobs whose options name some; set by whoever opens it
        self.limits: dict[str, Any] = {}  # of each of its jobs
        self.watched = False  # some of these are for the node to watch over
        self.is_program = False
        self.workers: dict[int, WorkerProcess] = {}
        self.streams = False  # output of jobs goes to their owner while they run
        self.was_ready = False  # its code has been loaded once
        self.broken: str | None = None  # why no job can run here any more
        self.short_since: float | None = None  # when a nursery could first not be started
        self.fruitless = 0  # processes that ended, one after the other, without a job done
        self._handle, self._loaded, self._lost, self._died = handle, loaded, lost, died
        self._began, self._not_started = began, not_started
        self.setup_seconds: float | None = None  # that its setup may take
        self.cleans_up = False  # it has a cleanup function
        self._is_loaded = False
        self._cleaned: AsyncResult = AsyncResult()  # what cleanup raised, what else to tell
        self._limit: Limit
        self._nursery: NurseryProcess | None = None  # until its files are there
        self._reader: gevent.Greenlet[..., None] | None = None
        self.ended = False

    def prepare(self, name: str, settings: dict[str, Any], content: Buffer) -> None:
        """Keep what nurseries load."""
        self._load = (name, {**settings, "directory": str(self.directory)}, content)

    def count_code(self, weight: int) -> None:
        """Count the bytes that are kept until it is closed."""
        self._weight = self._code_weight = weight
        self._memory.take(weight)
        self._memory.lasting += weight

    def close_account(self) -> None:
        """Count nothing of it any more: it is closed."""
        self.newest.close()
        weight, self._weight = self._weight, 0
        self._memory.lasting -= self._code_weight
        self._memory.release(weight)

    def keep(
        self, jobs: Sequence[int], payloads: Sequence[Payload], options: dict[int, dict[str, Any]]
    ) -> None:
        """Keep jobs that have come until they are final, or given back."""
        if not self.payloads.keys().isdisjoint(jobs):
            self._drop(jobs)  # they have come again
        self.payloads.update(zip(jobs, payloads, strict=True))
        weight = weight_of_jobs(payloads)
        for job, table in options.items():
            self.options[job] = table
            self._weights[job] = weight_of_table(table)
            weight += self._weights[job]
        self._weight += weight
        self._memory.take(weight)

    def load(self, nursery: NurseryProcess) -> None:
        """Have a nursery load the code: the first one, or one in the place of another."""
        self._nursery = nursery
        nursery.load(*self._load)
        self._limit = Limit(nursery, "its loading was interrupted", None)
        self._reader = gevent.spawn(self._read_nursery, nursery)

    def forget(self, jobs: Collection[int]) -> None:
        """Drop what was kept for jobs that are final, or are given back."""
        self._drop(jobs)
        self.newest.forget(jobs)
        if self.options:
            for job in jobs:
                if self.options.pop(job, None) is not None:
                    self.needs.forget(job)

    def _drop(self, jobs: Collection[int]) -> None:
        weight, take = 0, self.payloads.pop
        for job in jobs:
            payload = take(job, None)
            if payload is not None:
                weight += JOB_BYTES + len(payload)
        if self._weights:
            weight += sum(self._weights.pop(job, 0) for job in jobs)
        if weight and self._weight:
            self._weight -= weight
            self._memory.release(weight)

    def start_worker(self, worker_id: int) -> WorkerProcess:
        """Return a worker that can be sent jobs at once. Raises OSError."""
        assert self._nursery is not None, "workers run what is loaded"
        nursery = self._nursery
        files: list[int] = []
        try:
            files.append(make_journal())
            files += make_outputs()
            keep_descriptors(files[-1])
            link = nursery.fork(worker_id, files)
        except OSError:
            for descriptor in files:
                os.close(descriptor)
            raise
        journal, *outputs = files
        worker = WorkerProcess(worker_id, link, journal, outputs, nursery.uid)
        worker.streams = self.streams
        self.workers[worker_id] = worker
        worker.reader = gevent.spawn(self._read_worker, worker)
        return worker

    def _read_nursery(self, nursery: NurseryProcess) -> None:
        end = nursery.link.read(lambda frame: self._from_nursery(nursery, frame))
        self._is_loaded = nursery.busy = False
        if nursery.shortage is not None and not self.ended:
            self._lost(nursery.shortage, True)
            return
        how = None if self.ended else nursery.how_it_ended()
        what = "its nursery, the process that loads it and starts its workers,"
        reason = self._limit.over(f"{what} {how or f'ended: {end.reason}'}")
        self._cleaned.set((reason, {}))
        if self.ended:
            return
        self._lost(reason or end.reason, False)
        for worker in list(self.workers.values()):
            worker.signal_group(
                signal.SIGKILL
            )  # it dies with its nursery; what it started does not
            worker.told_ended(Death("was killed with its nursery process"))

    def _from_nursery(self, nursery: NurseryProcess, frame: Frame) -> None:
        if frame.kind == Kind.LOADED:
            nursery.busy = False
            error = self._limit.over(frame.body[0])
            self._is_loaded = error is None
            self._loaded(error, frame.body[1])
        elif frame.kind == Kind.BEGUN:
            late = f"its setup did not finish in {self.setup_seconds} s (setup_timeout)"
            self._limit = Limit(nursery, late, self.setup_seconds)
        elif frame.kind == Kind.CLEANED:
            nursery.busy = False
            self._cleaned.set(tuple(frame.body))
        elif frame.kind == Kind.FORKED:
            worker = self.workers.get(frame.body[0])
            if worker is not None:
                worker.forked(nursery.worker_pid(frame.body[1]))
                if worker.pid is not None:
                    self._began(worker.pid)
        elif frame.kind == Kind.NOT_FORKED:
            worker = self.workers.pop(frame.body[0], None)
            if worker is not None:
                self._not_started(worker, frame.body[1])
                worker.told_ended(Death("could not be started"))
                worker.link.close()
        elif frame.kind == Kind.DIED:
            worker = self.workers.get(frame.body[0])
            if worker is not None:
                worker.told_ended(Death(*frame.body[1:]))

    def _read_worker(self, worker: WorkerProcess) -> None:
        end = worker.link.read(lambda frame: self._handle(worker, frame))
        if end.refused:
            logger.warning("worker %s is ended: %s", worker.worker_id, end.reason)
            worker.signal_group(signal.SIGKILL)
        # A job may close all descriptors and go on: its end is the end of the process.
        worker.has_ended.wait()
        self.workers.pop(worker.worker_id, None)
        self._died(worker)
        worker.release()

    def clean(self, seconds: float) -> tuple[str | None, Told]:
        """End the workers, then run the computation's cleanup, for so long at most.

        Return what it raised, and what else there is to tell. Nothing of it where the
        computation has none, or was never ready.
        """
        if not (self.cleans_up and self._is_loaded and self._nursery is not None):
            return None, {}
        workers = list(self.workers.values())
        for worker in workers:
            worker.kill()
        gevent.wait([worker.has_ended for worker in workers], timeout=WORKERS_END_SECONDS)
        late = f"cleanup did not finish in {seconds:g} s"
        self._limit = Limit(self._nursery, late, seconds)
        self._nursery.clean()
        error, told = self._cleaned.get()
        return self._limit.over(error), told

    def interrupt(self) -> None:
        """Have code of the user's that its nursery runs end soon, by force if it must be."""
        if self._nursery is not None and self._nursery.busy:
            self._limit.interrupt()

    def end(self) -> None:
        """End all processes and remove the directory; returns when they are gone."""
        self.ended = True
        workers = list(self.workers.values())
        for worker in workers:
            worker.kill()
            worker.link.close()
        if self._nursery is not None:
            self._nursery.end()
        if self._reader is not None:
            self._reader.join(timeout=1)
        for worker in workers:
            worker.told_ended(Death("was ended with its computation"))
        self.files.clear()
