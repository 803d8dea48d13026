"""What the kernel is asked to do for a TCP connection whose network may be cut for a while."""

import contextlib
import struct
import sys
from socket import IPPROTO_TCP, SO_LINGER, SOL_SOCKET
from typing import Any

RETRANSMIT_MILLISECONDS = 2000  # between attempts to send again, at most; else they grow to 120 s
# The kernel's own end of a connection that nobody acknowledges, which would come the sooner the
# more often it tries. Whoever owns the link notices silence before, and ends it with a reason.
UNACKNOWLEDGED_MILLISECONDS = 120_000
_RTO_MAX_MS = 44  # TCP_RTO_MAX_MS, of Linux 6.15 and later
_USER_TIMEOUT = 18  # TCP_USER_TIMEOUT


def go_on_soon(sock: Any) -> None:
    """Have a connection go on within seconds after its network is back, where that can be asked.

    Elsewhere the pauses between attempts double, and whoever waits longer dials anew.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):  # an older kernel, or no TCP
        sock.setsockopt(IPPROTO_TCP, _RTO_MAX_MS, RETRANSMIT_MILLISECONDS)
        sock.setsockopt(IPPROTO_TCP, _USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS)


def drop_unsent(descriptor: int) -> None:
    """Have the kernel forget what was not sent when this connection is closed."""
    import socket

    with contextlib.suppress(OSError):
        sock = socket.socket(fileno=descriptor)
        try:
            sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            sock.detach()
