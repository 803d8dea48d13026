"""An owner played frame by frame, whose jobs are real: it acknowledges what and when it likes."""

from collections.abc import Callable
from typing import Any

from system.hostile import Peer

from dispy.client.computation import prepare
from dispy.node.service import LEDGER_BITS
from dispy.protocol.frames import Frame
from dispy.protocol.messages import Kind, join_payloads
from dispy.shipping.payloads import pack_call, unpack

NUMBERED = (Kind.RESULTS, Kind.PROVISIONAL)


class PlayedOwner:
    """Runs one function on a node, on any number of links, one after the other."""

    def __init__(self, connect: Callable[..., Peer], function: Callable[..., Any]) -> None:
        """connect: returns a link on which hellos were exchanged; it takes HELLO's details."""
        self._connect = connect
        self._prepared = prepare(function, None, None, [])
        self.ledger = 0  # in which the numbers are that come
        self.peer = connect()
        self.until(Kind.HELD)
        self.open(1)

    def open(self, computation: int) -> None:
        settings = self._prepared.settings | {"isolation": "worker", "cpus": 1}
        self.peer.tell(Kind.OPEN, [computation, "f", settings], [self._prepared.content])
        assert self.until(Kind.READY)[-1].body[1] is None

    def run(self, job: int, *arguments: Any, computation: int = 1) -> None:
        self.peer.tell(Kind.RUN, [computation, [job], [pack_call("f", arguments, {})], []])

    def acknowledge(self, number: int) -> None:
        """Acknowledge, and wait until the node has heard it."""
        self.peer.tell(Kind.ACKNOWLEDGE, [self.ledger << LEDGER_BITS | number])
        self.peer.tell(Kind.LIST, [1, 5])
        self.until(Kind.LISTED)

    def leave(self) -> None:
        """End the link as the death of a program does."""
        self.peer.close()

    def come_back(self, **details: Any) -> list[Frame]:
        """Connect anew; return what comes until HELD, which is the last."""
        self.peer = self._connect(**details)
        return self.until(Kind.HELD)

    def until(self, kind: int, count: int = 1) -> list[Frame]:
        """Return all frames up to the next of that kind, but for signs of life."""
        frames: list[Frame] = []
        while sum(frame.kind == kind for frame in frames) < count:
            frame = self.peer.frame()
            assert frame is not None, f"the link ended; {len(frames)} messages came"
            if frame.kind not in (Kind.PULSE, Kind.SHARE, Kind.STATUS):
                frames.append(frame)
            if frame.kind in NUMBERED:
                self.ledger = frame.body[0] >> LEDGER_BITS
        return frames


def values(frames: list[Frame]) -> list[tuple[int, int, Any]]:
    """Return (number, job, value) of all results and provisional values; their numbers as in the
    first ledger."""
    found = []
    for frame in frames:
        place = frame.body[0] % (1 << LEDGER_BITS) if frame.kind in NUMBERED else 0
        if frame.kind == Kind.PROVISIONAL:
            _, _, job, column = frame.body
            (payload,) = join_payloads([column], frame.buffers)
            found.append((place, job, unpack(payload)))
        elif frame.kind == Kind.RESULTS:
            payloads = join_payloads(frame.body[5], frame.buffers)
            for job, payload in zip(frame.body[2], payloads, strict=True):
                found.append((place, job, unpack(payload) if payload else None))
    return found
