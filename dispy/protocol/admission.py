"""Which connections that have proven nothing may stay: the room of strangers. Sans-I/O.

It is bounded, for each network and in all, and apart from the room of those who have proven
themselves: strangers never take a known peer's place. Where it is full the oldest goes, and the
newcomer comes in. Turning the newcomer away would let few silent connections keep everybody out;
whoever is honest is through within milliseconds, and is not the oldest.

There are two such rooms, one after the other: of those who have not said enough to be answered,
and of those who have, and prove themselves. So silent ones drop only silent ones.

Where it is full in all, the network goes first that has the most. So however many connections
come from one place, those of other places are not dropped for them.

A newcomer for which another one is dropped costs 0.1 ms of processor. A network whose room is full
has a stated number of them a second, and so has a room that is full in all; other newcomers are
turned away, which costs a third.
"""

import ipaddress
from dataclasses import dataclass

STRANGERS = 256  # at once in a room: 64 KB each, with OpenSSL's own
STRANGERS_OF_ONE = 64  # of one network: many programs of one machine may start at once
EXCHANGES = 250.0  # a second: newcomers of a network for which one of it is dropped
EXCHANGES_IN_ALL = 500.0  # a second: newcomers for which one of another network is dropped
CONNECTIONS = 4096  # of known peers: what the memory of a small machine bears
STRANGER_SECONDS = 5.0  # that a stranger has to prove itself: a slow machine under load
_PREFIX = 64  # of IPv6: all such addresses belong to one machine


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many connections there may be at once."""

    known: int
    strangers: int  # in a room
    of_one: int  # of them, of one network


def bounds(descriptors: int | None) -> Bounds:
    """Return what suits a process that may have so many descriptors, None: any number.

    There are two rooms of strangers. Some of the descriptors are left to what its jobs need.
    """
    if descriptors is None:
        return Bounds(CONNECTIONS, STRANGERS, STRANGERS_OF_ONE)
    strangers = max(1, min(STRANGERS, descriptors // 16))
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


class Purse:
    """So many coins at most, which come back with time."""

    def __init__(self, most: float) -> None:
        self._most = self._left = most
        self._since = 0.0

    def pay(self, a_second: float, now: float) -> bool:
        """Take a coin, if there is one; so many come back in a second."""
        self._left = min(self._most, self._left + (now - self._since) * a_second)
        self._since = now
        may = self._left >= 1.0
        self._left -= may
        return may


class Admission:
    """A room of strangers; each event costs the same, however many there are."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._inside: dict[str, dict[Stranger, None]] = {}  # by network, the oldest first
        self._crowds: dict[int, dict[str, None]] = {}  # networks by how many they have
        self._largest = self._count = 0
        self._purses: dict[str, Purse] = {}  # of networks that have filled their room
        self._purse = Purse(bounds.strangers)

    def __len__(self) -> int:
        return self._count

    def of(self, network: str) -> int:
        """Return how many strangers of a network there are."""
        return len(self._inside.get(network, ()))

    def arrived(self, address: str, now: float) -> tuple[Stranger | None, Stranger | None]:
        """Let a connection in; return it, None: it is turned away, and the one that has to go.

        now: monotonic seconds.
        """
        network = network_of(address)
        leaving = None
        if self.of(network) >= self._bounds.of_one:
            purse = self._purses.setdefault(network, Purse(self._bounds.of_one))
            if not purse.pay(EXCHANGES, now):
                return None, None
            leaving = next(iter(self._inside[network]))
        elif self._count >= self._bounds.strangers:
            if not self._purse.pay(EXCHANGES_IN_ALL, now):
                return None, None
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
            self._purses.pop(network, None)
        if count > self._largest:
            self._largest = count
        elif self._largest not in self._crowds:
            self._largest -= 1  # that of the network, which was the only one so large
