"""A recovery: dials the nodes of a program that died, as that program, and takes what they have.

It belongs to no scheduler. Its greenlets, one for each node, live on the hub of whoever recovers.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from time import monotonic

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from dispy.model.credentials import Credentials
from dispy.net.dialing import connect
from dispy.net.link import Link, LinkEnd
from dispy.net.secure import NotProven, dial
from dispy.protocol.frames import FrameRefused
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.scheduler.recovered import RecoveredNode, Taker
from dispy.system.network import is_loopback

logger = logging.getLogger("dispy.scheduler")

CONNECT_SECONDS = 5.0
RETRY_SECONDS = 0.1, 2.0  # between attempts to reach a node: the first pause, and the longest
PATIENCE_SECONDS = 20.0  # with a node that is out of reach
REFUSALS = 3  # of a node that breaks a rule, or says that we did, before it is given up
PULSE_SECONDS = 2.0  # between signs of life that a node is asked for
SILENT_PULSES = 5  # that it may miss
TELL_SECONDS = 5.0  # between two words on what is waited for
CANCEL_SECONDS = 20.0  # that cancelled jobs may take to end: nodes kill them after six
PART_SECONDS = 5.0  # that nodes may take to hear what they may forget, and to clean up
LOOK_SECONDS = 0.01  # between two looks at all nodes, at least
STOP_SECONDS = 2.0  # that greenlets may take to end
DIALS = 256  # attempts to connect at once
INSECURE = (
    "it is on another machine, and there is neither a secret nor a certificate: anybody could "
    "pretend to be it. Say insecure=True, or set DISPY_INSECURE=1, if everybody in that network may"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A node as the recovery file has it."""

    node_id: str
    name: str
    host: str
    port: int
    taken: int = 0


class Recovery:
    """Used once, on one hub: `gather`, then `part`, and `stop` in any case."""

    def __init__(
        self,
        identity: str,
        name: str,
        credentials: Credentials,
        places: Iterable[Place],
        taker: Taker,
    ) -> None:
        """identity, name: of the program that died; `credentials` as it had them."""
        self._credentials = credentials
        details = {"recover": True, "pulse": PULSE_SECONDS}
        self._hello = Hello("client", identity, name, details=details)
        self._event = Event()
        self._stopped = False
        at = {(place.host, place.port): place for place in places}  # the last is there now
        self.nodes = [
            RecoveredNode(p.node_id, p.name, p.host, p.port, p.taken, taker, self._event.set)
            for p in at.values()
        ]
        self._dials = BoundedSemaphore(DIALS)
        self._links: set[Link] = set()
        self._greenlets = [gevent.spawn(self._keep, node) for node in self.nodes]

    # -- waiting; in the greenlet of whoever asks

    def gather(self, timeout: float | None, terminate: bool) -> None:
        """Return when nothing more is to come, or after `timeout` seconds.

        terminate: cancel what still runs by then, at once where there is no timeout, and take that
        end too.
        """
        start = monotonic()
        until = inf if timeout is None else start + timeout
        cancel_at = (start if timeout is None else until) if terminate else inf
        until = cancel_at + CANCEL_SECONDS if terminate else until
        tell_at = start + TELL_SECONDS
        while not self._stopped and (missing := [n for n in self.nodes if n.is_waited_for]):
            now = monotonic()
            if now >= until:
                break
            if now >= cancel_at:
                cancel_at = inf
                for node in self.nodes:
                    node.cancel()
            if now >= tell_at:
                tell_at = now + TELL_SECONDS
                self._tell(missing)
            self._look_after_links()
            self._event.clear()
            self._event.wait(max(0.0, min(until, cancel_at, tell_at, now + PULSE_SECONDS) - now))
            gevent.sleep(LOOK_SECONDS)
        if all(node.settled or node.has_ended for node in self.nodes):
            held = set[int]().union(*(node.held for node in self.nodes))
            for node in self.nodes:
                node.lose_all_but(held)
        for node in self.nodes:
            node.frozen = True  # what comes after this return is not handed out

    def part(self) -> None:
        """Tell nodes that what they have given may be forgotten; return when they have heard it.

        Those that are out of reach for PART_SECONDS have not (`parted`).
        """
        until = monotonic() + PART_SECONDS
        for node in self.nodes:
            node.part()
        while (now := monotonic()) < until and any(node.may_part for node in self.nodes):
            self._event.clear()
            self._event.wait(until - now)

    def stop(self) -> None:
        """End all links and greenlets."""
        self._stopped = True
        self._event.set()
        for link in list(self._links):
            link.close()
        gevent.killall(self._greenlets, timeout=STOP_SECONDS)

    def _tell(self, missing: list[RecoveredNode]) -> None:
        for node in missing:
            if node.settled:
                logger.warning("recovery waits for %d jobs of %s", len(node.held), node.where)
            else:
                logger.warning("recovery waits for %s: %s", node.where, node.trouble)

    def _look_after_links(self) -> None:
        """Show signs of life, and end the links over which none come."""
        for node in self.nodes:
            if node.node is not None and node.settled:
                node.node.tell(Kind.PULSE, [])
            if node.is_silent(PULSE_SECONDS * SILENT_PULSES):
                assert node.node is not None
                assert node.node.link is not None
                node.node.link.close()

    # -- links; a greenlet for each node

    def _keep(self, node: RecoveredNode) -> None:
        """Dial a node, again and again, until it is not waited for any more."""
        if not self._may_dial(node.host):
            node.give_up(INSECURE)
        try:
            self._dial_again(node)
        finally:
            if not node.given_up and not self._stopped:
                node.give_up("there was an error on this side")  # nobody waits for it in vain

    def _dial_again(self, node: RecoveredNode) -> None:
        pause, refusals = RETRY_SECONDS[0], 0
        while not node.given_up and not self._stopped:
            end = self._serve(node)
            if node.settled:
                pause = RETRY_SECONDS[0]
            node.trouble = end.reason
            node.link_ended()
            refusals += end.refused
            if refusals >= REFUSALS:
                node.give_up(end.reason)
            elif monotonic() - node.away_since > PATIENCE_SECONDS:
                node.give_up(f"{end.reason}, for {PATIENCE_SECONDS:g} seconds")
            else:
                gevent.sleep(pause)
                pause = min(pause * 1.5, RETRY_SECONDS[1])

    def _may_dial(self, host: str) -> bool:
        if self._credentials.protected or self._credentials.insecure:
            return True
        try:
            return is_loopback(host)
        except ValueError:  # a name, which may mean any machine
            return False

    def _serve(self, node: RecoveredNode) -> LinkEnd:
        """Speak with a node until its link ends; return how that ended."""
        try:
            with self._dials:
                sock = connect(node.host, node.port, CONNECT_SECONDS)
                transport = dial(sock, self._credentials, node.host)
        except NotProven as error:
            node.give_up(str(error))  # asked again it would say the same
            return LinkEnd(str(error))
        except OSError as error:
            return LinkEnd(f"no answer: {error.strerror or error}")
        return self._speak(node, Link(transport, reads_always=False))

    def _speak(self, node: RecoveredNode, link: Link) -> LinkEnd:
        self._links.add(link)
        try:
            hello = link.exchange_hello(self._hello, "node")
            node.connected(link, hello)
            return link.read(node.take)
        except (FrameRefused, OSError) as error:
            return LinkEnd(str(error))  # it may be full, or ending, and soon there again
        finally:
            self._links.discard(link)
            link.close()
