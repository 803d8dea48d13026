"""How many nodes and programs a scheduler has room for: each connection takes a descriptor."""

from dataclasses import dataclass, replace

from dispy.protocol.admission import CONNECTIONS, Bounds, bounds

RESERVE = 48  # descriptors for the journal, the log, the search for nodes, and operators
OPERATORS = 8  # that get in when programs have taken all of their room
PLAUSIBLE_NODES = 1000  # below that a limit is more likely an oversight than a wish


@dataclass(frozen=True, slots=True)
class Room:
    """Of one scheduler; `nodes` None: any number."""

    descriptors: int | None
    nodes: int | None
    door: Bounds  # for programs

    def tell(self) -> str:
        """Say what there is room for."""
        if self.nodes is None:
            return f"room for any number of nodes and {self.door.known} programs at once"
        return (
            f"{self.descriptors} descriptors: room for {self.nodes} nodes and {self.door.known} "
            f"programs at once"
        )

    def warning(self) -> str:
        """Return what to do where that is little; empty: it is not."""
        if self.nodes is None or self.nodes >= PLAUSIBLE_NODES:
            return ""
        return (
            f"the limit of descriptors is low ({self.descriptors}): there is {self.tell()}. Raise "
            f"the hard limit of open files (`ulimit -Hn`, LimitNOFILE= of systemd) for more"
        )


def room_for(descriptors: int | None) -> Room:
    """Return what so many descriptors are room for; None: any number of them.

    A quarter of those that are left by strangers at the door and by ourselves is for programs.
    """
    door = bounds(descriptors)
    if descriptors is None:
        return Room(None, None, door)
    left = descriptors - RESERVE - 2 * door.strangers
    known = max(1, min(CONNECTIONS, left // 4))
    return Room(descriptors, max(1, left - known), replace(door, known=known))
