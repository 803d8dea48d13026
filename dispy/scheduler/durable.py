"""What a scheduler has written down, and what may be done only once it is on disk.

Nothing leaves a shared scheduler that it could forget: no client hears that it was heard, no node
gets a job, and neither gets a result or may drop one, before the journal has it. What is recorded
in one turn of the loop is committed together, and what waits for it follows in order.
"""

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

import gevent
from gevent import get_hub

from dispy.scheduler.journal import Journal
from dispy.scheduler.journal_entries import Entry

logger = logging.getLogger("dispy.scheduler")
Then = Callable[[], object]

# Of what follows a commit, before others have their turn: a thousand programs that submit jobs
# at once took ten seconds, and all took the scheduler for silent.
TURN_SECONDS = 0.05
_NEXT_TURN = 1e-6  # seconds; a timer, because the loop looks for others' bytes before it


class Durable:
    """Of one journal, on its hub; with none everything is as safe at once as it will be."""

    def __init__(self, journal: Journal | None = None) -> None:
        self.journal = journal
        self._recorded = False  # in this turn of the loop
        self._waiting: deque[list[Then]] = deque()  # for each commit that has not ended, in order

    def record(self, entry: Entry) -> None:
        """Write an entry down with this turn of the loop."""
        if self.journal is None:
            return
        self.journal.record(entry)
        if not self._recorded:
            self._recorded = True
            self._waiting.append([])
            get_hub().loop.run_callback(self.commit)

    def when_safe(self, then: Then) -> None:
        """Call `then` when all that was recorded so far is on disk; at once if it is."""
        if self._waiting:
            self._waiting[-1].append(then)
        else:
            then()

    def commit(self) -> None:
        """Have written what was recorded; called by itself at the end of a turn."""
        if self._recorded:
            self._recorded = False
            assert self.journal is not None, "something was recorded"
            self.journal.commit(self._committed)

    def _committed(self) -> None:
        waited, began = self._waiting[0], monotonic()
        for then in waited:  # what comes meanwhile is appended, or has a commit of its own
            if monotonic() - began > TURN_SECONDS:
                gevent.sleep(_NEXT_TURN)
                began = monotonic()
            try:
                then()
            except Exception:  # a fault in one of many, who have nothing to do with each other
                logger.exception("what follows a commit has failed")
        self._waiting.popleft()

    def close(self) -> None:
        """Write what was recorded, and let go of the journal; waits."""
        if self.journal is not None:
            self.commit()
            self.journal.close()
