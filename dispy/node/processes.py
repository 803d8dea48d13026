"""The processes of a node's computations, as the node holds them: nurseries and workers."""

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
from gevent import socket, subprocess

from dispy.net.link import Link
from dispy.protocol.frames import Buffer, Frame
from dispy.protocol.messages import Kind, Payload
from dispy.system.interpreter import own_command, own_environment
from dispy.system.processes import free_beyond, memory_files, widen
from dispy.worker.output import NAMES, OUTPUT_LIMIT

logger = logging.getLogger("dispy.node")

POKE_SECONDS = 0.01  # of silence, with jobs behind the one that runs
TERMINATE_SECONDS = 6.0  # after a cancel's SIGINT: dispy 4's own figures
KILL_SECONDS = 8.0
LAST_WORDS_SECONDS = 1.0  # how long a dead worker's socket may hold what it sent before


class NurseryProcess:
    """A nursery that was started before anybody needed it, and then got one computation."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            widen(sock)
        self.link = Link(ours, shares_memory=True)
        self._process: subprocess.Popen | None = None
        # Starting a process waits a little, which a handler of frames must not.
        self._starting = gevent.spawn(self._start, theirs)

    def _start(self, theirs: socket.socket) -> None:
        try:
            self._process = subprocess.Popen(
                own_command("worker", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=own_environment(),
                start_new_session=True,  # a terminal's Ctrl-C is for the node alone
            )
        except OSError as error:
            logger.error("cannot start a process: %s", error.strerror or error)
        finally:
            theirs.close()  # without a process our reader finds the end of the stream

    def load(self, name: str, settings: dict[str, Any], content: Buffer) -> None:
        """Give it its computation; LOADED comes back on the link."""
        self.link.send(Kind.LOAD, [name, settings], [content])

    def fork(self, worker_id: int) -> Link:
        """Have a worker forked; return the link to it. FORKED comes on the nursery's link."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            widen(sock)
        self.link.send_descriptor(Kind.FORK, [worker_id], theirs.fileno())
        theirs.close()
        return Link(ours, shares_memory=True)

    def end(self, seconds: float = 5.0) -> None:
        """End it with all its workers; returns when the process is gone."""
        self.link.close()
        self._starting.join()
        if self._process is None:
            return
        try:
            self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class WorkerProcess:
    """One worker: its link, what is known of its process, and how far a cancel has gone."""

    def __init__(self, worker_id: int, link: Link) -> None:
        self.worker_id, self.link = worker_id, link
        self.pid: int | None = None  # None until its nursery has forked it
        self.ended: str | None = None  # how, once the nursery has said so
        self.cancelling: set[int] = set()  # jobs to cancel once it is known which one runs
        self.interrupted: float | None = None  # monotonic second of a cancel's SIGINT
        self.stopped = False  # killed on purpose; its end is no news
        self.last_heard = monotonic()
        self._signalled = 0
        self._outputs: list[str] = []  # paths of what it captures output in, once looked up

    def supervise(self, now: float, behind: bool) -> None:
        """Poke, press on with a cancel, bound the output; call while it has jobs."""
        if self.pid is None:
            return
        if (behind or self.cancelling) and now - self.last_heard > POKE_SECONDS:
            self.last_heard = now
            self.signal(signal.SIGURG)
        if self.interrupted is not None:
            waited = now - self.interrupted
            if waited > KILL_SECONDS and self._signalled != signal.SIGKILL:
                self.signal_group(signal.SIGKILL)
            elif waited > TERMINATE_SECONDS and self._signalled == signal.SIGINT:
                self.signal_group(signal.SIGTERM)

    def bound_output(self) -> None:
        """Free what the running job's output holds beyond the limit."""
        if self.pid is None:
            return
        if not self._outputs:
            self._outputs = memory_files(self.pid, NAMES)
        for path in self._outputs:
            free_beyond(path, OUTPUT_LIMIT)

    def interrupt(self, now: float) -> None:
        """Begin to cancel the job that it runs, and nothing else."""
        if self.interrupted is None:
            self.interrupted = now
            self.signal_group(signal.SIGINT)

    def kill(self) -> None:
        """End it on purpose."""
        self.stopped = True
        self.signal_group(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal to the worker alone."""
        if self.pid is not None and self.ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the worker and what its job started."""
        self._signalled = number
        if self.pid is not None and self.ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


class ComputationProcesses:
    """A computation on this node: its directory, its nursery, its workers, its payloads.

    `died` is called with a worker once its process is gone and its last words were read.
    """

    def __init__(
        self,
        nursery: NurseryProcess,
        directory: Path,
        handle: Callable[[WorkerProcess, Frame], None],
        loaded: Callable[[str | None], None],
        died: Callable[[WorkerProcess], None],
    ) -> None:
        self.directory = directory
        self.payloads: dict[int, Payload] = {}
        self.workers: dict[int, WorkerProcess] = {}
        self._nursery, self._handle, self._loaded, self._died = nursery, handle, loaded, died
        self._reader = gevent.spawn(self._read_nursery)
        self.ended = False

    def load(self, name: str, settings: dict[str, Any], content: Buffer) -> None:
        """Have the nursery load the code; `loaded` is called with None or with what failed."""
        self._nursery.load(name, {**settings, "directory": str(self.directory)}, content)

    def start_worker(self, worker_id: int) -> WorkerProcess:
        """Return a worker that can be sent jobs at once."""
        worker = WorkerProcess(worker_id, self._nursery.fork(worker_id))
        self.workers[worker_id] = worker
        gevent.spawn(self._read_worker, worker)
        return worker

    def _read_nursery(self) -> None:
        end = self._nursery.link.read(self._from_nursery)
        if not self.ended:
            self._loaded(f"the process that loads it ended: {end.reason}")
        for worker in list(self.workers.values()):
            self._has_died(worker, "lost its nursery process")

    def _from_nursery(self, frame: Frame) -> None:
        if frame.kind == Kind.LOADED:
            self._loaded(frame.body[0])
        elif frame.kind == Kind.FORKED:
            worker = self.workers.get(frame.body[0])
            if worker is not None:
                worker.pid = frame.body[1]
                if worker.stopped:
                    worker.kill()
        elif frame.kind == Kind.DIED:
            worker = self.workers.get(frame.body[0])
            if worker is not None:
                worker.ended = frame.body[1]
                # What a job's own child still holds open must not keep us waiting.
                gevent.spawn_later(LAST_WORDS_SECONDS, worker.link.close)

    def _read_worker(self, worker: WorkerProcess) -> None:
        worker.link.read(lambda frame: self._handle(worker, frame))
        deadline = monotonic() + LAST_WORDS_SECONDS
        while worker.ended is None and worker.worker_id in self.workers:
            if monotonic() > deadline and not worker.stopped:
                logger.info("worker %s closed its connection; it is ended", worker.worker_id)
                worker.kill()
            gevent.sleep(0.002)
        self._has_died(worker, worker.ended or "ended")

    def _has_died(self, worker: WorkerProcess, how: str) -> None:
        if self.workers.pop(worker.worker_id, None) is not None:
            worker.ended = worker.ended or how
            worker.link.close()
            self._died(worker)

    def end(self) -> None:
        """End all processes and remove the directory; returns when they are gone."""
        self.ended = True
        for worker in self.workers.values():
            worker.kill()
            worker.link.close()
        self._nursery.end()
        self._reader.join(timeout=1)
        shutil.rmtree(self.directory, ignore_errors=True)
