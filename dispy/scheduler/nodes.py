"""A node as a scheduler sees it, and the table of all of them."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import monotonic, time
from typing import Any

from dispy.model.events import event
from dispy.net.link import Link
from dispy.protocol.frames import Buffer
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind

logger = logging.getLogger("dispy.scheduler")

IMITATION = (
    "node %s at %s says that it is one which is used already, and has another key: it is used as "
    "a node of its own"
)
MUTE = "its machine takes the connection, and the node says nothing: it hangs, or was stopped"
SILENT = "it fell silent"


@dataclass(slots=True)
class Away:
    """A node's link has broken, and there is no other yet; seconds of `monotonic`."""

    why: str
    heard: float  # when it last said something
    since: float
    told: bool = False  # to the user

    def lines(self, now: float) -> str:
        """Say what happened, and when."""
        return f"{self.why} {now - self.heard:.0f} s ago"


@dataclass(slots=True, eq=False)
class Order:
    """Something that a node is to be told over one of its links, in its turn."""

    link: Link | None
    send: Callable[[Link], None] | None = None  # None: it may not go yet


@dataclass(slots=True)
class RemoteNode:
    """A node that said hello. `node_id` is that of its process, not of its address: what it says,
    and the key that it has proven."""

    node_id: str
    name: str
    ip_addr: str
    port: int  # 0: the local node on its socket pair
    cpus: int  # processors that it offers to all owners together
    hello: Hello
    link: Link | None  # None while it is being dialled again
    share: int = 0  # slots that are ours now
    owners: int = 1  # clients that share it
    away: Away | None = None  # while there is no link
    settled: bool = False  # both sides have compared what they hold
    said: int = 0  # the number of a provisional value of its jobs that came last
    results_seen: int = 0  # the last sequence number of results that was taken
    acknowledged: int = 0  # the number that the node has been told
    unacknowledged_bytes: int = 0  # of buffers of results since then
    jobs_done: int = 0
    run_seconds: float = 0.0  # wall time of those jobs, together
    available: tuple[float, int, int, float] | str | None = None  # see dispy.system.spare
    sent_before: int = 0  # bytes over links that have ended
    received_before: int = 0
    update_time: float = field(default_factory=time)  # seconds since the epoch
    opened: set[int] = field(default_factory=set)  # clusters that were sent to it
    ready: set[int] = field(default_factory=set)
    translated: set[int] = field(default_factory=set)  # clusters that come from another Python
    refused: dict[int, str] = field(default_factory=dict)  # cluster -> why it cannot be used
    own: dict[int, dict[str, Any]] = field(default_factory=dict)  # settings for it alone
    # Clusters whose jobs are leaving it, and those that it is closing: whether it is set up again.
    leaving: dict[int, bool] = field(default_factory=dict)
    closing: dict[int, bool] = field(default_factory=dict)
    pulse_seconds: float = 0.0  # between signs of life that it was asked for
    pulse_since: float = 0.0  # monotonic second at which it was asked
    files_answered: dict[bytes, str | None] = field(default_factory=dict)  # what TOOK said of them
    strange: int = 0  # how often it spoke of what was not its own
    told_of: Link | None = None  # the link on which that was logged last
    of_other_user: bool = False  # of this machine, and it has proven nothing
    waiting: deque[Order] = field(default_factory=deque)  # what goes to it in turn, later

    def traffic(self) -> tuple[int, int]:
        """Return how many bytes were sent to it and received from it. From any thread."""
        link, sent, received = self.link, self.sent_before, self.received_before
        if link is not None:
            sent, received = sent + link.sent_bytes, received + link.received_bytes
        return sent, received

    def link_made(self, link: Link, host: str, port: int, pulse_seconds: float) -> None:
        """Speak with it over a new link, on which it was told how often to say something."""
        self.ip_addr, self.port = host, port  # the host may have moved, or have several
        if self.away is not None and self.away.told:
            gone = monotonic() - self.away.heard
            told = event("node_back", **of_node(self), seconds=round(gone, 3))
            logger.info(
                "node %s (%s) is back after %.0f s", self.name, self.ip_addr, gone, extra=told
            )
        self.link, self.away = link, None
        self.acknowledged = 0  # what it was told may be lost with the old link
        self.settled = False  # nothing goes there before its list comes
        self.pulse_seconds, self.pulse_since = pulse_seconds, 0.0

    def link_ended(self, link: Link, why: str) -> None:
        """Take note that one of its links is no more."""
        if self.link is link:
            self.link, self.settled = None, False
            self.away = Away(why, link.heard, monotonic())
        self.sent_before += link.sent_bytes
        self.received_before += link.received_bytes

    def take_available(self, said: object) -> bool:
        """Take the node's word on what it has to spare; False: it is a peer's nonsense."""
        if isinstance(said, str):
            self.available = said[:1000]
            return True
        if isinstance(said, list) and [type(part) for part in said] == [float, int, int, float]:
            cpu, memory, disk, swap = said
            self.available = (cpu, memory, disk, swap)
            return True
        return False

    def tell(self, kind: int, body: list[Any], buffers: Sequence[Buffer] = ()) -> None:
        """Send a frame in turn; nothing while the link is broken."""
        if self.link is None:
            return
        if self.waiting:
            self.fill(self.reserve(), lambda link: link.send(kind, body, buffers))
        else:
            self.link.send(kind, body, buffers)

    def reserve(self) -> Order:
        """Have all that is told from now on wait for something that may go only later."""
        order = Order(self.link)
        self.waiting.append(order)
        return order

    def fill(self, order: Order, send: Callable[[Link], None]) -> None:
        """Let it go; nothing of it does where its link is not the present one any more."""
        order.send = send
        waiting = self.waiting
        while waiting and (send_first := waiting[0].send) is not None:
            if (link := waiting.popleft().link) is not None and link is self.link:
                send_first(link)

    def acknowledge(self) -> None:
        """Tell the node which results it may forget."""
        if self.acknowledged != self.results_seen and self.link is not None:
            self.acknowledged, self.unacknowledged_bytes = self.results_seen, 0
            self.link.send(Kind.ACKNOWLEDGE, [self.results_seen])

    @property
    def exposed(self) -> bool:
        """Whether nothing protects the link to it on its way through a network."""
        link = self.link
        if self.port == 0 or link is None or link.peer_key is not None:
            return False
        return not ip_address(self.ip_addr.split("%")[0]).is_loopback

    @property
    def python(self) -> str:
        """What it runs: "cpython 3.12"."""
        return f"{self.hello.implementation} {self.hello.python}"

    def expect_pulse(self, seconds: float, now: float) -> None:
        """Expect signs of life as often as it is told now, if it was not told so before."""
        if seconds < self.pulse_seconds:
            self.pulse_seconds, self.pulse_since = seconds, now

    def expected_since(self) -> float:
        """Return the second since when it has kept silent although it knew what we expect."""
        assert self.link is not None, "who asks has looked"
        return max(self.link.heard, self.pulse_since)


def of_node(node: RemoteNode) -> dict[str, Any]:
    """Return the fields of an event that say which node it is about."""
    return {"node": node.name, "ip_addr": node.ip_addr, "port": node.port, "node_id": node.node_id}


class Nodes(dict[str, RemoteNode]):
    """Those that a scheduler has, by `node_id`."""

    def __init__(self) -> None:
        super().__init__()
        self._said: Counter[str] = Counter()  # identities that they say they have

    def take_in(self, node: RemoteNode) -> None:
        """Add a node."""
        self[node.node_id] = node
        self._said[node.hello.identity] += 1

    def take_out(self, node: RemoteNode) -> bool:
        """Remove a node; False: it is gone already."""
        if self.pop(node.node_id, None) is None:
            return False
        self._said[node.hello.identity] -= 1
        if not self._said[node.hello.identity]:
            del self._said[node.hello.identity]
        return True

    def knows(self, identity: str) -> bool:
        """Whether some node says that this is its identity."""
        return identity in self._said
