"""A nursery as its node holds it: a plain Python process for one computation."""

import contextlib
import logging
from typing import Any

import gevent
from gevent import socket, subprocess

from dispy.net.link import Link
from dispy.node.confinement import Confinement
from dispy.node.joblog import JobLog
from dispy.protocol.frames import Buffer
from dispy.protocol.messages import Kind
from dispy.system.processes import children, descendants, widen
from dispy.system.reach import belongs_to, kill_all

logger = logging.getLogger("dispy.node")

END_SECONDS = 5.0  # that an idle nursery may take to end before it is killed
BUSY_END_SECONDS = 2.0  # the same for one whose code is interrupted


class NurseryProcess:
    """A nursery that was started before anybody needed it, and then got one computation."""

    def __init__(self, confinement: Confinement, log: JobLog | None = None) -> None:
        """log: where what it says goes; None: to where this process's does."""
        self._confinement, self._log = confinement, log
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            widen(sock)
        self.link = Link(ours, shares_memory=True)
        self._process: subprocess.Popen | None = None
        self.busy = False  # it runs code of the user's itself, and hears nothing
        # Starting a process waits a little, which a handler of frames must not.
        self._starting = gevent.spawn(self._start, theirs)

    def _start(self, theirs: socket.socket) -> None:
        try:
            self._process = subprocess.Popen(
                self._confinement.command(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log and self._log.descriptor,
                stderr=self._log and self._log.descriptor,
                start_new_session=True,  # a terminal's Ctrl-C is for the node alone
                **self._confinement.start,
            )
        except OSError as error:
            logger.error("cannot start a process: %s", error.strerror or error)
        finally:
            theirs.close()  # without a process our reader finds the end of the stream

    def load(self, name: str, settings: dict[str, Any], content: Buffer) -> None:
        """Give it its computation; LOADED comes back on the link."""
        self.busy = True
        self.link.send(Kind.LOAD, [name, settings], [content])

    def fork(self, worker_id: int, journal: int) -> Link:
        """Have a worker forked; return the link to it. FORKED comes on the nursery's link."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            widen(sock)
        self.link.send_descriptors(Kind.FORK, [worker_id], [theirs.fileno(), journal])
        theirs.close()
        return Link(ours, shares_memory=True)

    @property
    def uid(self) -> int | None:
        """The number of the user as whom it and its workers run; None: of the node's own."""
        return None if self._confinement.user is None else self._confinement.user.uid

    def worker_pid(self, said: int) -> int | None:
        """Return the id of a worker that it says it has forked.

        None: that has ended already, or is none. What runs as another user is not believed: it
        could name any process of this machine, and have it killed.
        """
        if self.uid is None:
            return said
        forked = self._process is not None and said in children(self._process.pid)
        return said if forked and belongs_to(said, self.uid) else None

    @property
    def ended(self) -> bool:
        """Whether somebody else has ended it."""
        return self._process is not None and self._process.poll() is not None

    def clean(self) -> None:
        """Have it run the computation's cleanup; CLEANED comes back on the link."""
        self.busy = True
        self.link.send(Kind.CLEAN, [])

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in the code that it runs; one that runs none ends."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

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
