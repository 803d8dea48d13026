"""Which connections that have proven nothing may stay: the room of strangers. Sans-I/O.

It is bounded, for each network and in all, and apart from the room of those who have proven
themselves: strangers never take a known peer's place. Where it is full the oldest goes, and the
newcomer comes in. Turning the newcomer away would let few silent connections keep everybody out;
whoever is honest is through within milliseconds, and is not the oldest.

Where it is full in all, the network goes first that has the most. So however many connections
come from one place, those of other places are not dropped for them.
"""

import ipaddress
from dataclasses import dataclass

STRANGERS = 512  # at once: 64 KB each, with OpenSSL's own
STRANGERS_OF_ONE = 64  # of one network: many programs of one machine may start at once
CONNECTIONS = 4096  # of known peers: what the memory of a small machine bears
STRANGER_SECONDS = 5.0  # that a stranger has to prove itself: a slow machine under load
_PREFIX = 64  # of IPv6: all such addresses belong to one machine


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many connections there may be at once."""

    known: int
    strangers: int
    of_one: int


def bounds(descriptors: int | None) -> Bounds:
    """Return what suits a process that may have so many descriptors, None: any number.

    Half of them are left to what its jobs need.
    """
    if descriptors is None:
        return Bounds(CONNECTIONS, STRANGERS, STRANGERS_OF_ONE)
    strangers = max(1, min(STRANGERS, descriptors // 8))
    return Bounds(
        known=max(1, min(CONNECTIONS, descriptors // 2)),
        strangers=strangers,
        of_one=max(1, min(STRANGERS_OF_ONE, strangers // 2)),
    )


def network_of(address: str) -> str:
    """Return whom an address belongs to: itself, or its /64 where it is of IPv6."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, _PREFIX), strict=False))


@dataclass(slots=True, eq=False)
class Stranger:
    """A connection that has proven nothing yet."""

    address: str
    network: str


class Admission:
    """The room of strangers; each event costs the same, however many there are."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._inside: dict[str, dict[Stranger, None]] = {}  # by network, the oldest first
        self._crowds: dict[int, dict[str, None]] = {}  # networks by how many they have
        self._largest = self._count = 0

    def __len__(self) -> int:
        return self._count

    def of(self, network: str) -> int:
        """Return how many strangers of a network there are."""
        return len(self._inside.get(network, ()))

    def arrived(self, address: str) -> tuple[Stranger, Stranger | None]:
        """Let a connection in; return it, and the one that has to go for it."""
        network = network_of(address)
        leaving = None
        if self.of(network) >= self._bounds.of_one:
            leaving = next(iter(self._inside[network]))
        elif self._count >= self._bounds.strangers:
            leaving = self.oldest()
        if leaving is not None:
            self.left(leaving)
        stranger = Stranger(address, network)
        self._inside.setdefault(network, {})[stranger] = None
        self._resized(network, len(self._inside[network]) - 1)
        return stranger, leaving

    def oldest(self) -> Stranger | None:
        """Return the oldest one of the network that has the most."""
        if not self._count:
            return None
        network = next(iter(self._crowds[self._largest]))
        return next(iter(self._inside[network]))

    def left(self, stranger: Stranger) -> None:
        """Take out one that has gone, or has proven itself; safe to call again."""
        inside = self._inside.get(stranger.network)
        if inside is None or stranger not in inside:
            return
        del inside[stranger]
        self._resized(stranger.network, len(inside) + 1)

    def _resized(self, network: str, before: int) -> None:
        count = self.of(network)
        self._count += count - before
        if before:
            del self._crowds[before][network]
            if not self._crowds[before]:
                del self._crowds[before]
        if count:
            self._crowds.setdefault(count, {})[network] = None
        else:
            del self._inside[network]
        if count > self._largest:
            self._largest = count
        elif self._largest not in self._crowds:
            self._largest -= 1  # that of the network, which was the only one so large
