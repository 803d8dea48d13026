"""Discovery's datagrams over gevent sockets: a node's beacon, and a client's ears.

Both own their sockets and the greenlets that read them; `close` ends both. A datagram that is
not ours is dropped without a word; an error of a socket ends nothing.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from time import monotonic

import gevent
from gevent import socket

from dispy.model.credentials import Secret
from dispy.model.ports import CLIENT_PORT, NODE_PORT
from dispy.protocol.discovery import (
    NONCE_BYTES,
    PACKET_BYTES,
    PING_BYTES,
    AnswerLimit,
    Gone,
    Here,
    Packet,
    PacketRefused,
    Ping,
    answer,
    decode_packet,
    encode_packet,
)
from dispy.system.network import Network, share_port, source_towards

logger = logging.getLogger("dispy.net")

ANNOUNCEMENTS = 2  # when a node starts: a datagram may be lost
ANNOUNCE_SECONDS = 1.0  # between them
ERROR_SECONDS = 0.1  # of rest after a socket's error, which may come back at once
BIND_TRIES = 20  # a client that tries whether this port is in use holds it for microseconds
BIND_SECONDS = 0.01  # between tries

Secrets = Callable[[], Sequence[Secret]]  # those that are valid now; none: nothing is signed


def _udp(address: str, port: int, shared: bool = False) -> socket.socket:
    """Return a UDP socket that may broadcast; raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if shared:
            share_port(sock)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _read(sock: socket.socket, handle: Callable[[bytes, str, int], None]) -> None:
    """Hand over each datagram until the greenlet is killed."""
    while True:
        try:
            data, (address, port, *_) = sock.recvfrom(PACKET_BYTES + 1)
        except OSError as error:  # Windows reports a port that refused an earlier datagram here
            logger.debug("a discovery socket: %s", error)
            gevent.sleep(ERROR_SECONDS)
            continue
        with contextlib.suppress(PacketRefused):
            handle(data, address, port)


class Beacon:
    """Answers pings for a node and tells clients when it starts and ends."""

    def __init__(
        self, here: Here, host: str, networks: Sequence[Network], secrets: Secrets = tuple
    ) -> None:
        """Listen at the node's own address, and for broadcasts in the networks that covers.

        host: an address, not a name. Never raises: a node without discovery still works for
        whoever names it, and a warning says so.
        """
        self._here, self._host, self._secrets = here, host, secrets
        self._limit = AnswerLimit()
        self._networks = [network for network in networks if network.covers(host)]
        self._sockets: list[socket.socket] = []
        self._voice: socket.socket | None = None
        try:
            self._voice = _bind(host, here.port)
            self._sockets.append(self._voice)
        except OSError as error:
            logger.warning(
                "UDP port %d of %s cannot be used (%s): clients find this node only if they "
                "name it; `dispy doctor` says who has the port",
                here.port, host, error.strerror or error,
            )  # fmt: skip
        self._hear_broadcasts(everywhere=host in ("", "0.0.0.0"))
        self._tasks = [gevent.spawn(_read, sock, self._answer) for sock in self._sockets]
        self._tasks.append(gevent.spawn(self._announce))

    def _hear_broadcasts(self, everywhere: bool) -> None:
        """Bind the broadcast addresses: who binds one of ours alone does not hear them.

        On the usual port too, where clients ask that know no other.
        """
        for network in self._networks:
            for port in {self._here.port, NODE_PORT}:
                if everywhere and port == self._here.port:
                    continue  # the socket of our own address hears them
                try:
                    self._sockets.append(_bind(network.broadcast, port, shared=True))
                except OSError as error:
                    logger.debug("no broadcasts from %s, port %d: %s", network, port, error)

    def _answer(self, data: bytes, address: str, port: int) -> None:
        wire = answer(data, self._here, address, self._limit, monotonic(), self._sign)
        if wire is not None and self._voice is not None:
            _send(self._voice, wire, address, port)

    def _sign(self, here: Here, ping: Ping, address: str) -> Here:
        secrets = self._secrets()
        if not secrets:
            return here
        from dispy.protocol.signing import signed_answer  # 10 ms that only these need

        return signed_answer(here, ping, secrets, source_towards(self._host, address))

    def _announce(self) -> None:
        for _ in range(ANNOUNCEMENTS):
            self._tell(self._here)
            gevent.sleep(ANNOUNCE_SECONDS)

    def _tell(self, packet: Packet) -> None:
        for network in self._networks:
            if self._voice is not None:
                source = source_towards(self._host, network.broadcast)
                wire = encode_packet(_signed(packet, self._secrets(), source))
                _send(self._voice, wire, network.broadcast, CLIENT_PORT)

    def close(self) -> None:
        """Tell that the node ends, and stop."""
        gevent.killall(self._tasks)
        self._tell(Gone(self._here.identity))
        for sock in self._sockets:
            sock.close()


def _bind(address: str, port: int, shared: bool = False) -> socket.socket:
    for _ in range(BIND_TRIES - 1):
        try:
            return _udp(address, port, shared)
        except OSError:
            gevent.sleep(BIND_SECONDS)
    return _udp(address, port, shared)


def _send(sock: socket.socket, wire: bytes, address: str, port: int) -> str | None:
    """Send a datagram; return why the system did not take it."""
    try:
        sock.sendto(wire, (address, port))
    except OSError as error:
        logger.debug("a datagram to %s, port %d: %s", address, port, error)
        return error.strerror or str(error)
    return None


def _signed(packet: Packet, secrets: Sequence[Secret], source: str = "") -> Packet:
    if not secrets:
        return packet
    from dispy.protocol.signing import signed

    return signed(packet, secrets, source)


class Ears:
    """Pings for a client and hears what nodes answer and announce.

    `heard(packet, address, proven)` gets HERE and GONE; an answer only where it repeats our nonce.
    With a secret, a HERE that does not prove it is told as not proven, and such a GONE not at all;
    an announcement that does is asked again, so that one which was played back leads nowhere.
    """

    def __init__(
        self, heard: Callable[[Here | Gone, str, bool], None], secrets: Secrets = tuple
    ) -> None:
        self._heard, self._secrets = heard, secrets
        self._limit = AnswerLimit()  # for pings that announcements make us send
        self._nonce = os.urandom(NONCE_BYTES)
        self._asking: dict[int, socket.socket] = {}  # by family
        self._hearing: list[socket.socket] = []
        self._tasks: list[gevent.Greenlet[..., None]] = []

    def ask(self, address: str, port: int, wanted: int = 0) -> str | None:
        """Ping an address or a broadcast; return why that could not be sent.

        wanted: the port of nodes that are to answer; 0: any.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            if family not in self._asking:
                sock = _udp("::" if family == socket.AF_INET6 else "", 0)
                self._asking[family] = sock
                self._tasks.append(gevent.spawn(_read, sock, self._take_answer))
        except OSError as error:
            return error.strerror or str(error)
        wire = encode_packet(_signed(Ping(self._nonce, wanted), self._secrets()))
        return _send(self._asking[family], wire, address, port)

    def listen(self) -> str | None:
        """Hear announcements; return why that is not possible."""
        try:
            sock = _udp("", CLIENT_PORT, shared=True)
        except OSError as error:
            return error.strerror or str(error)
        self._hearing.append(sock)
        self._tasks.append(gevent.spawn(_read, sock, self._take_announcement))
        return None

    def _take_answer(self, data: bytes, address: str, port: int) -> None:
        packet = decode_packet(data)
        if isinstance(packet, Here) and packet.nonce == self._nonce:
            self._heard(packet, address, self._is_proven(packet, address))

    def _take_announcement(self, data: bytes, address: str, port: int) -> None:
        packet = decode_packet(data)
        if isinstance(packet, Ping) or (isinstance(packet, Here) and packet.nonce):
            return
        proven = self._is_proven(packet, address)
        if isinstance(packet, Here) and proven and self._secrets():
            # Nothing larger than what caused it goes to whom a forger may have named as its source.
            if len(data) >= PING_BYTES and self._limit.allows(address, monotonic()):
                self.ask(address, packet.port, packet.port)
        elif isinstance(packet, Here) or proven:
            self._heard(packet, address, proven)

    def _is_proven(self, packet: Here | Gone, address: str) -> bool:
        secrets = self._secrets()
        if not secrets:
            return True  # nothing has to be
        from dispy.protocol.signing import is_signed

        return is_signed(packet, secrets, address.split("%")[0])

    def close(self) -> None:
        """Stop; sockets are freed."""
        gevent.killall(self._tasks)
        for sock in (*self._asking.values(), *self._hearing):
            sock.close()
