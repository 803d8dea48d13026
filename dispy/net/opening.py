"""What a stranger sends first, where it must be the beginning of a TLS handshake.

It is left with the kernel until it is whole: OpenSSL then does all of its part at once, and bytes
that come one a second wake nobody.
"""

import contextlib

import gevent
from gevent import socket

from dispy.system.peers import is_closed

OPENING_BYTES = 4096  # of the first message, at most; those of OpenSSL have 300 to 1,800
FIRST_LOOK_SECONDS = 0.02  # until one looks again; each time twice as long
_HEAD = 9  # a record's head (kind, version, length), a message's head (kind, length)


class NoOpening(Exception):
    """What came is no beginning of a handshake; the text says why."""


def wait_for_opening(sock: socket.socket) -> None:
    """Wait in the calling greenlet until all of it has arrived; raises NoOpening and OSError."""
    try:
        head = _wait_for(sock, _HEAD)
        size = int.from_bytes(head[3:5], "big")
        if head[0] != 22 or head[5] != 1:
            raise NoOpening("it does not begin with a hello")
        if int.from_bytes(head[6:9], "big") + 4 > size:
            raise NoOpening("its hello is not in one piece")
        if size > OPENING_BYTES:
            raise NoOpening(f"its hello has {size} bytes; the limit is {OPENING_BYTES}")
        _wait_for(sock, 5 + size)
    finally:
        _wake_at(sock, 1)


def _wait_for(sock: socket.socket, size: int) -> bytes:
    """Return what has arrived once it is so much; raises ConnectionResetError at the end."""
    _wake_at(sock, size)
    pause = FIRST_LOOK_SECONDS
    while True:
        socket.wait_read(sock.fileno())
        data = bytes(sock.recv(size, socket.MSG_PEEK))
        if len(data) == size:
            return data
        if not data or is_closed(sock):
            raise ConnectionResetError("it closed the connection")
        gevent.sleep(pause)  # the system cannot wait for a number of bytes, or has no memory for it
        pause *= 2


def _wake_at(sock: socket.socket, size: int) -> None:
    """Have waiting end only when so many bytes, or the end, have come, where that is possible."""
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
