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

from dispy.model.ports import CLIENT_PORT, NODE_PORT
from dispy.protocol.discovery import (
    NONCE_BYTES,
    PACKET_BYTES,
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
from dispy.system.network import Network, share_port

logger = logging.getLogger("dispy.net")

ANNOUNCEMENTS = 2  # when a node starts: a datagram may be lost
ANNOUNCE_SECONDS = 1.0  # between them
ERROR_SECONDS = 0.1  # of rest after a socket's error, which may come back at once
BIND_TRIES = 20  # a client that tries whether this port is in use holds it for microseconds
BIND_SECONDS = 0.01  # between tries


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

    def __init__(self, here: Here, host: str, networks: Sequence[Network]) -> None:
        """Listen at the node's own address, and for broadcasts in the networks that covers.

        host: an address, not a name. Never raises: a node without discovery still works for
        whoever names it, and a warning says so.
        """
        self._here = here
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
        wire = answer(data, self._here, address, self._limit, monotonic())
        if wire is not None and self._voice is not None:
            _send(self._voice, wire, address, port)

    def _announce(self) -> None:
        for _ in range(ANNOUNCEMENTS):
            self._tell(self._here)
            gevent.sleep(ANNOUNCE_SECONDS)

    def _tell(self, packet: Packet) -> None:
        for network in self._networks:
            if self._voice is not None:
                _send(self._voice, encode_packet(packet), network.broadcast, CLIENT_PORT)

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


class Ears:
    """Pings for a client and hears what nodes answer and announce.

    `heard(packet, address)` gets HERE and GONE; an answer only where it repeats our nonce.
    """

    def __init__(self, heard: Callable[[Here | Gone, str], None]) -> None:
        self._heard = heard
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
        return _send(self._asking[family], encode_packet(Ping(self._nonce, wanted)), address, port)

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
            self._heard(packet, address)

    def _take_announcement(self, data: bytes, address: str, port: int) -> None:
        packet = decode_packet(data)
        if isinstance(packet, Gone) or (isinstance(packet, Here) and not packet.nonce):
            self._heard(packet, address)

    def close(self) -> None:
        """Stop; sockets are freed."""
        gevent.killall(self._tasks)
        for sock in (*self._asking.values(), *self._hearing):
            sock.close()
