"""What two sides say to each other so that no broken link loses, doubles or swaps any of it.

Sans-I/O. Each side counts what it says from 1, keeps it until the other has taken it for good, and
says it again over a new link from where the other one stands, which its hello tells. As with TCP
(RFC 9293), but for as long as both sides remember, whatever happens to connections.

Whoever takes something in for good only later (when it is on disk, say) passes it on at once and
confirms it then: `arrived` is how far it has come in, `confirmed` how far it may be forgotten.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from dispy.protocol.frames import Buffer, FrameRefused


class Said(NamedTuple):
    """One numbered thing that was said."""

    number: int
    kind: int
    body: list[Any]
    buffers: Sequence[Buffer]


class Conversation:
    """One side of it, of one peer; not thread-safe."""

    def __init__(self, arrived: int = 0, said: int = 0) -> None:
        """arrived: how far the peer was heard before; said: what it has taken of us then."""
        self.arrived = self.confirmed = arrived
        self.last = self._taken = said  # the number of what was said last, and of what is taken
        self._kept: deque[Said] = deque()

    # -- speaking

    def say(self, kind: int, body: list[Any], buffers: Sequence[Buffer] = ()) -> Said:
        """Return what is to be sent; it is kept until the peer has taken it."""
        self.last += 1
        said = Said(self.last, kind, body, buffers)
        self._kept.append(said)
        return said

    def taken(self, number: int) -> list[Said]:
        """Forget what the peer has taken, up to this number; return it.

        Raises FrameRefused where it was not said yet.
        """
        if number > self.last:
            raise FrameRefused(f"it has heard {number} of {self.last} things that were said")
        gone = []
        while self._kept and self._kept[0].number <= number:
            gone.append(self._kept.popleft())
        self._taken = max(self._taken, number)
        return gone

    def again(self, number: int) -> Iterator[Said]:
        """Return what a peer has to hear that has come back and stands at this number.

        Raises FrameRefused where it cannot go on from there: it has forgotten what it took.
        """
        self.taken(number)
        if number < self._taken:
            raise FrameRefused(f"it has forgotten what it was told: {number} of {self._taken}")
        return iter(list(self._kept))

    @property
    def kept(self) -> int:
        """How many things the peer has not taken."""
        return len(self._kept)

    # -- hearing

    def is_new(self, number: int, may_have_gaps: bool = False) -> bool:
        """Take note of what came; False: it came before. Raises FrameRefused for a gap.

        may_have_gaps: the peer drops what does not matter any more, and counts on.
        """
        if number <= self.arrived:
            return False
        if number != self.arrived + 1 and not may_have_gaps:
            raise FrameRefused(f"number {number} came where {self.arrived + 1} was expected")
        self.arrived = number
        return True

    def confirm(self, number: int) -> bool:
        """Take what came up to this number for good; False: it was before."""
        if number <= self.confirmed:
            return False
        self.confirmed = number
        return True
