"""Workers that cannot be started, because the machine is out of something: tried again.

The jobs of such a worker wait again, those of others go on; and as many slots stay empty for a
moment as there are workers that could not be started.
"""

import logging
from collections.abc import Callable, Sequence
from time import monotonic

import gevent

from dispy.execution.core import Execution
from dispy.execution.records import Action

logger = logging.getLogger("dispy.node")

PAUSE_SECONDS = 0.2  # before the first attempt after a failed one; each next one twice as long
PAUSE_MOST_SECONDS = 3.0
TOLD_SECONDS = 60.0  # between two lines of the log


class Starts:
    """Works on its node's core."""

    def __init__(
        self,
        core: Execution,
        perform: Callable[[Sequence[Action]], None],
        tell: Callable[[str], None],
    ) -> None:
        """tell: called with why jobs may wait, and with "" when that is over."""
        self._core, self._perform, self._tell = core, perform, tell
        self._why = ""
        self._pause = PAUSE_SECONDS
        self._told = -TOLD_SECONDS
        self._waiting: gevent.Greenlet[..., None] | None = None

    def failed(self, worker_id: int, why: str) -> None:
        """Try again soon to start a worker for the jobs that this one should have run."""
        now = monotonic()
        if now - self._told >= TOLD_SECONDS:
            self._told = now
            logger.warning("a process for jobs could not be started, it is tried again: %s", why)
        if not self._why:
            self._why = f"processes for jobs cannot be started there: {why}"
            self._tell(self._why)
        if self._waiting is None:
            self._waiting = gevent.spawn_later(self._pause, self._again)
            self._pause = min(2 * self._pause, PAUSE_MOST_SECONDS)
        self._perform(self._core.slot_lost(worker_id))

    def _again(self) -> None:
        self._waiting = None
        self._perform(self._core.slots_back())

    def succeeded(self) -> None:
        """Take note that a worker was started."""
        if self._why and self._waiting is None:
            self._why, self._pause = "", PAUSE_SECONDS
            logger.info("processes for jobs are started again")
            self._tell("")

    def stop(self) -> None:
        """Try nothing again."""
        if self._waiting is not None:
            self._waiting.kill()
