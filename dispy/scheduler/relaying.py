"""Files that jobs of clients send: passed on to these piece by piece, and never stored here.

A client asks for pieces as it would ask the node, by a key that tells nodes apart. Either link may
break by itself: a node that comes back is asked again for what it has not answered, a client is
offered its files again and asks from where it stands. While it is away the node keeps what it
offers. On the scheduler's hub; one greenlet for each client that takes something.
"""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Protocol

import gevent

from dispy.net.link import Link
from dispy.protocol.frames import Buffer, FrameRefused, Shared
from dispy.protocol.messages import Kind
from dispy.scheduler.client import number_there
from dispy.scheduler.client_contents import too_large
from dispy.scheduler.nodes import RemoteNode
from dispy.shipping.contents import PIECE_SIZE

KEY_BYTES = 48  # of a node's key at most; a node of ours makes 16
NODE_BYTES = 16  # of what a client's key has of the node
OFFERS_LIMIT = 256  # files of one node at once; a node of ours offers no more
AHEAD = 8  # pieces of one client that nodes were asked for and that have not left for it
ASKED_LIMIT = 8 * OFFERS_LIMIT  # FETCHes of one client that wait here; it has 4 for each file


class FilesClient(Protocol):
    """A client, as far as files of its jobs go to it."""

    slot: int

    @property
    def link(self) -> Link | None:
        """The link to it; None while it is away."""

    def tell(self, kind: int, body: list[Any]) -> None:
        """Send it a message."""


def key_of(node_id: str, key: bytes) -> bytes:
    """Return as what a client knows a file that a node offers by a key of its own."""
    return blake2b(node_id.encode(errors="replace"), digest_size=NODE_BYTES).digest() + key


@dataclass(slots=True)
class _Offer:
    """A file that a job sends; what was asked of its node is answered in that order."""

    node: RemoteNode
    key: bytes
    client: FilesClient
    job: int
    body: list[Any]  # of OFFER, to the client
    told: Link | None = None  # the link over which the client has it
    # Link over which each piece is awaited, offset, length.
    asked: deque[tuple[Link, int, int]] = field(default_factory=deque)


class _Way:
    """To one client: what waits to be asked for, and pieces that wait to leave."""

    def __init__(self, link: Link, ask: Callable[[bytes, int, int], bool]) -> None:
        self.link, self._ask = link, ask
        self.waiting: deque[tuple[bytes, int, int]] = deque()
        self._pieces: deque[tuple[list[Any], Buffer]] = deque()
        self._ahead = 0
        self._sending = False

    def go_on(self) -> None:
        """Ask nodes for what may be on its way."""
        while self.waiting and self._ahead < AHEAD and not self.link.closed:
            if self._ask(*self.waiting.popleft()):
                self._ahead += 1

    def expect_less(self, pieces: int) -> None:
        """Wait no more for so many pieces that nodes were asked for."""
        self._ahead -= pieces
        self.go_on()

    def came(self, body: list[Any], data: Buffer) -> None:
        """Send a piece that a node was asked for."""
        self._pieces.append((body, data))
        if not self._sending:
            self._sending = True
            gevent.spawn(self._send_all)

    def _send_all(self) -> None:
        """Send each piece when the one before has left, as the reader does not take more."""
        while self._pieces and not self.link.closed:
            body, data = self._pieces.popleft()
            self.link.send(Kind.PIECE, body, [data])
            self.link.wait_sent()
            self._ahead -= 1
            self.go_on()
        self._sending = False


class Relay:
    """The `FilesTaker` of a scheduler service. client_of: whose cluster or job a number is of."""

    def __init__(self, client_of: Callable[[int], FilesClient | None]) -> None:
        self._client_of = client_of
        self.largest = 0  # bytes of a file; 0: any
        self._offers: dict[bytes, _Offer] = {}
        self._ways: dict[int, _Way] = {}  # by slot; each belongs to one link

    # -- nodes

    def offered(
        self, node: RemoteNode, cluster_id: int, job: int, key: bytes, table: dict[str, Any]
    ) -> None:
        """Pass an offer on; one that comes again is of a node that has a new link."""
        if len(key) > KEY_BYTES:
            raise FrameRefused(f"an OFFER with a key of {len(key)} bytes")
        client, known = self._client_of(job), key_of(node.node_id, key)
        offer = self._offers.get(known)
        if offer is not None and offer.job == job:
            offer.node = node
            offer.asked = deque(each for each in offer.asked if each[0] is offer.client.link)
            for _, offset, length in offer.asked:
                node.tell(Kind.FETCH, [key, offset, length])
            return
        if offer is not None:
            self._drop(known)
        if client is None:
            node.tell(Kind.TOOK, [key, "the job is over for its client"])
        elif why := too_large(table.get("size"), self.largest):
            node.tell(Kind.TOOK, [key, why])
        elif sum(each.node is node for each in self._offers.values()) >= OFFERS_LIMIT:
            node.tell(Kind.TOOK, [key, f"{OFFERS_LIMIT} other files are being sent already"])
        else:
            file = {name: table.get(name) for name in ("name", "size", "mode", "modified")}
            file["node"] = node.node_id
            body = [number_there(cluster_id), number_there(job), known, file]
            offer = self._offers[known] = _Offer(node, key, client, job, body)
            self._tell(offer)

    def _tell(self, offer: _Offer) -> None:
        if offer.client.link is not offer.told and offer.client.link is not None:
            offer.told = offer.client.link
            offer.told.send(Kind.OFFER, offer.body)

    def piece(
        self, node: RemoteNode, key: bytes, offset: int, why: str | None, data: Buffer
    ) -> None:
        """Pass on a piece that the client still waits for over the same link."""
        known = key_of(node.node_id, key)
        offer = self._offers.get(known)
        if offer is None:
            return
        if not offer.asked:
            self._answer(offer.client, known, why or "the node sends what nobody has asked for")
            self._drop(known)
            return
        link, _, length = offer.asked.popleft()
        if isinstance(data, Shared) or memoryview(data).nbytes > length:
            raise FrameRefused(f"a PIECE of more than the {length} bytes that were asked for")
        way = self._ways.get(offer.client.slot)
        if way is not None and way.link is link:
            way.came([known, offset, why], data)

    def _answer(self, client: FilesClient, known: bytes, why: str) -> None:
        if client.link is not None:
            client.link.send(Kind.PIECE, [known, 0, why], [b""])

    # -- clients

    def came(self, client: FilesClient) -> None:
        """Offer again what a client has not taken, which has a new link."""
        self._ways.pop(client.slot, None)
        for offer in list(self._offers.values()):
            if offer.client is client:
                self._tell(offer)

    def gone(self, client: FilesClient) -> None:
        """A client is forgotten, and so are its jobs."""
        self._ways.pop(client.slot, None)

    def fetch(self, client: FilesClient, known: bytes, offset: int, length: int) -> None:
        """Ask a node for what a client asks for; raises FrameRefused for what none of ours asks."""
        if offset < 0 or not 0 < length <= PIECE_SIZE:
            raise FrameRefused(f"a FETCH of {length} bytes at {offset}; a piece has {PIECE_SIZE}")
        link = client.link
        if link is None:
            return
        way = self._ways.get(client.slot)
        if way is None or way.link is not link:

            def ask(known: bytes, offset: int, length: int) -> bool:
                return self._ask(client, link, known, offset, length)

            way = self._ways[client.slot] = _Way(link, ask)
        if len(way.waiting) >= ASKED_LIMIT:
            raise FrameRefused(f"more than {ASKED_LIMIT} FETCHes at once")
        way.waiting.append((known, offset, length))
        way.go_on()

    def _ask(self, client: FilesClient, link: Link, known: bytes, offset: int, length: int) -> bool:
        """Ask a node for a piece; False: there is none to come."""
        offer = self._offers.get(known)
        if offer is None or offer.client is not client:
            self._answer(client, known, "it is not offered any more")
            return False
        offer.asked.append((link, offset, length))
        offer.node.tell(Kind.FETCH, [offer.key, offset, length])
        return True

    def took(self, client: FilesClient, known: bytes, why: str | None) -> None:
        """Tell the node that the client has a file, or why it has not."""
        offer = self._offers.get(known)
        if offer is not None and offer.client is client:
            self._drop(known)
            offer.node.tell(Kind.TOOK, [offer.key, why])

    def forget(self, jobs: Collection[int]) -> None:
        """Drop what jobs have not sent to its end: they are final, or begin again."""
        if self._offers:
            over = set(jobs)
            for known in [key for key, offer in self._offers.items() if offer.job in over]:
                self._drop(known)

    def _drop(self, known: bytes) -> None:
        offer = self._offers.pop(known)
        way = self._ways.get(offer.client.slot)
        if way is not None and offer.asked:
            way.expect_less(sum(link is way.link for link, _, _ in offer.asked))
