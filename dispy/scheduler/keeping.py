"""The greenlets that dial nodes and keep their links: one for each address.

A named address is dialled for as long as somebody names it. One that was only found is let go
when its node says goodbye, and some time after it was lost.
"""

from collections.abc import Callable, Mapping
from math import inf
from time import monotonic

import gevent
from gevent.lock import BoundedSemaphore
from gevent.socket import socket

from dispy.net.dialing import connect
from dispy.net.link import LinkEnd
from dispy.scheduler.nodes import RemoteNode

CONNECT_SECONDS = 5.0
RETRY_SECONDS = 0.1, 2.0  # between attempts: the first pause, and the longest
REFUSAL_SECONDS = 30.0  # before a node is asked again that refused us, or we it, by a rule
RESTART_SECONDS = 2.0  # how long a node whose machine says "no such port" may be restarting
DIALS = 256  # attempts to connect at once: a quarter of the descriptors that a program may have
UNPROVEN_SECONDS = 30.0  # an address is dialled so long at which no node was met: it may be a lie
FOUND_SECONDS = 600.0  # a found node that was lost is dialled so long: its machine may reboot

Address = tuple[str, int]  # host, port
Served = tuple[RemoteNode | None, LinkEnd]


class Keepers:
    """Owns a greenlet for each address; used on its scheduler's hub.

    nodes: those that the scheduler has, by id. serve: speaks with a node until its link ends;
    gets the socket, the address, and the node that was there before. lost: takes a node out.
    patience: seconds for which a node may be gone before it is lost.
    """

    def __init__(
        self,
        nodes: Mapping[str, RemoteNode],
        serve: Callable[[socket, str, int, RemoteNode | None], Served],
        lost: Callable[[RemoteNode, str], None],
        patience: Callable[[], float],
    ) -> None:
        self._nodes, self._serve, self._lost, self._patience = nodes, serve, lost, patience
        self._dials = BoundedSemaphore(DIALS)
        self._greenlets: dict[Address, gevent.Greenlet[..., None]] = {}
        self._wanted_until: dict[Address, float] = {}  # monotonic seconds
        self.elsewhere: dict[Address, str] = {}  # its node's id, where that has a link already
        self.unreachable: dict[Address, str] = {}  # what the last attempt said

    def __len__(self) -> int:
        """Return how many addresses are dialled or connected."""
        return len(self._greenlets)

    def __contains__(self, address: Address) -> bool:
        return address in self._greenlets

    def keep(self, host: str, port: int, found: bool) -> None:
        """Keep a link to the node at this address from now on."""
        until = monotonic() + UNPROVEN_SECONDS if found else inf
        address = host, port
        self._wanted_until[address] = max(until, self._wanted_until.get(address, 0.0))
        if address not in self._greenlets:
            self._greenlets[address] = gevent.spawn(self._keep, address)

    def forget(self, host: str, port: int) -> None:
        """Let an address go; a node that is connected there stays until it is lost."""
        if (host, port) in self._wanted_until:
            self._wanted_until[host, port] = 0.0

    def _keep(self, address: Address) -> None:
        """Dial an address for as long as it is wanted; pauses grow to seconds."""
        node: RemoteNode | None = None
        pause, lost_at = RETRY_SECONDS[0], 0.0
        while True:
            served, end, closed = self._dial(address, node)
            self.unreachable[address] = end.reason
            if served is not None:
                node, lost_at, pause = served, monotonic(), RETRY_SECONDS[0]
                self._prolong(address, lost_at)
            left = node is not None and node.node_id not in self._nodes  # it said goodbye
            patience = RESTART_SECONDS if closed else self._patience()
            if node is not None and not left and monotonic() - lost_at > patience:
                self._lost(node, end.reason)
            if node is not None and node.node_id not in self._nodes:
                node = None
            if node is None and self._is_over(address, left):
                break
            if end.refused:
                self._sit_out(node, end.reason, lost_at)
            else:
                gevent.sleep(pause)
            pause = min(pause * 1.5, RETRY_SECONDS[1])
            while self.elsewhere.get(address) in self._nodes:
                gevent.sleep(RETRY_SECONDS[1])  # a second link to it would end the first
        del self._greenlets[address], self._wanted_until[address]
        for table in (self.unreachable, self.elsewhere):
            table.pop(address, None)

    def _sit_out(self, node: RemoteNode | None, reason: str, lost_at: float) -> None:
        """Wait before a node is asked again that broke a rule, or says that we did.

        Its jobs do not wait for that: it is lost when it would be if it were silent.
        """
        rest = REFUSAL_SECONDS
        if node is not None:
            rest -= (until_lost := max(0.0, lost_at + self._patience() - monotonic()))
            gevent.sleep(until_lost)
            if node.link is None:  # else it came by another address meanwhile
                self._lost(node, reason)
        gevent.sleep(max(0.0, rest))

    def _dial(
        self, address: Address, before: RemoteNode | None
    ) -> tuple[RemoteNode | None, LinkEnd, bool]:
        """Serve a node once; return it, how that ended, and whether its port was closed."""
        try:
            with self._dials:
                sock = connect(*address, CONNECT_SECONDS)
        except OSError as error:
            end = LinkEnd(f"no answer: {error.strerror or error}")
            return None, end, isinstance(error, ConnectionRefusedError)
        return *self._serve(sock, *address, before), False

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
