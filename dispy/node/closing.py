"""Computations on their way out of a node: their cleanup runs, then their processes end.

One that its owner opens again meanwhile waits for that: both use one directory.
"""

import logging
from collections.abc import Callable
from typing import Any

from gevent import spawn_later

from dispy.execution.records import Key
from dispy.node.nurseries import Nurseries
from dispy.node.owners import Owner
from dispy.node.processes import ComputationProcesses
from dispy.protocol.messages import Kind

logger = logging.getLogger("dispy.node")

CLEANUP_SECONDS = 60.0  # that a cleanup function may take
LAST_CLEANUP_SECONDS = 10.0  # the same at the node's own end


class Closing:
    """One computation that is being closed; `end` is run in a greenlet."""

    def __init__(
        self,
        processes: ComputationProcesses,
        seconds: float,
        closed: Callable[["Closing", str | None, dict[str, Any]], None],
    ) -> None:
        self._processes, self._seconds, self._closed = processes, seconds, closed
        self.owner: Owner | None = None  # who asked for it, and is told
        self.reopen: Callable[[], None] | None = None  # what its owner wants then
        self.limit: int | None = None  # which goes with that

    def end(self) -> None:
        """Clean up, end the processes, and tell; returns when all of it is done."""
        error, told = self._processes.clean(self._seconds)
        self._processes.end()
        self._closed(self, error, told)

    def hurry(self) -> None:
        """Give a cleanup that runs no more time than the node's end has."""
        spawn_later(LAST_CLEANUP_SECONDS, self._processes.interrupt)


class Closings:
    """Those of one node. `shut_down` ends the node, where a cleanup asks for that; `limited`
    limits a computation that was opened again."""

    def __init__(
        self,
        nurseries: Nurseries,
        shut_down: Callable[[str], None],
        limited: Callable[[Key, int], None],
    ) -> None:
        self._nurseries, self._shut_down, self._limited = nurseries, shut_down, limited
        self._closing: dict[Key, Closing] = {}
        self._stopping = False

    def begin(self, key: Key, processes: ComputationProcesses, owner: Owner | None) -> None:
        """Begin to close a computation; `owner` is told CLOSED when that is done."""

        def closed(closing: Closing, error: str | None, told: dict[str, Any]) -> None:
            self._finish(key, closing, error, told)

        seconds = LAST_CLEANUP_SECONDS if self._stopping else CLEANUP_SECONDS
        closing = self._closing[key] = Closing(processes, seconds, closed)
        closing.owner = owner
        self._nurseries.end(closing)

    def __contains__(self, key: Key) -> bool:
        return key in self._closing

    def asked_by(self, owner: Owner) -> list[int]:
        """Return the numbers of those that this owner waits for, perhaps since an earlier link.

        Once it has closed all that it had it is forgotten with its link, and comes as a new one.
        """
        asked = []
        for key, closing in self._closing.items():
            if key[0] == owner.owner_id and closing.owner is not None:
                closing.owner = owner
                asked.append(key[1])
        return asked

    def close(self, key: Key, owner: Owner) -> None:
        """Take an owner's CLOSE for what is not open: it is being closed, or never was here."""
        closing = self._closing.get(key)
        if closing is None:
            owner.tell(Kind.CLOSED, [key[1], None, {}])
            return
        closing.owner, closing.reopen = owner, None

    def then_open(self, key: Key, opening: Callable[[], None]) -> None:
        """Open a computation once it is closed."""
        self._closing[key].reopen, self._closing[key].limit = opening, None

    def then_limit(self, key: Key, workers: int) -> None:
        """Limit one that is opened later; it has the limit of its last word."""
        self._closing[key].limit = workers

    def stop(self) -> None:
        """Give cleanups that run little time from now on."""
        self._stopping = True
        for closing in self._closing.values():
            closing.hurry()

    def _finish(self, key: Key, closing: Closing, error: str | None, told: dict[str, Any]) -> None:
        del self._closing[key]
        if error is not None:
            last = error.rstrip().rpartition("\n")[2]  # the whole is for its owner
            logger.warning("the cleanup of a computation failed: %s", last)
        if closing.owner is not None:
            closing.owner.tell(Kind.CLOSED, [key[1], error, told])
        if self._stopping:
            return
        if told.get("shutdown"):
            self._shut_down("the cleanup of a client's computation has ended it")
        elif closing.reopen is not None:
            closing.reopen()
            if closing.limit is not None:
                self._limited(key, closing.limit)
