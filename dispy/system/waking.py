"""Staying awake for a moment, where the next brief job is about to come.

Who submits one brief job after the other, and waits for each, has every process on the way wake
up once for each: 20 to 30 us a time, which together are a third of a round trip. So whoever has
passed brief jobs in a quick rhythm looks for the next one without sleeping, for
AWAKE_SECONDS, and leaves the processor at every look to anybody who wants it. Jobs that come
in packets, or now and then, or take longer, keep nobody awake.
"""

import os
import sys
from time import sleep

AWAKE_SECONDS = 0.0003  # a little more than a round trip
RHYTHM_SECONDS = 0.002  # between two brief jobs of one rhythm, at most
BRIEF_SECONDS = 0.001  # that a brief job runs, at most


class Rhythm:
    """Tells whether brief jobs come one soon after the other."""

    def __init__(self) -> None:
        self._last = 0.0

    def beat(self, now: float) -> bool:
        """Take note of a brief job at second `now`; say whether the last came just before."""
        quick = now - self._last < RHYTHM_SECONDS
        self._last = now
        return quick


def yield_processor() -> None:
    """Let another process run that wants this processor; return at once if none does."""
    if sys.platform == "win32":
        sleep(0)
    else:
        os.sched_yield()
