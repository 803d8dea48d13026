"""What a node that was killed owed its owners: kept in the same directory for when they come back.

How long they were away is told by the wall clock, which may have jumped. So each has ten minutes
from the node's start at least, and never more than one that has gone just then.
"""

import logging
from time import time

import gevent
from gevent import Greenlet

from dispy.node.owners import Owner
from dispy.node.spilled import Left, Spilled

logger = logging.getLogger("dispy.node")

LEAST_SECONDS = 600.0  # for which it is kept after a start


class Heirs:
    """Knows whose it is; `zombie_seconds` is how long it is kept, 0: for ever."""

    def __init__(self, spilled: Spilled | None, zombie_seconds: float) -> None:
        self._spilled = spilled
        self._left: dict[str, Left] = {}
        self._timers: dict[str, Greenlet[..., None]] = {}
        if spilled is None or not spilled.is_there:
            return
        now = time()
        for left in spilled.call(spilled.left):
            self._left[left.identity] = left
            if zombie_seconds:
                rest = remaining(left.gone, now, zombie_seconds)
                timer = gevent.spawn_later(rest, self._drop, left)
                self._timers[left.identity] = timer
        if self._left:
            frames = sum(left.frames for left in self._left.values())
            logger.info(
                "results that an earlier node owed %d clients are kept for them (%d messages)",
                len(self._left), frames,
            )  # fmt: skip

    def inherits(self, owner: Owner) -> None:
        """Owe a new owner what it was owed before."""
        left = self._left.pop(owner.owner_id, None)
        if left is not None:
            owner.backlog.inherit(left)
            timer = self._timers.pop(owner.owner_id, None)
            if timer is not None:
                timer.kill(block=False)

    def _drop(self, left: Left) -> None:
        assert self._spilled is not None
        del self._left[left.identity], self._timers[left.identity]
        logger.warning("client %s did not come back; its results are dropped", left.name)
        self._spilled.soon(self._spilled.forget, left.identity, left.frames)

    def stop(self) -> None:
        """Close the file; what it has is for the next node."""
        gevent.killall(list(self._timers.values()))
        if self._spilled is not None:
            self._spilled.finish()


def remaining(gone: float, now: float, zombie_seconds: float) -> float:
    """Return for how many seconds something is kept yet whose owner went away at `gone`."""
    rest = zombie_seconds - (now - gone)
    return max(min(LEAST_SECONDS, zombie_seconds), min(rest, zombie_seconds))
