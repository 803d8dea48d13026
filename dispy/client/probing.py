"""Whether a node of this machine, found by a plain connection, may be used by this program.

Asked before anything is sent to it, and before gevent is imported. What stands here decides only
whether a local node is started as well: the link that is dialled later asks again.
"""

import socket
from time import sleep

PROBE_SECONDS = 0.5  # for a loopback connection, which answers or refuses at once


def why_unusable(address: str, port: int, of_any_user: bool) -> str:
    """Return why the node at an address of this machine cannot be used, or nothing.

    of_any_user: it has to prove itself, or it was said that it need not.
    """
    try:
        with socket.create_connection((address, port), timeout=PROBE_SECONDS) as sock:
            return "" if of_any_user else _why_not_ours(sock)
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _why_not_ours(sock: socket.socket) -> str:
    from dispy.system import peers  # 2 ms, where a node runs

    if not peers.CAN_TELL:
        return ""
    user = peers.wait_for_user(sock, PROBE_SECONDS, sleep)
    if user is None:
        return "it does not answer"
    if not peers.is_friend(user):
        return f"it belongs to {peers.user_name(user)}"
    if user != peers.own_user() and _refuses(sock):
        return f"it belongs to {peers.user_name(user)}, and refuses this program"
    return ""


def _refuses(sock: socket.socket) -> bool:
    """Ask a node of root, which has no secret of ours: it serves us only if it is open to all."""
    from dispy.protocol.frames import HEADER
    from dispy.protocol.handshake import KNOCK
    from dispy.protocol.messages import Kind

    sock.send(KNOCK)
    head = sock.recv(HEADER.size, socket.MSG_WAITALL)
    return len(head) < HEADER.size or HEADER.unpack(head)[1] == Kind.REFUSE
