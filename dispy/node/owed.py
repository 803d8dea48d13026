"""What one owner is owed, from the worker's answer to the owner's acknowledgement.

Frames go out at once and are kept in memory, which is all that happens to an owner that
acknowledges in time. Of one that is away, or slow, the oldest go to disk, so that what is on disk
comes before what is in memory. While it is behind, a greenlet reads them back and sends them, the
next ones when those before have left.
"""

import logging
from collections.abc import Callable, Sequence
from time import time
from typing import Any, NamedTuple

import gevent
from gevent import Greenlet

from dispy.execution.ledger import Ledger
from dispy.model.accounts import Account
from dispy.model.sizes import tell_bytes
from dispy.net.link import Link
from dispy.node.quotas import Memory
from dispy.node.spilled import Left, Spilled
from dispy.node.unreadable import StoredJobs
from dispy.protocol.frames import Buffer
from dispy.protocol.messages import Kind

logger = logging.getLogger("dispy.node")

AWAY_SECONDS = 0.5  # after which what is owed to an owner that is away is written, together
SLOW_SECONDS = 0.25  # that an owner which is there may take to acknowledge before that
RETRY_SECONDS = 5.0  # after a write that failed, or a read
READ_ATTEMPTS = 3  # before results on disk are given up
GROUP_BYTES = 4 * 1024 * 1024  # written at once
SENT_BYTES = 1024 * 1024  # read back at once, and sent before the next are read
HOLD = 2  # times `above` in memory: no job of this owner is begun before there is less


class Owed(NamedTuple):
    """One frame that an owner has to acknowledge; `weight`: the bytes that it takes."""

    kind: int
    body: list[Any]
    buffers: Sequence[Buffer]
    weight: int

    @property
    def number(self) -> int:
        """Its number, which begins its body."""
        return int(self.body[0])


class Backlog:
    """Of one owner. `spilled` None: all of it stays in memory."""

    def __init__(
        self,
        identity: str,
        name: str,
        memory: Memory,
        disk: Account,
        spilled: Spilled | None = None,
        above: int = 0,
        hold: Callable[[str], None] | None = None,
    ) -> None:
        """above: bytes in memory beyond which frames go to disk.

        hold: told why no more jobs are to be begun; "": they are again.
        """
        self._identity, self._name = identity, name
        self._memory, self._disk = memory, disk
        self._spilled, self._hold = spilled, hold
        self._above = min(above, memory.limit // 4) if memory.limit else above
        self.ledger: Ledger[Owed] = Ledger()
        self.bytes = 0  # in memory
        self.held = ""  # why no more jobs are begun, while that is so
        self._link: Link | None = None
        self._gone = time()
        self._sent = 0  # the last number that went out on this link
        self._level = False  # all that is owed went out on it
        self._greeting: tuple[int, Callable[[], None]] | None = None  # after which number
        self._inherited = 0  # numbers up to this are of an earlier node
        self._cleared = 0  # numbers up to this are not on disk any more
        self._stored_jobs = StoredJobs()
        self._stopped = False
        self._sender: Greenlet[..., None] | None = None
        self._writer: Greenlet[..., None] | None = None
        self._clearer: Greenlet[..., None] | None = None

    # -- owing

    def owe(self, kind: int, rest: list[Any], buffers: Sequence[Buffer], weight: int) -> Owed:
        """Send a frame, now or when its turn comes, and keep it until it is acknowledged.

        rest: its body, to which its number is added.
        """
        number = self.ledger.next_number()
        owed = Owed(kind, [number, *rest], buffers, weight)
        self.ledger.owe(number, owed)
        self._memory.take(weight)
        self.bytes += weight
        if self._spilled is not None and (self._link is None or self.bytes > self._above):
            self._pressed()
        if self._level and self._link is not None:
            self._link.send(kind, owed.body, buffers)
            self._sent = number
        return owed

    def acknowledged(self, number: int) -> None:
        """Forget what is owed up to this number."""
        for owed in self.ledger.acknowledged(number):
            self._let_go(owed)
        if self._cleared < self.ledger.stored:
            self._memory.release(self._stored_jobs.acknowledged(number))
        if self.held:
            self._judge()
        if self._cleared < min(self.ledger.acknowledged_number, self.ledger.stored):
            self._clearer = self._go_on(self._clearer, self._clear)

    def inherit(self, left: Left) -> None:
        """Owe what an earlier node owed this owner, before all else."""
        self._inherited = left.frames
        self.ledger.begin_stored(left.frames)
        self._disk.take(left.weight)

    @property
    def has_inherited(self) -> bool:
        """Whether some of that has not been acknowledged."""
        return self.ledger.is_owed(self._inherited)

    def _let_go(self, owed: Owed) -> None:
        self.bytes -= owed.weight
        self._memory.release(owed.weight)

    def _pressed(self) -> None:
        """There is more than belongs into memory."""
        if self._link is not None and self._level:
            self._level = False
            self._sender = self._go_on(self._sender, self._send)
        self._writer = self._go_on(self._writer, self._write)
        self._judge()

    def _judge(self) -> None:
        """Say whether more jobs may begin."""
        if self.held and self.bytes <= self._above:
            self.held = ""
        elif not self.held and self.bytes > HOLD * self._above:
            self.held = (
                f"results of this client take {tell_bytes(self.bytes)} of the node's memory until "
                f"it has taken them, or they are on disk (node.spill_above, node.client_disk)"
            )
        else:
            return
        if self._hold is not None:
            self._hold(self.held)

    @staticmethod
    def _go_on(
        running: "Greenlet[..., None] | None", what: Callable[[], None]
    ) -> "Greenlet[..., None]":
        return gevent.spawn(what) if running is None or running.dead else running

    # -- the owner's link

    def connected(self, link: Link, greet: Callable[[], None]) -> None:
        """Send over a new link what is owed; call `greet` when all of it, as of now, has gone."""
        self._link, self._sent = link, self.ledger.acknowledged_number
        self._level = False
        if self._sender is not None:
            self._sender.kill(block=False)
            self._sender = None
        self._greeting = self.ledger.last, greet
        if self.ledger.stored > self._sent or self.bytes > self._above > 0:
            self._sender = gevent.spawn(self._send)
            return
        for owed in self.ledger.owed():
            link.send(owed.kind, owed.body, owed.buffers)
        self._sent, self._level = self.ledger.last, True
        self._greet()

    def disconnected(self) -> None:
        """Take note that the link is gone."""
        self._link, self._level, self._greeting, self._gone = None, False, None, time()
        if self._sender is not None:
            self._sender.kill(block=False)
            self._sender = None
        if self._spilled is not None and (len(self.ledger) or self.ledger.is_stored):
            self._writer = self._go_on(self._writer, self._write)

    def _greet(self) -> None:
        if self._greeting is not None and self._sent >= self._greeting[0]:
            (_, greet), self._greeting = self._greeting, None
            greet()

    def _send(self) -> None:
        """Send what the link's owner has not got, as fast as it takes it."""
        link = self._link
        assert link is not None
        while self._link is link and not link.closed:
            self._sent = max(self._sent, self.ledger.acknowledged_number)
            self._greet()
            if self._sent >= self.ledger.last:
                self._level = True
                return
            if self._sent < self.ledger.stored:
                group = self._read_back()
                if self._link is not link:
                    return
            else:
                group = self.ledger.after(self._sent, _up_to(SENT_BYTES))
            for owed in group:
                link.send(owed.kind, owed.body, owed.buffers)
                self._sent = owed.number
            link.wait_sent()

    def _read_back(self) -> list[Owed]:
        """Return the next frames from disk; where it does not give them, the ends of their jobs."""
        assert self._spilled is not None
        last = self.ledger.stored
        why: object = "they are not in the database any more"
        for _ in range(READ_ATTEMPTS):
            try:
                group: list[Owed] = self._spilled.call(
                    self._spilled.read, self._identity, self._sent, last, SENT_BYTES
                )
            except Exception as error:  # a disk that fails, a file that somebody has changed
                why = error
            else:
                if group or self._sent >= self.ledger.stored:
                    return group
            gevent.sleep(RETRY_SECONDS)
        logger.error("results of client %s cannot be read back from disk: %s", self._name, why)
        why = f"its result is lost: the node's disk does not give it back: {why}"
        bodies = self._stored_jobs.ends(self._sent, last, why)
        self._sent = max(self._sent, last)
        return [Owed(Kind.RESULTS, body, (), 0) for body in bodies]

    # -- the disk

    def _write(self) -> None:
        """Write the oldest to disk until there is little in memory; all, while nobody is there."""
        assert self._spilled is not None
        failed = told = False
        gevent.sleep(AWAY_SECONDS if self._link is None else SLOW_SECONDS)
        # A greenlet that is killed may have its turn before it hears of that.
        while not self._stopped and (self._link is None or self.bytes > self._above // 2):
            group = self.ledger.after(self.ledger.stored, _up_to(GROUP_BYTES))
            weight = sum(owed.weight for owed in group)
            try:
                if not group:
                    if told or self._link is not None or not self.ledger.is_stored:
                        break
                    told = True  # before: something may be owed meanwhile
                    self._spilled.call(self._spilled.seen, self._identity, self._gone)
                    continue
                if not self._disk.fits(weight):
                    raise OSError(self._disk.why_not("results", weight))
                self._spilled.call(
                    self._spilled.write, self._identity, self._name, self._last_seen, group
                )
            except Exception as error:  # of the system, or of the database
                if not failed:
                    failed = True
                    logger.warning(
                        "results of client %s stay in memory, for they cannot be written to "
                        "disk: %s", self._name, error,
                    )  # fmt: skip
                gevent.sleep(RETRY_SECONDS)
                continue
            if failed:
                failed = False
                logger.warning("results of client %s are written to disk again", self._name)
            self._disk.take(weight)
            for owed in self.ledger.written(group[-1].number):
                self._let_go(owed)
                self._memory.take(self._stored_jobs.written(owed.kind, owed.body))
            self.acknowledged(0)
        self._judge()

    @property
    def _last_seen(self) -> float:
        return time() if self._link is not None else self._gone

    def _clear(self) -> None:
        """Delete from disk what is acknowledged."""
        assert self._spilled is not None
        while not self._stopped:
            upto = min(self.ledger.acknowledged_number, self.ledger.stored)
            if self._cleared >= upto:
                return
            try:
                weight = self._spilled.call(self._spilled.forget, self._identity, upto)
            except Exception as error:
                logger.warning("cannot delete results that were taken: %s", error)
                gevent.sleep(RETRY_SECONDS)
                continue
            self._cleared = upto
            self._disk.release(weight)

    def close(self) -> None:
        """Owe nothing any more."""
        writes = self._writer is not None and not self._writer.dead
        self._stop()
        if self._spilled is not None and (writes or self._cleared < self.ledger.stored):
            self._spilled.soon(self._spilled.forget, self._identity, self.ledger.last)

    def stop(self) -> None:
        """At the node's end: write what is owed still, for a later node. Waits for it."""
        self._stop()
        self._link = None
        if self._spilled is None:
            return
        group = list(self.ledger.owed())
        try:
            if group:
                self._spilled.call(self._spilled.write, self._identity, self._name, time(), group)
            if self.ledger.stored:
                taken = self.ledger.acknowledged_number
                self._spilled.call(self._spilled.forget, self._identity, taken)
        except Exception as error:
            logger.warning("results of client %s may be lost: %s", self._name, error)

    def _stop(self) -> None:
        self._stopped = True
        greenlets = [self._sender, self._writer, self._clearer]
        gevent.killall([greenlet for greenlet in greenlets if greenlet is not None], block=False)


def _up_to(most: int) -> Callable[[Owed], bool]:
    """Return what says whether one more frame may come along: until there are so many bytes."""
    taken = 0

    def fits(owed: Owed) -> bool:
        nonlocal taken
        before, taken = taken, taken + owed.weight
        return before < most

    return fits
