"""A nursery as its node holds it: a plain Python process for one computation."""

import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gevent
from gevent import socket, subprocess

from dispy.model.errors import DispyError
from dispy.net.link import Link
from dispy.node.confinement import Confinement
from dispy.node.forkserver import AdoptedProcess, ForkServer, NoForkServer
from dispy.node.joblog import JobLog
from dispy.protocol.frames import Buffer
from dispy.protocol.messages import Kind
from dispy.system.namespaces import pid_here
from dispy.system.processes import children, descendants, told_exit, widen
from dispy.system.reach import belongs_to, kill_all, signal_process
from dispy.system.shortage import is_shortage, keep_descriptors, tell_shortage

logger = logging.getLogger("dispy.node")

END_SECONDS = 5.0  # that an idle nursery may take to end before it is killed
ENDED_SECONDS = 1.0  # between the end of a nursery's link and that of its process
BUSY_END_SECONDS = 2.0  # the same for one whose code is interrupted


class NurseryProcess:
    """A nursery for one computation.

    One in a sandbox sees nothing of the computation's but `directory`.
    """

    def __init__(
        self,
        confinement: Confinement,
        log: JobLog | None = None,
        directory: Path | None = None,
        server: ForkServer | None = None,
    ) -> None:
        """log: where what it says goes; None: to where this process's does. Raises OSError.

        server: forks it; None: it is a Python of its own.
        """
        self._confinement, self._log, self._directory = confinement, log, directory
        self._server = server
        ours, theirs = socket.socketpair()
        try:
            keep_descriptors(theirs.fileno())
        except OSError:
            ours.close()
            theirs.close()
            raise
        for sock in (ours, theirs):
            widen(sock)
        self.link = Link(ours, shares_memory=True)
        self._process: subprocess.Popen | AdoptedProcess | None = None
        self.shortage: str | None = None  # why it could not be started, though it may be later
        self.busy = False  # it runs code of the user's itself, and hears nothing
        # Starting a process waits a little, which a handler of frames must not.
        self._starting = gevent.spawn(self._start, theirs)

    def _start(self, theirs: socket.socket) -> None:
        with theirs:  # without a process our reader finds the end of the stream
            try:
                self._process = self._forked(theirs) or self._run(theirs)
            except (OSError, DispyError) as error:
                if isinstance(error, OSError) and is_shortage(error):
                    self.shortage = tell_shortage(error)
                told = getattr(error, "strerror", None) or error
                logger.error("cannot start a process: %s", told)

    def _forked(self, theirs: socket.socket) -> AdoptedProcess | None:
        """Return it, forked; None: there is nothing that could."""
        if self._server is None:
            return None
        try:
            return self._server.fork(theirs.fileno())
        except NoForkServer:
            return None

    def _run(self, theirs: socket.socket) -> subprocess.Popen:
        sandbox, passed = self._confinement.sandbox, [theirs.fileno()]
        command = self._confinement.command(*passed)
        try:
            if sandbox is not None:
                assert self._directory is not None, "a sandbox is made for a computation"
                passed.append(sandbox.open(self._directory))
                command = self._confinement.inside(command, str(self._directory), passed[1])
            return subprocess.Popen(
                command,
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=self._log and self._log.descriptor,
                stderr=self._log and self._log.descriptor,
                start_new_session=True,  # a terminal's Ctrl-C is for the node alone
                **self._confinement.start,
            )
        finally:
            for descriptor in passed[1:]:
                os.close(descriptor)

    def load(self, name: str, settings: dict[str, Any], content: Buffer) -> None:
        """Give it its computation; LOADED comes back on the link."""
        self.busy = True
        self.link.send(Kind.LOAD, [name, settings], [content])

    def fork(self, worker_id: int, files: Sequence[int]) -> Link:
        """Have a worker forked; return the link to it. Raises OSError.

        FORKED or NOT_FORKED comes on the nursery's link.

        files: its journal, and what takes its output.
        """
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            widen(sock)
        try:
            self.link.send_descriptors(Kind.FORK, [worker_id], [theirs.fileno(), *files])
            return Link(ours, shares_memory=True)
        finally:
            theirs.close()

    def _pid(self) -> int | None:
        """Return the nursery's own id: in a sandbox it is the only child of its process 1."""
        if self._process is None or self._process.poll() is not None:
            return None
        pid: int = self._process.pid
        for _ in range(2 if self._confinement.sandbox is not None else 0):
            below = children(pid)
            if not below:
                return None  # it has not begun, or has ended
            pid = below[0]
        return pid

    @property
    def uid(self) -> int | None:
        """The number of the user as whom it and its workers run; None: of the node's own."""
        return None if self._confinement.user is None else self._confinement.user.uid

    def worker_pid(self, said: int) -> int | None:
        """Return the id of a worker that it says it has forked.

        None: that has ended already, or is none. What runs as another user is not believed: it
        could name any process of this machine, and have it killed. In a sandbox it knows its
        workers by other ids than we do.
        """
        if self.uid is None and self._confinement.sandbox is None:
            return said
        nursery = self._pid()
        forked = None if nursery is None else pid_here(said, reversed(children(nursery)))
        return forked if forked is not None and belongs_to(forked, self.uid) else None

    def how_it_ended(self) -> str | None:
        """Say in words how its process ended, whose link has; None: it has not, or never began."""
        self._starting.join()
        if self._process is None:
            return None
        try:
            return told_exit(self._process.wait(timeout=ENDED_SECONDS))
        except subprocess.TimeoutExpired:
            return None

    def clean(self) -> None:
        """Have it run the computation's cleanup; CLEANED comes back on the link."""
        self.busy = True
        self.link.send(Kind.CLEAN, [])

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the code that it runs; one that runs none ends."""
        pid = self._pid()
        if pid is not None:
            signal_process(pid, signal.SIGTERM, self.uid)

    def kill(self) -> None:
        """End it by force, with what its code has started."""
        if self._process is None or self._process.poll() is not None:
            return
        started = descendants(self._process.pid)
        self._process.kill()
        kill_all(started, self.uid)

    def end(self) -> None:
        """End it with all its workers; returns when the process is gone."""
        busy = self.busy  # before its link, whose end it would be told as its own
        self.link.close()
        self._starting.join()
        if self._process is None:
            return
        if busy:
            self.interrupt()
        try:
            self._process.wait(timeout=BUSY_END_SECONDS if busy else END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
