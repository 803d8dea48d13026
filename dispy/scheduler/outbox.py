"""What one client is told: numbered, in order, and kept until it has taken it.

What lasts (results, and values that jobs send) is written down, goes out once that is safe, and
may leave memory: it is read back when its turn comes. The rest only says how things stand. Where
too much of it waits for a client that is away or slow, it is dropped, and so it is when a
scheduler ends; the client is then told anew how things stand (`resync`). So its numbers grow, and
there may be gaps between them.
"""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gevent

from dispy.model.errors import DispyError
from dispy.net.link import Link
from dispy.protocol.frames import Buffer, FrameRefused, Memory, Shared
from dispy.protocol.messages import Kind
from dispy.scheduler.budget import Budget
from dispy.scheduler.durable import Durable
from dispy.scheduler.journal_entries import Finals, KnownFinals, Taken

logger = logging.getLogger("dispy.scheduler")

LIFE_BITS = 40  # of a number; above them is how often the scheduler was begun
PASSING_LIMIT = 4 * 1024 * 1024  # bytes of what does not last, for a client that takes nothing
WINDOW_BYTES = 16 * 1024 * 1024  # on their way to a client that has not taken them
WINDOW_COUNT = 4096
READ_COUNT = 64  # things that are read back at once
READ_BYTES = 1024 * 1024
RETRY_SECONDS = 1.0  # between attempts to read from a disk that fails
SMALL = 100  # bytes that anything counts at least


@dataclass(slots=True, eq=False)
class Thing:
    """Something that the client is told."""

    number: int
    lasts: bool
    size: int
    kind: int = 0  # 0: it is in the journal alone
    body: list[Any] | None = None
    buffers: Sequence[Buffer] = ()
    jobs: Sequence[int] = ()  # that are final with it


class Outbox:
    """Of one client, on its scheduler's hub.

    resync: tells the client how things stand, by `say`.
    """

    def __init__(
        self,
        slot: int,
        durable: Durable,
        budget: Budget,
        resync: Callable[[], None],
        life: int = 1,
        known: Iterable[KnownFinals] = (),
    ) -> None:
        """life: how often the scheduler was begun. known: what an earlier one was yet to tell."""
        self._slot, self._durable, self._budget, self._resync = slot, durable, budget, resync
        self._last = self._taken = life << LIFE_BITS
        self._unsent = deque(
            Thing(each.number, True, each.weight, jobs=each.jobs) for each in known
        )
        self._sent: deque[Thing] = deque()
        self._in_flight = 0  # bytes of these
        self._passing, self._passing_limit = 0, PASSING_LIMIT  # bytes of what does not last
        self._safe = self._unsent[-1].number if self._unsent else 0
        self._reading = False
        self.missed = True  # the client does not know how things stand
        self.link: Link | None = None

    def __len__(self) -> int:
        """Return how many things it has not taken."""
        return len(self._unsent) + len(self._sent)

    # -- speaking

    def say(self, kind: int, body: list[Any], buffers: Sequence[Buffer] = ()) -> None:
        """Tell how things stand; nothing if the client is to be told all of that later."""
        if self.missed:
            return
        size = SMALL + sum(len(part) for part in body if isinstance(part, (str, bytes, list)))
        self._passing += size
        if self._passing > self._passing_limit:
            self._drop_passing()
            return
        self._put(Thing(self._next(), False, size, kind, body, buffers))

    def tell(
        self,
        kind: int,
        body: list[Any],
        buffers: Sequence[Buffer],
        cluster: int,
        jobs: Sequence[int],
        size: int,
    ) -> None:
        """Tell something that must not be lost: these jobs (none: not yet) are final with it.

        size: bytes of its payloads.
        """
        size += SMALL
        thing = Thing(self._next(), True, size, kind, body, buffers, jobs)
        memories: list[Memory] = []
        for buffer in buffers:
            assert not isinstance(buffer, Shared), "nobody passes memory to a scheduler"
            memories.append(buffer)
        self._durable.record(
            Finals(self._slot, thing.number, cluster, jobs, [kind, body], memories)
        )
        self._budget.used += size
        self._put(thing)
        self._durable.when_safe(lambda: self._is_safe(thing))

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _put(self, thing: Thing) -> None:
        self._unsent.append(thing)
        if len(self._unsent) == 1:
            self._send()

    def _is_safe(self, thing: Thing) -> None:
        self._safe = thing.number
        # Whoever takes what he is told keeps no memory of the others.
        if self.link is None or len(self._unsent) > WINDOW_COUNT:
            self._let_go(thing)
        self._send()

    def _let_go(self, thing: Thing) -> None:
        """Free the memory of something that lasts, where there is too little."""
        if thing.kind and self._durable.journal is not None and not self._budget.has_room(0):
            self._budget.used -= thing.size
            thing.kind, thing.body, thing.buffers = 0, None, ()

    def _drop_passing(self) -> None:
        """Keep nothing but what lasts; the rest is told anew when there is room."""
        self.missed, self._passing = True, 0
        self._unsent = deque(thing for thing in self._unsent if thing.lasts)
        self._passing = sum(thing.size for thing in self._sent if not thing.lasts)

    def _send(self) -> None:
        """Send what may go, as far as the client has taken what went before."""
        link, unsent = self.link, self._unsent
        while link is not None and unsent and not self._reading:
            thing = unsent[0]
            if self._in_flight > WINDOW_BYTES or len(self._sent) >= WINDOW_COUNT:
                return
            if thing.lasts and thing.number > self._safe:
                return
            if not thing.kind:
                self._reading = True
                gevent.spawn(self._read)
                return
            unsent.popleft()
            self._sent.append(thing)
            self._in_flight += thing.size
            link.send(Kind.SAID, [thing.number, thing.kind, thing.body], thing.buffers)
        if self.missed and link is not None and not unsent:
            self.missed, self._passing_limit = False, sys.maxsize
            self._resync()
            self._passing_limit = PASSING_LIMIT + self._passing

    # -- hearing how far it has come

    def taken(self, number: int) -> None:
        """Forget what the client has, up to this number; raises FrameRefused."""
        if number > self._last:
            raise FrameRefused("it has heard what was not said to it")
        lasting: list[Thing] = []
        for things in (self._sent, self._unsent):
            while things and things[0].number <= number:
                thing = things.popleft()
                if things is self._sent:
                    self._in_flight -= thing.size
                if thing.lasts:
                    lasting.append(thing)
                else:
                    self._passing -= thing.size
        if lasting:
            self._heard(lasting)
        self._taken = max(self._taken, number)
        self._send()

    def _heard(self, things: Sequence[Thing]) -> None:
        """Forget what lasts, as the client has it."""
        self._durable.record(Taken(self._slot, things[-1].number))
        for thing in things:
            self._free(thing)

    def _free(self, thing: Thing) -> None:
        if thing.kind:
            self._budget.used -= thing.size

    def came(self, link: Link, heard: int) -> None:
        """Go on over a new link, with a client that has heard so far; raises FrameRefused."""
        self.gone()
        self.taken(heard)
        if heard < self._taken and heard >> LIFE_BITS == self._taken >> LIFE_BITS:
            raise FrameRefused(f"it has forgotten what it was told: {heard} of {self._taken}")
        self.link = link
        self._send()

    def gone(self) -> None:
        """Keep all that is not taken: there is no link."""
        self.link = None
        self._unsent.extendleft(reversed(self._sent))
        self._sent.clear()
        self._in_flight = 0
        for thing in self._unsent:
            if thing.lasts and thing.number <= self._safe:
                self._let_go(thing)

    # -- what is read back

    def _read(self) -> None:
        """Have the next things in memory again, then send them; in a greenlet of its own."""
        try:
            wanted: list[Thing] = []
            size = 0
            for thing in self._unsent:
                if thing.kind or len(wanted) >= READ_COUNT or (wanted and size > READ_BYTES):
                    break
                wanted.append(thing)
                size += thing.size
            self._read_back(wanted)
        finally:
            self._reading = False
        self._send()

    def _read_back(self, wanted: Sequence[Thing]) -> None:
        assert self._durable.journal is not None, "what is not in memory is in it"
        try:
            found = self._durable.journal.finals(self._slot, [thing.number for thing in wanted])
        except DispyError as error:
            logger.error("a client waits for its results: %s", error)
            gevent.sleep(RETRY_SECONDS)
            return
        for thing in wanted:
            read = found.get(thing.number)
            if read is not None:
                thing.kind, thing.body = read.column
                thing.buffers = read.buffers
                self._budget.used += thing.size
            elif thing in self._unsent:  # else it was taken meanwhile
                logger.error("a result that a client has not taken cannot be read any more")
                self._unsent.remove(thing)
