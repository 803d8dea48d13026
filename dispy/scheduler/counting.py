"""How many jobs came and ended, by how: for the status, and once a minute for the log."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import gevent

from dispy.model.events import event
from dispy.model.statuses import Status

logger = logging.getLogger("dispy.scheduler")

LOG_SECONDS = 60.0


class Counts:
    """Of one scheduler since it began; the statuses are those of dispy, in small letters."""

    def __init__(self) -> None:
        self._jobs: Counter[str] = Counter()

    def submitted(self, jobs: int) -> None:
        """Count new jobs."""
        self._jobs["submitted"] += jobs

    def ended(self, jobs: int, extras: Iterable[Mapping[str, Any]]) -> None:
        """Count results; extras: what there is to tell of some of them."""
        self._jobs["finished"] += jobs
        for extra in extras:
            status = extra.get("status", Status.Finished)
            if status != Status.Finished:
                self._jobs["finished"] -= 1
                self._jobs[Status(status).name.lower()] += 1

    def given_up(self, jobs: int, status: Status) -> None:
        """Count jobs that ended without a result."""
        self._jobs[status.name.lower()] += jobs

    def requeued(self, jobs: int) -> None:
        """Count jobs that went from a node back to the queue."""
        self._jobs["requeued"] += jobs

    def all(self) -> dict[str, int]:
        """Return the counts; 0 where nothing is said, but for the usual ones."""
        return {"submitted": 0, "finished": 0, **self._jobs}


class CountsLog:
    """Owns a greenlet that logs what was counted since it did so last, if anything."""

    def __init__(self, counts: Counts, seconds: float = LOG_SECONDS) -> None:
        self._counts, self._seconds = counts, seconds
        self._told: dict[str, int] = counts.all()
        self._greenlet = gevent.spawn(self._keep)

    def _keep(self) -> None:
        while True:
            gevent.sleep(self._seconds)
            self._tell()

    def _tell(self) -> None:
        now = self._counts.all()
        since = {name: count - self._told.get(name, 0) for name, count in now.items()}
        since = {name: count for name, count in since.items() if count}
        self._told = now
        if since:
            said = ", ".join(f"{count:,} {name}" for name, count in since.items())
            logger.info("jobs: %s", said, extra=event("jobs", **since))

    def stop(self) -> None:
        """Log the rest, and end it."""
        self._greenlet.kill(block=False)
        self._tell()
