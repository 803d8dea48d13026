"""The search for nodes while clusters live: on the hub, by pings and announcements.

Each cluster's `Search` says what is wanted and keeps what was met. A node that answers or
announces itself is dialled if some cluster wants and trusts it; whose it becomes is then asked
of each cluster. Nothing that a datagram says is believed further than that.
"""

import logging
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

import gevent

from dispy.client.moving import Moving
from dispy.client.nodes import NodeAllocate
from dispy.client.search import INSECURE, NAMED_LIMIT, OTHER_SECRET_HERE, Address, Search
from dispy.net.credentials import current
from dispy.net.discovery import Ears
from dispy.protocol.discovery import Gone, Here
from dispy.system.network import LOOPBACK, Network, networks

if TYPE_CHECKING:
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")

# Seconds. Nodes of this machine are asked first, so that one which listens everywhere is known by
# its loopback address. Those which could only be refused are asked when the first results are
# there: finding the networks costs an import of 20 ms.
NETWORKS_AFTER = 0.2
REFUSED_AFTER = 1.0
AGAIN_AFTER = 1.0  # seconds; a datagram may be lost
DEAF_SECONDS = 30.0  # between searches where announcements cannot be heard
SAME_NODE_SECONDS = 5.0  # in which a node that answers from two addresses is dialled at one
FOUND_LIMIT = 16384  # nodes that were found by their answers: more than DESIGN's ten thousand


class Discovery:
    """Owned by a session, on its hub. Nothing here waits but its own greenlets."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._searches: dict[int, Search] = {}
        self._tasks: dict[int, gevent.Greenlet[..., None]] = {}
        self._ears = Ears(self._heard, lambda: current(session.scheduler.credentials).secrets)
        self._listening = False
        self._deaf: str | None = None
        self._doubted: set[str] = set()  # identities of nodes that are about to be refused
        self._moving = Moving(
            self._searches.values, lambda: session.scheduler.keepers.unreachable, self._moved
        )
        self._found: dict[str, tuple[Address, float]] = {}  # identity -> dialled where and when

    def begin(self, number: int, search: Search, interval: float | None) -> None:
        """Search for a cluster's nodes; again every `interval` seconds if it says so."""
        self._searches[number] = search
        for host, port in search.wanted.listed:
            if search.wanted.trusts(host):
                self._session.scheduler.connect(host, port)
        for address, identity in search.met:
            self._dial(identity, address)
        self._tasks[number] = gevent.spawn(self._repeat, search, interval)
        self._moving.begin(search)

    def widen(self, number: int, allocations: Sequence[NodeAllocate]) -> None:
        """A cluster may use further hosts, which its search knows already."""
        search = self._searches.get(number)
        if search is None:
            return  # it was closed in between
        for host, port in search.wanted.listed:
            if search.wanted.trusts(host):
                self._session.scheduler.connect(host, port)  # nothing new for those it has
        self._moving.begin(search)
        self.ask_now(number, allocations)

    def end(self, number: int) -> None:
        """A cluster was closed: hosts that only it named are let go."""
        search = self._searches.pop(number, None)
        task = self._tasks.pop(number, None)
        if search is None or task is None:
            return
        task.kill(block=False)
        for address in set(search.wanted.listed) - self._listed():
            self._session.scheduler.forget(*address)

    def close(self) -> None:
        """Stop all searches."""
        self._moving.close()
        gevent.killall(list(self._tasks.values()))
        self._ears.close()

    def ask_now(self, number: int, allocations: Sequence[NodeAllocate]) -> None:
        """Search at once for these hosts and patterns; which may be used stays as it is."""
        search = self._searches.get(number)
        if search is not None:
            gevent.spawn(self._ask, search, allocations)

    def _moved(self, search: Search, before: Address | None, now: Address) -> None:
        """Dial a named host where it is now, and let its old address go if nobody else means it."""
        if before is not None:
            logger.info("%s is at another address now: %s", before[0], now[0])
        if search.wanted.trusts(now[0]):
            self._session.scheduler.connect(*now)
        if before is not None and before not in self._listed():
            self._session.scheduler.forget(*before)

    def _listed(self) -> set[Address]:
        return {address for search in self._searches.values() for address in search.wanted.listed}

    # -- asking

    def _repeat(self, search: Search, interval: float | None) -> None:
        self._ask(search, search.wanted.allocations)
        gevent.sleep(AGAIN_AFTER)
        self._ask(search, search.wanted.allocations)
        if interval is None and search.deaf is None:
            return
        while True:
            gevent.sleep(interval or DEAF_SECONDS)
            self._ask(search, search.wanted.allocations)

    def _ask(self, search: Search, allocations: Sequence[NodeAllocate]) -> None:
        """Ping hosts and networks; the answers come to `_heard`."""
        wanted = search.wanted
        for allocation in allocations:
            host, port = allocation.ip_addr, wanted.port_of(allocation)
            if host and not allocation.is_pattern and wanted.trusts(host):
                search.asked(host, port, monotonic(), None, self._ears.ask(host, port, port))
        # Each port with the port that a node must have to answer there; 0: any.
        ports = {
            wanted.port_of(a): a.port or wanted.node_port or 0 for a in allocations if a.is_pattern
        }
        if not ports:
            return
        self._listen(search)
        self._broadcast(search, LOOPBACK, ports)
        if not wanted.broadcast:
            return
        gevent.sleep(NETWORKS_AFTER if wanted.elsewhere else REFUSED_AFTER)
        for network in networks():
            if not network.is_loopback:
                self._broadcast(search, network, ports)

    def _broadcast(self, search: Search, network: Network, ports: dict[int, int]) -> None:
        if not search.wanted.may_meet(network):
            return
        for port, only in ports.items():
            error = self._ears.ask(network.broadcast, port, only)
            search.asked(network.broadcast, port, monotonic(), network, error)

    def _listen(self, search: Search) -> None:
        if not self._listening:
            self._listening = True
            self._deaf = self._ears.listen()
            if self._deaf:
                logger.debug("announcements of nodes cannot be heard: %s", self._deaf)
        search.deaf = self._deaf

    # -- answers

    def _heard(self, packet: Here | Gone, address: str, proven: bool) -> None:
        """A node said that it is there, or that it ends; anybody may have said so.

        proven: it has our secret, or there is none.
        """
        if isinstance(packet, Gone):
            self._gone(packet, address)
            return
        searches = self._searches.values()
        refused_by = [s for s in searches if self._hear(s, packet, address, proven)]
        if refused_by and len(self._doubted) < NAMED_LIMIT:
            self._doubted.add(packet.identity)
            # A node that listens everywhere answers from its loopback address too.
            why = INSECURE if proven else OTHER_SECRET_HERE
            gevent.spawn_later(NETWORKS_AFTER * 2, self._refuse, refused_by, packet, address, why)

    def _hear(self, search: Search, here: Here, address: str, proven: bool) -> bool:
        """Dial a node that one cluster wants; True where that cluster must not use it."""
        search.answered(here, address)
        if not search.wanted.covers(address, here.port):
            search.passed_over(here, address)
            return False
        if not proven:
            return (address, here.port) not in search.wanted.listed  # else its link says more
        if not search.wanted.trusts(address):
            return True
        self._dial(here.identity, (address, here.port))
        return False

    def _refuse(self, searches: Sequence[Search], here: Here, address: str, why: str) -> None:
        self._doubted.discard(here.identity)
        if self._session.scheduler.nodes.knows(here.identity):
            return
        news = [search.refused(here, address, why) for search in searches]
        if any(news):
            logger.warning("%s", next(filter(None, news)))

    def _dial(self, identity: str, address: Address) -> None:
        """Connect to a node, once, from whichever of its addresses the answer came."""
        now = monotonic()
        if self._session.scheduler.nodes.knows(identity):
            return  # connected, or being dialled again by its keeper
        before = self._found.get(identity)
        if before is not None and before[0] != address and now - before[1] < SAME_NODE_SECONDS:
            return
        keepers = self._session.scheduler.keepers
        if len(keepers) >= FOUND_LIMIT:
            return  # somebody makes them up; real ones are asked again
        if len(self._found) >= 2 * FOUND_LIMIT:
            self._found = {i: found for i, found in self._found.items() if found[0] in keepers}
        self._found[identity] = address, now
        self._session.scheduler.connect(*address, found=True)

    def _gone(self, gone: Gone, address: str) -> None:
        found = self._found.pop(gone.identity, None)
        if found is not None and found[0][0] == address and found[0] not in self._listed():
            self._session.scheduler.forget(*found[0])
