"""What a node keeps for one owner: the link to it, the ledger of what it is owed, its accounts."""

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gevent import Greenlet

from dispy.execution.records import Key, OwnerId
from dispy.model.accounts import Account
from dispy.net.link import Link
from dispy.node.lending import OwnersSegments
from dispy.node.owed import Backlog, Owed
from dispy.node.quotas import Memory, weight_of_results
from dispy.node.spilled import Spilled
from dispy.protocol.frames import Buffer
from dispy.protocol.messages import Kind

if TYPE_CHECKING:
    from dispy.net.fetching import Fetching

logger = logging.getLogger("dispy.node")

EARLY_CANCELS = 1000  # that are remembered; only a few can be on their way


def slots_of(said: object) -> int:
    """Return how many slots a job fills by its owner's word; a peer's nonsense means one."""
    return said if type(said) is int and said >= 1 else 1


class Owner:
    """One client process, connected or not."""

    def __init__(
        self,
        owner_id: OwnerId,
        name: str,
        said: str = "",
        memory: int = 0,
        disk: int = 0,
        spilled: Spilled | None = None,
        spill_above: int = 0,
        hold: Callable[[str], None] | None = None,
    ) -> None:
        """said: the identity that it says it has; `owner_id` is that together with its key.

        memory, disk: bytes that it may have of the node; 0: any. The others: see `Backlog`.
        """
        self.owner_id, self.name, self.said = owner_id, name, said
        self.memory = Memory(memory, "node.client_memory", has_room=self._tell_room)
        self.disk = Account(disk, "node.client_disk")
        self.link: Link | None = None
        self.shares_memory = False  # it maps the segments of workers itself
        self.segments = OwnersSegments()  # where it does not
        self.address = ""  # that it first came from; empty: this very machine
        self.pulse_seconds = 0.0  # how often it wants to hear from us, and speaks; 0: no opinion
        self.pulse_since = 0.0  # monotonic second at which it said so
        # What gives it up, while it is away; one for all of its links, however often they break.
        self.waited_for: Greenlet[..., None] | None = None
        # Cancels of jobs that are not here: done, or still on their way behind large arguments,
        # which a cancel overtakes.
        self.early_cancels: deque[int] = deque(maxlen=EARLY_CANCELS)
        self.fetching: Fetching  # of contents that it has; set by its node
        self.backlog = Backlog(owner_id, name, self.memory, self.disk, spilled, spill_above, hold)
        self._told_of_room = False

    def tell(self, kind: int, body: list[Any], buffers: Sequence[Buffer] = ()) -> None:
        """Send what needs no acknowledgement; nothing while the owner is away."""
        if self.link is not None:
            self.link.send(kind, body, buffers)

    def owe(
        self,
        computation: int,
        columns: list[Any],
        buffers: Sequence[Buffer],
        weight: int | None = None,
    ) -> None:
        """Send final results, and keep them until they are acknowledged.

        weight: the bytes that they take, if that is known.
        """
        if weight is None:
            weight = weight_of_results(columns, buffers)
        self.backlog.owe(Kind.RESULTS, [computation, *columns], buffers, weight)

    def owe_value(
        self, computation: int, job: int, value: bytes | int, buffers: Sequence[Buffer]
    ) -> Owed | None:
        """Send a value that a job has sent before its end, and keep it as results are kept.

        Returns what is kept; None where there is no room for it, which is told in the log once.
        """
        weight = weight_of_results([[value], []], buffers)
        if not self.memory.fits(weight):
            if not self._told_of_room:
                self._told_of_room = True
                why = self.memory.why_not("a provisional result", weight)
                logger.warning("client %s does not get all of them: %s", self.name, why)
            return None
        return self.backlog.owe(Kind.PROVISIONAL, [computation, job, value], buffers, weight)

    def acknowledged(self, number: int) -> None:
        """Forget what is owed up to this frame."""
        self.backlog.acknowledged(number)

    def _tell_room(self, keys: set[Key]) -> None:
        for _, number in keys:
            self.tell(Kind.FULL, [number, [], ""])

    def came_back(self) -> None:
        """Take note of a new link: it is not given up, and says anew how often it wants signs."""
        self.pulse_seconds = 0.0
        if self.waited_for is not None:
            self.waited_for.kill(block=False)
            self.waited_for = None

    def connected(
        self, link: Link, jobs: list[int], computations: list[int], greet: Callable[[], None]
    ) -> None:
        """Take a new link: send what is owed, then what is held, and `greet`; an older link ends.

        What is held is so now: what ends meanwhile is owed behind it.
        """
        if self.link is not None:
            self.link.close()
        self.link = link
        self.shares_memory = link.shares_memory
        if not link.shares_memory:
            self.segments.receive(link)
        link.limit_bulk(self.memory.lets_in)

        def say_what_is_held() -> None:
            link.send(Kind.HELD, [jobs, computations])
            self.fetching.link_changed()
            greet()

        self.backlog.connected(link, say_what_is_held)

    def disconnected(self) -> None:
        """Take note that its link is gone."""
        self.link = None
        self.backlog.disconnected()
