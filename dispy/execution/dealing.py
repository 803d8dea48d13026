"""Whose job begins next on a node: the least served owner's, and then nobody else's until it fits.

A part of the execution core, and as pure.
"""

from dispy.execution.records import Computation, Owner
from dispy.execution.turns import Turns


class Dealing:
    """Knows who wants slots, and for whom the free ones are kept."""

    def __init__(self) -> None:
        self._turns: Turns[Owner] = Turns()
        self.reserved: Computation | None = None  # whose next job all free slots are kept for

    @property
    def is_wanted(self) -> bool:
        """Whether anybody wants slots."""
        return self._turns.wanting > 0

    def wants_changed(self, computation: Computation) -> None:
        """Bring its place in its owner's turns up to date, and its owner's in the node's."""
        owner = computation.owner
        owner.turns.update(computation, computation.wants)
        self._turns.update(owner, owner.turns.wanting > 0)

    def owner_changed(self, owner: Owner) -> None:
        """Bring an owner's place up to date that has lost a computation."""
        self._turns.update(owner, owner.turns.wanting > 0)

    def hold_back(self, owner: Owner, held: bool) -> None:
        """Let none of an owner's jobs begin, or again."""
        owner.held_back = held
        for computation in owner.computations.values():
            self.wants_changed(computation)

    def next(self, free: int, slots: int) -> Computation | None:
        """Return the computation whose job begins now, in some of the `free` of all `slots`.

        None: nobody wants any, or they are kept for a job that needs more.
        """
        computation = self.reserved
        if computation is None or not computation.wants:
            owner = self._turns.first()
            computation = None if owner is None else owner.turns.first()
        self.reserved = None
        if computation is None or (computation.width == 1 and not computation.widths):
            return computation
        if min(computation.head_width, slots) > free:
            self.reserved = computation
            return None
        return computation

    def is_somebody_short(self, computation: Computation) -> bool:
        """Say whether another waits that should have `computation`'s slots next."""
        if self.reserved is not None:
            return True
        first = self._turns.first() if self._turns.wanting else None
        if first is None:
            return False
        if first is not computation.owner:
            return first.busy < computation.owner.busy
        other = first.turns.first()
        return other is not None and other.busy < computation.busy
