"""Where a node gets its nurseries from, and those that are on their way out."""

from pathlib import Path
from typing import Protocol

from gevent.pool import Group

from dispy.node.confinement import Confinement
from dispy.node.forkserver import ForkServer
from dispy.node.joblog import JobLog
from dispy.node.nursery import NurseryProcess
from dispy.system.processes import ADOPTS_ORPHANS


class Processes(Protocol):
    """What can be ended, which takes a while."""

    def end(self) -> None:
        """Return when its processes are gone."""


class Nurseries:
    """Has a process ready that forks them: a new computation starts without waiting for Python.

    Not where there are sandboxes: each is made for its computation (0.1 s).
    """

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement
        confined = confinement.user is not None or confinement.sandbox is not None
        self._log = JobLog() if confined else None
        self._ending = Group()
        self._server: ForkServer | None = None
        if ADOPTS_ORPHANS and confinement.sandbox is None:
            self._server = ForkServer(confinement, self._log)

    def take(self, directory: Path) -> NurseryProcess:
        """Return a nursery that has no computation yet, for one that works in a directory.

        Raises OSError.
        """
        if self._server is not None and self._server.ended:  # somebody else killed it
            self.end(self._server)
            self._server = ForkServer(self._confinement, self._log)
        return NurseryProcess(self._confinement, self._log, directory, self._server)

    def end(self, processes: Processes) -> None:
        """Have processes ended; returns at once."""
        self._ending.spawn(processes.end)

    def stop(self) -> None:
        """Return when all are gone, and what forks them too."""
        if self._server is not None:
            self.end(self._server)
        self._ending.join()
        if self._log is not None:
            self._log.stop()
