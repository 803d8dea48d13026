"""The nursery that a node keeps warm, and those that are on their way out."""

import logging
from pathlib import Path
from typing import Protocol

from gevent.pool import Group

from dispy.node.confinement import Confinement
from dispy.node.joblog import JobLog
from dispy.node.nursery import NurseryProcess

logger = logging.getLogger("dispy.node")


class Processes(Protocol):
    """What can be ended, which takes a while."""

    def end(self) -> None:
        """Return when its processes are gone."""


class Nurseries:
    """Has one nursery ready: a new computation starts without waiting for Python.

    Where there are sandboxes there is none: each is made for its computation (0.1 s).
    """

    def __init__(self, confinement: Confinement) -> None:
        self._confinement = confinement
        confined = confinement.user is not None or confinement.sandbox is not None
        self._log = JobLog() if confined else None
        self._ending = Group()
        self._stopped = False
        self._spare: NurseryProcess | None = None
        self.prepare()

    def prepare(self) -> None:
        """Start a nursery if none is ready, and descriptors are left for it."""
        if self._confinement.sandbox is not None:
            return
        try:
            self._fill()
        except OSError as error:
            logger.debug("no nursery is kept ready: %s", error)

    def _fill(self) -> None:
        if self._spare is not None and self._spare.ended:  # somebody else killed it
            self.end(self._spare)
            self._spare = None
        if self._spare is None and not self._stopped:
            self._spare = NurseryProcess(self._confinement, self._log)

    def take(self, directory: Path) -> NurseryProcess:
        """Return a nursery that has no computation yet, for one that works in a directory.

        Raises OSError.
        """
        if self._confinement.sandbox is not None:
            return NurseryProcess(self._confinement, self._log, directory)
        self._fill()
        nursery, self._spare = self._spare, None
        assert nursery is not None, "a node that is stopping opens nothing"
        return nursery

    def end(self, processes: Processes) -> None:
        """Have processes ended; returns at once."""
        self._ending.spawn(processes.end)

    def stop(self) -> None:
        """End the spare one too; returns when all are gone."""
        self._stopped = True
        if self._spare is not None:
            self.end(self._spare)
        self._ending.join()
        if self._log is not None:
            self._log.stop()
