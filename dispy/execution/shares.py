"""How a node's slots are shared: evenly among the owners that have jobs there.

A part of the execution core, and as pure. An owner counts as active until a while after its last
job, so that one job at a time does not make the shares flap.
"""

from collections.abc import Collection

from dispy.execution.records import Action, Owner, OwnerId, TellCrowded, TellShare

ACTIVE_SECONDS = 0.5  # after its last job an owner still counts: shares must not flap
CROWDED_SECONDS = 1.0  # that jobs wait for those of other owners before their owner is told
CROWDED_OWNERS = 10  # of these are named


class Shares:
    """Knows which owners count; each has one slot at least."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.active: dict[OwnerId, Owner] = {}

    def share_of(self, owner_id: OwnerId) -> int:
        """Return how many slots are this owner's now, or would be if it had jobs."""
        others = len(self.active) - (owner_id in self.active)
        return max(1, self._slots // (others + 1))

    def note_active(self, owner: Owner, now: float) -> list[Action]:
        """An owner has, or had just now, jobs here."""
        owner.last_active = now
        if owner.active:
            return []
        owner.active = True
        self.active[owner.owner_id] = owner
        return self._tell()

    def time_passed(
        self, owners: Collection[Owner], now: float
    ) -> tuple[list[Owner], list[Action]]:
        """Return the owners that do not count any more, and what is to be told to whom."""
        told = [action for owner in self.active.values() for action in _crowd(owner, owners, now)]
        quiet = [
            owner
            for owner in self.active.values()
            if now - owner.last_active > ACTIVE_SECONDS and not owner.jobs
        ]
        for owner in quiet:
            owner.active, owner.share = False, 0
            del self.active[owner.owner_id]
        return quiet, told + (self._tell() if quiet else [])

    def _tell(self) -> list[Action]:
        """Tell owners whose share has changed."""
        actions: list[Action] = []
        parts, rest = divmod(self._slots, max(1, len(self.active)))
        for at, owner in enumerate(self.active.values()):
            share = max(1, parts + (at < rest))
            if owner.share != share:
                owner.share = share
                actions.append(TellShare(owner.owner_id, share))
        return actions


def _crowd(owner: Owner, owners: Collection[Owner], now: float) -> list[Action]:
    """Tell an owner once that its jobs wait for those of others, and once that this is over."""
    if not owner.is_starved:
        owner.starved_since, was = None, owner.crowded
        owner.crowded = False
        return [TellCrowded(owner.owner_id, ())] if was else []
    if owner.starved_since is None:
        owner.starved_since = now
    if owner.crowded or now - owner.starved_since < CROWDED_SECONDS:
        return []
    owner.crowded = True
    others = [(other.owner_id, other.busy) for other in owners if other.busy]
    return [TellCrowded(owner.owner_id, tuple(others[:CROWDED_OWNERS]))]
