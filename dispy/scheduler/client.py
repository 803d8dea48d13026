"""One client program of a shared scheduler, connected or not; and how its things are numbered."""

from typing import Any

import gevent

from dispy.net.link import Link
from dispy.protocol.conversation import Conversation
from dispy.protocol.frames import FrameRefused
from dispy.scheduler.journal_entries import ClientCame
from dispy.scheduler.outbox import Outbox

SLOT_BITS = 40  # of a number, those that the client counts with
NUMBERS = 1 << SLOT_BITS


def number_here(slot: int, number: int) -> int:
    """Return the number by which a client's job or cluster is known here; raises FrameRefused."""
    if not 0 <= number < NUMBERS:
        raise FrameRefused(f"{number} is no number of a job or cluster")
    return slot << SLOT_BITS | number


def number_there(number: int) -> int:
    """Return the number by which the client knows it."""
    return number & (NUMBERS - 1)


class Client:
    """A client has a slot for as long as it is remembered, and its things are numbered by that."""

    def __init__(self, came: ClientCame, outbox: Outbox, heard: int = 0) -> None:
        """heard: how far it was."""
        self.slot, self.client_id = came.slot, came.identity
        self.come(came)
        self.hearing = Conversation(arrived=heard)
        self.outbox = outbox
        self.labels: dict[int, bytes] = {}  # what its program calls jobs, of those that are kept
        self.clusters: dict[int, set[int]] = {}  # open ones and their jobs that are not final
        self.waited_for: gevent.Greenlet[..., None] | None = None  # what gives it up
        self.say = outbox.say
        self.met: set[str] = set()  # nodes that it was told of
        self.wants_all = False  # nodes: it decides about them itself

    def meet(self, node_id: str, kind: int, body: list[Any]) -> None:
        """Tell it of a node, once."""
        if node_id not in self.met:
            self.met.add(node_id)
            self.say(kind, body)

    @property
    def link(self) -> Link | None:
        """The link to it; None while it is away."""
        return self.outbox.link

    def tell(self, kind: int, body: list[Any]) -> None:
        """Send what is not numbered; nothing while it is away."""
        if self.link is not None:
            self.link.send(kind, body)

    def come(self, came: ClientCame) -> None:
        """Be what is written down of it."""
        self.came = came
        self.name = came.name
        self.token = came.key.hex()  # of the conversation; who forgets the other begins anew

    @property
    def holder(self) -> str:
        """Whose cluster it is that others may attach to; "": they may not."""
        return self.came.holder

    def stop_waiting(self) -> None:
        """It is there again, or is not to be waited for any more."""
        if self.waited_for is not None:
            self.waited_for.kill(block=False)
            self.waited_for = None
