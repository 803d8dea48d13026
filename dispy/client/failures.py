"""Failed jobs that nobody has looked at; they are told once, when the program ends.

A job counts as looked at when its `exception` was read or its `get` called.
"""

import logging
from collections.abc import Sequence

from dispy.client.job import DispyJob

logger = logging.getLogger("dispy.client")

KEPT = 1000  # failures; one line each, so that a million of them cost no memory
TOLD = 5


class Failures:
    """Lines by job number. Written on the hub, read and shortened by any thread."""

    def __init__(self) -> None:
        self._unseen: dict[int, tuple[str, str]] = {}
        self._more = 0

    def add(self, name: str, jobs: Sequence[DispyJob]) -> None:
        """Keep what is to be said of failed jobs of the computation `name`."""
        for job in jobs:
            if type(job) is not DispyJob:
                continue  # a chunk of a map, which raises its failures
            if len(self._unseen) >= KEPT:
                self._more += 1
                continue
            text = (job._exception or "").strip().rpartition("\n")[2]
            self._unseen[job._number] = (f"job {job.id!r} of {name} was {job.status.name}", text)

    def seen(self, number: int) -> None:
        """Forget a failure that somebody has looked at."""
        self._unseen.pop(number, None)

    def tell(self) -> None:
        """Log the failures nobody looked at, at most TOLD of them one by one."""
        unseen, self._unseen = list(self._unseen.values()), {}
        for what, text in unseen[:TOLD]:
            logger.warning("%s and nobody looked at it: %s", what, text)
        if len(unseen) > TOLD or self._more:
            logger.warning("%d more jobs failed unseen", len(unseen) + self._more - TOLD)
        self._more = 0
