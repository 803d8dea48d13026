"""The greenlets that dial nodes and keep their links: one for each address.

A named address is dialled for as long as somebody names it. One that was only found is let go
when its node says goodbye, and some time after it was lost. Pauses between attempts grow, and are
of random length: those whom the same switch has cut off do not come back in step.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from random import Random
from time import monotonic

import gevent
from gevent.lock import BoundedSemaphore
from gevent.socket import socket

from dispy.model.events import event
from dispy.net.dialing import connect
from dispy.net.link import LinkEnd
from dispy.scheduler.nodes import SILENT, RemoteNode, of_node

logger = logging.getLogger("dispy.scheduler")

# An attempt ends early, because the kernel asks again after 1, 3 and 7 s: in these gaps nobody
# would notice that the network is back. Each fourth is for those which are that far away.
CONNECT_SECONDS = 1.5, 1.5, 1.5, 5.0
RETRY_SECONDS = 0.1, 2.0  # between attempts: the first pause, and the longest
KNOWN_SECONDS = 0.75  # the longest where a node was met: its network may be back at any time
LASTING_SECONDS = 2.0  # of a link, after which the next one is dialled without hesitation
REDIAL_SECONDS = 1.0  # which a node has to answer in any case, however short its pulses are
REFUSAL_SECONDS = 30.0  # before a node is asked again that refused us, or we it, by a rule
RESTART_SECONDS = 2.0  # how long a node whose machine says "no such port" may be restarting
DIALS = 256  # attempts at once: a quarter of the descriptors that a program may have
GREETING_SECONDS = (
    1.0  # for which proofs and hello of one hold up others, so that few begin at once
)
# Of all together: five hundred addresses without an answer are dialled as often as said above, ten
# thousand less often. Those of nodes that are away more often: they may be there again any moment.
ATTEMPTS_A_SECOND, ATTEMPTS_AT_KNOWN = 250.0, 2000.0
UNPROVEN_SECONDS = 30.0  # an address is dialled so long at which no node was met: it may be a lie
FOUND_SECONDS = 600.0  # a found node that was lost is dialled so long: its machine may reboot

ROOM_TOLD_SECONDS = 60.0  # between words on nodes that there is no room for
NO_ROOM = "there is no room for one more node: the limit of open files does not let it in"

Address = tuple[str, int]  # host, port
Served = tuple[RemoteNode | None, LinkEnd]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to speak with the node at an address."""

    host: str
    port: int
    before: RemoteNode | None = None  # that was met there last, and is not lost
    deadline: float | None = None  # monotonic second at which it is
    greeted: Callable[[], None] = lambda: None  # to be called once both have said hello

    def within(self, why: str) -> gevent.Timeout:
        """Return a context whose end by the deadline is a TimeoutError that says `why`."""
        left = None if self.deadline is None else max(0.0, self.deadline - monotonic())
        return gevent.Timeout(left, TimeoutError(why))


class Turn:
    """One of the attempts that are made at once, in the calling greenlet until `end`."""

    def __init__(self, turns: BoundedSemaphore) -> None:
        """Wait for it."""
        self._turns: BoundedSemaphore | None = turns
        self._limit: gevent.Greenlet[..., None] | None = None
        turns.acquire()

    def end_within(self, seconds: float) -> None:
        """End it by itself in so long, if it has not ended before."""
        self._limit = gevent.spawn_later(seconds, self._release)

    def end(self) -> None:
        """Let another one have it; safe to call again."""
        if self._limit is not None:
            self._limit.kill(block=False)
            self._limit = None
        self._release()

    def _release(self) -> None:
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.release()


class Pauses:
    """Between the attempts at one address."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.begin()

    def begin(self) -> None:
        """Begin with the shortest: a link has just ended."""
        self._next = RETRY_SECONDS[0]

    def next(self, longest: float) -> float:
        """Return the seconds of the next one: at least half of what may be `longest` in the end."""
        pause = min(self._next, longest)
        self._next = pause * 1.5
        return pause * self._random.uniform(0.5, 1.0)


class Keepers:
    """Owns a greenlet for each address; used on its scheduler's hub.

    nodes: those that the scheduler has, by id. serve: speaks with a node until its link ends.
    lost: takes a node out. until_lost: in how many seconds a node is lost that was last heard at
    a second (monotonic). random: for the pauses.
    """

    def __init__(
        self,
        nodes: Mapping[str, RemoteNode],
        serve: Callable[[socket, Attempt], Served],
        lost: Callable[[RemoteNode, str], None],
        until_lost: Callable[[float], float],
        random: Random | None = None,
    ) -> None:
        self._nodes, self._serve, self._lost, self._until_lost = nodes, serve, lost, until_lost
        self._random = random or Random()
        self._dials = BoundedSemaphore(DIALS)
        self.most: int | None = None  # connections that there is room for; None: any number
        self._connections = 0  # those that are being made included
        self.waiting_for_room: set[Address] = set()
        self._told_of_room = -inf
        self._greenlets: dict[Address, gevent.Greenlet[..., None]] = {}
        self._wanted_until: dict[Address, float] = {}  # monotonic seconds
        self.elsewhere: dict[Address, str] = {}  # its node's id, where that has a link already
        self.unreachable: dict[Address, str] = {}  # what the last attempt said

    def __len__(self) -> int:
        """Return how many addresses are dialled or connected."""
        return len(self._greenlets)

    def __contains__(self, address: Address) -> bool:
        return address in self._greenlets

    def keep(self, host: str, port: int, found: bool, node: RemoteNode | None = None) -> None:
        """Keep a link to the node at this address from now on; `node`: that was met before."""
        until = monotonic() + UNPROVEN_SECONDS if found else inf
        address = host, port
        self._wanted_until[address] = max(until, self._wanted_until.get(address, 0.0))
        if address not in self._greenlets:
            self._greenlets[address] = gevent.spawn(self._keep, address, node)

    def forget(self, host: str, port: int) -> None:
        """Let an address go; a node that is connected there stays until it is lost."""
        if (host, port) in self._wanted_until:
            self._wanted_until[host, port] = 0.0

    def _keep(self, address: Address, node: RemoteNode | None) -> None:
        """Dial an address for as long as it is wanted."""
        pauses, longest = Pauses(self._random), RETRY_SECONDS[1] if node is None else KNOWN_SECONDS
        attempt = 0
        while True:
            began = monotonic()
            served, end, closed = self._dial(address, node, CONNECT_SECONDS[attempt % 4])
            self.unreachable[address] = end.reason
            if longest == KNOWN_SECONDS:
                self.unreachable[address] = end.reason.replace("no answer", "no answer any more")
            attempt += 1
            if served is not None:
                node, attempt, longest = served, 0, KNOWN_SECONDS
                self._prolong(address, now := monotonic())
                if now - began > LASTING_SECONDS:
                    pauses.begin()
            left = node is not None and node.node_id not in self._nodes  # it said goodbye
            if node is not None and not left and (served is None or end.reason == SILENT):
                self._look_after(node, end, closed)
            if node is not None and (node.node_id not in self._nodes or node.away is None):
                node = None  # gone, or another of its addresses has been dialled meanwhile
            if node is None and self._is_over(address, left):
                break
            if end.refused:
                self._sit_out(node, end)
            else:
                pause = max(pauses.next(longest), self._spread(longest))
                gevent.sleep(min(pause, self._left_to(node) or inf))
            while self._is_connected_elsewhere(address):
                gevent.sleep(RETRY_SECONDS[1])  # a second link to it would end the first
        del self._greenlets[address], self._wanted_until[address]
        for table in (self.unreachable, self.elsewhere):
            table.pop(address, None)
        self.waiting_for_room.discard(address)

    def _spread(self, longest: float) -> float:
        """Return the seconds of a pause that lets all have their turn who do not answer."""
        rate = ATTEMPTS_AT_KNOWN if longest == KNOWN_SECONDS else ATTEMPTS_A_SECOND
        spread = len(self.unreachable) / rate
        return spread if spread < RETRY_SECONDS[0] else spread * self._random.uniform(0.5, 1.0)

    def _is_connected_elsewhere(self, address: Address) -> bool:
        node = self._nodes.get(self.elsewhere.get(address, ""))
        return node is not None and node.link is not None

    # -- nodes that are away

    def _left_to(self, node: RemoteNode | None) -> float | None:
        """Return the seconds until a node is lost; None: there is none, or it has a link."""
        if node is None or node.away is None:
            return None
        least = node.away.since + REDIAL_SECONDS - monotonic()
        return max(0.0, least, self._until_lost(node.away.heard))

    def _look_after(self, node: RemoteNode, end: LinkEnd, closed: bool) -> None:
        """Take a node for lost when it is time for that; say that it is away before.

        end: of an attempt to connect to it. closed: its machine says "no such port".
        """
        away, left, now = node.away, self._left_to(node), monotonic()
        if away is None or left is None:
            return  # another of its addresses is connected
        if closed:
            left = min(left, away.since + RESTART_SECONDS - now)
        why, came = away.lines(now), _tell(node, end, closed)
        if came != away.why:
            why = f"{why}, and {came}"
        if left <= 0:
            self._lost(node, f"{why}; `dispy doctor {node.ip_addr}` checks the way to it")
        elif not away.told and not closed:  # which is over in a moment
            away.told = True
            logger.warning(
                "node %s (%s) is away: %s; its jobs go on there, and it is lost if it does not "
                "come back within %.0f s", node.name, node.ip_addr, why, left,
                extra=event("node_away", **of_node(node), why=why, lost_in=round(left, 3)),
            )  # fmt: skip

    def _sit_out(self, node: RemoteNode | None, end: LinkEnd) -> None:
        """Wait before a node is asked again that broke a rule, or says that we did.

        Its jobs do not wait for that: it is lost when it would be if it were silent.
        """
        left = min(self._left_to(node) or 0.0, REFUSAL_SECONDS)
        gevent.sleep(left)
        if node is not None:
            self._look_after(node, end, closed=False)
        gevent.sleep(REFUSAL_SECONDS - left)

    # -- addresses

    def _dial(
        self, address: Address, before: RemoteNode | None, seconds: float
    ) -> tuple[RemoteNode | None, LinkEnd, bool]:
        """Serve a node once; return it, how that ended, and whether its port was closed.

        seconds: that connecting may take.
        """
        turn = Turn(self._dials)
        if not self._has_room(address):
            turn.end()
            return None, LinkEnd(NO_ROOM, refused=True), False
        self._connections += 1  # until the link has ended
        try:
            left = self._left_to(before)
            try:
                sock = connect(*address, seconds if left is None else min(seconds, left + 0.1))
            except OSError as error:
                end = LinkEnd(f"no answer: {error.strerror or error}")
                return None, end, isinstance(error, ConnectionRefusedError)
            turn.end_within(GREETING_SECONDS)
            left = self._left_to(before)
            deadline = None if left is None else monotonic() + left
            return *self._serve(sock, Attempt(*address, before, deadline, turn.end)), False
        finally:
            turn.end()
            self._connections -= 1

    def _has_room(self, address: Address) -> bool:
        """Whether there may be one more connection; else that is told, now and then."""
        if self.most is None or self._connections < self.most:
            self.waiting_for_room.discard(address)
            return True
        self.waiting_for_room.add(address)
        now = monotonic()
        if now - self._told_of_room >= ROOM_TOLD_SECONDS:
            self._told_of_room = now
            logger.error(
                "no room for the node at %s, port %d: %d nodes are connected, as many as the limit "
                "of open files lets in; it is tried again. Raise that limit (`ulimit -Hn`, "
                "LimitNOFILE= of systemd), and start the scheduler again", *address, self.most,
                extra=event("node_without_room", ip_addr=address[0], port=address[1]),
            )  # fmt: skip
        return False

    def _prolong(self, address: Address, now: float) -> None:
        if 0.0 < self._wanted_until[address] < inf:
            self._wanted_until[address] = now + FOUND_SECONDS

    def _is_over(self, address: Address, left: bool) -> bool:
        """Say whether an address without a node is let go; `left`: the node said goodbye."""
        until = self._wanted_until[address]
        return until < monotonic() or (left and until < inf)

    def stop(self, seconds: float) -> None:
        """End all greenlets, within so long."""
        gevent.killall(list(self._greenlets.values()), timeout=seconds)


def _tell(node: RemoteNode, end: LinkEnd, closed: bool) -> str:
    """Say what came of the last attempt to connect to a node."""
    if closed:
        return f"no node listens at port {node.port} of {node.ip_addr} any more"
    if end.reason.startswith("no answer"):
        return f"its machine does not answer ({end.reason.removeprefix('no answer: ')})"
    return end.reason
