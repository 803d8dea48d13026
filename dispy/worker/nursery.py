"""A computation's nursery: loads it once, forks its workers, and tells how each ended."""

import contextlib
import faulthandler
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from dispy.protocol.frames import Memory, Shared
from dispy.protocol.messages import Kind, check
from dispy.shipping.failures import describe_failure
from dispy.shipping.stored import use_store
from dispy.system.processes import (
    adopt_orphans,
    be_killed_before_others,
    children,
    die_with_parent,
    how_it_ended,
    most_memory,
    outlive_parent,
)
from dispy.system.segments import take_over
from dispy.system.shortage import tell_shortage
from dispy.worker.channel import Channel, EndOfChannel, move_out_of_the_way
from dispy.worker.computation import Computation
from dispy.worker.inside import NAMES
from dispy.worker.isolation import reseed, watch
from dispy.worker.jobs import Worker
from dispy.worker.journal import Journal, SharedJournal
from dispy.worker.limits import JobLimits
from dispy.worker.loading import load
from dispy.worker.preparing import Preparing, Told

FILES_OF_A_WORKER = 4  # its socket, its journal, what takes its stdout and stderr
# A machine that is short of memory is to lose a job, not the nursery of others, nor their node.
NURSERY_GOES_BEFORE, WORKER_GOES_BEFORE = 100, 200


class Nursery:
    """Serves a node until it closes the channel; then no process of the computation is left."""

    def __init__(self, sock: socket.socket) -> None:
        self._channel = Channel(sock, together=FILES_OF_A_WORKER)
        self._computation: Computation | None = None
        self._preparing: Preparing | None = None
        self._directory = ""
        self._segments = 0  # memory files in which each worker may have large results
        self._by_lines = False  # output is read while jobs run
        self._make_worker: Callable[..., Worker] = Worker
        self._make_journal: Callable[[int], Journal] = Journal
        self._max_result_size = 0  # bytes; 0: any
        self._limits = JobLimits({})
        self._workers: dict[int, int] = {}  # process -> worker
        self._own: set[int] = set()  # processes that loading the computation has started
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)

    def run(self) -> int:
        """Return the exit status; runs in the process's only thread."""
        die_with_parent(os.getppid())
        adopt_orphans()
        be_killed_before_others(NURSERY_GOES_BEFORE)
        faulthandler.enable(2)  # a crash in C code is told with the lines of Python that led there
        watch()
        self._heed_signals()
        try:
            while True:
                ready, _, _ = select.select([self._channel.sock, self._wake], [], [])
                if self._wake in ready:
                    self._wake.recv(4096)
                    self._tell_ended()
                if self._channel.sock in ready:
                    self._obey()
        except EndOfChannel:
            return 0
        finally:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            self._end_all()

    def _heed_signals(self) -> None:
        """Have signals as they should be; code of the user's may have changed them."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the node's to answer
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that the descriptor is written to
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)

    def _end_all(self) -> None:
        """End every descendant; those whose parents end become our children, and end next."""
        for pid in self._workers:
            _kill_group(pid)
        with contextlib.suppress(ChildProcessError):
            while True:
                for pid in children(os.getpid()):
                    _kill(pid)
                os.wait()

    def _obey(self) -> None:
        frame = check(self._channel.receive())
        if frame.kind == Kind.LOAD:
            name, settings = frame.body
            code = frame.buffers[0]
            assert not isinstance(code, Shared), "checked"
            self._channel.send(Kind.LOADED, [*self._load(name, settings, code)])
            self._heed_signals()
        elif frame.kind == Kind.CLEAN:
            assert self._preparing is not None, "the node cleans only what is loaded"
            self._channel.send(Kind.CLEANED, [*self._preparing.clean_up()])
            self._heed_signals()
        elif frame.kind == Kind.FORK:
            self._fork(frame.body[0])

    def _load(
        self, name: str, settings: dict[str, Any], content: Memory
    ) -> tuple[str | None, Told]:
        """Make the computation ready; return why it cannot be used, and what else to tell."""
        directory, provided = settings["directory"], settings["names"]
        self._segments = int(settings.get("segments") or 0)
        if settings.get("isolation") == "job" and not settings.get("program"):
            from dispy.worker.forking import ForkingWorker  # 1 ms that others need not wait for

            self._make_worker = ForkingWorker
            self._make_journal = SharedJournal
        self._by_lines = bool(settings.get("stream"))
        self._max_result_size = int(settings.get("max_result_size") or 0)
        try:
            NAMES.update(provided)
            use_store(settings.get("store"))
            os.chdir(directory)
            sys.path.insert(0, directory)
            self._limits = JobLimits(settings.get("limits", {}), settings.get("cpus", 1))
            self._limits.surround()
            for entry in settings.get("path", []):
                if entry not in sys.path:
                    sys.path.append(entry)
            self._computation = load(name, content, settings)
            self._directory = directory
            self._preparing = Preparing(
                self._computation, settings.get("setup_args"), bool(settings.get("client_shutdown"))
            )
            if self._computation.setup is not None:
                self._channel.send(Kind.BEGUN, [])
            why, told = self._preparing.set_up()
            self._own = set(children(os.getpid()))
            # From here on the end of the channel says that the node has ended: we must live to
            # end what the jobs have started.
            outlive_parent()
            return why, told
        except BaseException as error:  # foreign code: imports that the computation makes
            return describe_failure(error).text, {}

    def _fork(self, worker_id: int) -> None:
        assert self._computation is not None, "the node forks only what is loaded"
        received = [self._channel.descriptors.popleft() for _ in range(FILES_OF_A_WORKER)]
        parent = os.getpid()
        try:
            descriptors = take_over(received)
            try:
                pid = os.fork()
                if pid == 0:
                    self._be_worker(parent, *descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        except OSError as error:
            self._channel.send(Kind.NOT_FORKED, [worker_id, tell_shortage(error)])
            return
        # It does so too. But whoever is told of it may signal its group at once.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.setpgid(pid, pid)
        self._workers[pid] = worker_id
        self._channel.send(Kind.FORKED, [worker_id, pid])

    def _be_worker(self, parent: int, descriptor: int, journal: int, *outputs: int) -> NoReturn:
        assert self._computation is not None
        status, log = 1, move_out_of_the_way(os.dup(2))
        try:
            die_with_parent(parent)
            adopt_orphans()
            be_killed_before_others(WORKER_GOES_BEFORE)
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for sock in (self._channel.sock, self._wake, self._waker):
                sock.close()
            channel = Channel(socket.socket(fileno=move_out_of_the_way(descriptor)))
            records = self._make_journal(journal)
            os.close(journal)
            reseed()
            self._make_worker(
                channel, records, self._computation, self._directory, self._limits,
                outputs, self._segments, self._by_lines, log, self._max_result_size,
            ).serve()  # fmt: skip
            status = 0
        except BaseException:  # a bug of ours: the node's log is where it can be seen
            os.write(log, traceback.format_exc().encode())
        finally:
            os._exit(status)  # never back into the nursery's loop, nor its exit handlers

    def _tell_ended(self) -> None:
        """Reap every child that ended; of a worker, end what it leaves and tell the node."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            worker_id = self._workers.pop(pid, None)
            if worker_id is not None:
                _kill_group(pid)
                how, number = how_it_ended(status)
                self._channel.send(Kind.DIED, [worker_id, how, most_memory(usage), number])
            # What is left of a worker's jobs is ours now; so is what those leave in turn.
            for orphan in set(children(os.getpid())) - self._workers.keys() - self._own:
                _kill(orphan)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody of it is left
        os.killpg(pid, signal.SIGKILL)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
