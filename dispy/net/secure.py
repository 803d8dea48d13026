"""From a connected socket to one whose other side may be spoken to: TLS, certificates, proofs.

What a link of this process must be follows from its credentials alone: with any, every TCP link
is TLS and both sides prove what they have; with none, only processes of the same user, or of root,
on this machine are spoken to, or anybody where a person said so. Nothing is tried in a weaker way
after a stronger one failed.

Before the proof no frame is read, no file is touched and nothing is kept but what OpenSSL keeps
of a handshake. All of it within PROOF_SECONDS.
"""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Union

import gevent
from gevent.socket import AF_INET, AF_INET6, MSG_PEEK, socket, wait_read

from dispy.model.credentials import Credentials
from dispy.model.errors import DispyError
from dispy.net.credentials import current
from dispy.protocol.frames import HEADER, encode_head
from dispy.protocol.messages import Kind
from dispy.system import peers
from dispy.system.network import is_loopback

if TYPE_CHECKING:
    from dispy.net.tls import TlsSocket

PROOF_SECONDS = 10.0  # for the handshake and the proofs: a slow machine under load
FAREWELL_SECONDS = 1.0  # that a peer which is refused has to say what it came for
STRANGERS_BYTES = 4096  # that are read, and thrown away, of a peer that is refused
_TLS_BEGINS = b"\x16"  # a handshake record; no frame of ours that a peer sends first begins so
WANTS_PROOF = (
    "this side has a secret or a certificate, and asks for one: put the same secret into "
    "~/.config/dispy/secret on both machines (`dispy secret` says how)"
)
PLAIN_HERE = "this side was started without a secret or certificate"
OTHER_USER = (
    "this side was started by another user of this machine, without a secret, and speaks with that "
    "user's programs alone: put the same secret into ~/.config/dispy/secret of both users (`dispy "
    "secret` makes one), or start a node of your own"
)

Transport = Union[socket, "TlsSocket"]
_UNKNOWN = "the system does not tell which user it is of: use a secret (`dispy secret` makes one)"


class NotProven(DispyError):
    """The other side has not proven what it must; the text says what to do, not how it failed."""


class OfOtherUser(NotProven):
    """The other side is a process of another user of this machine, and there is no secret."""


def dial(sock: socket, credentials: Credentials, host: str = "") -> Transport:
    """Prove ourselves at a socket that we connected, and have the other side do so.

    host: what was dialled, which the other's certificate must name, if it names any. Waits in the
    calling greenlet. Raises NotProven, OSError and TimeoutError; the socket is closed then.
    """
    with _closed_unless_proven(sock):
        if not credentials.protected:
            if not credentials.insecure:
                _check_whose_node(sock)
            return sock
        from dispy.net.proving import prove  # 60 ms that only these need

        return prove(sock, current(credentials), host)


def accept(
    sock: socket, credentials: Credentials, take_turn: Callable[[], None] = lambda: None
) -> Transport:
    """Have whoever connected to us prove itself, and do so too; as `dial`.

    take_turn: waits until a handshake may begin, which costs a millisecond of processor.
    """
    with _closed_unless_proven(sock):
        if not credentials.protected and not credentials.insecure:
            _check_whose_program(sock)
        wait_read(sock.fileno())
        is_tls = sock.recv(1, MSG_PEEK) == _TLS_BEGINS
        if is_tls and not credentials.protected:
            _refuse_plainly(sock, PLAIN_HERE)
            raise NotProven("it has a secret or a certificate, and this side was started without")
        if not credentials.protected:
            return sock
        if not is_tls:
            _refuse_plainly(sock, WANTS_PROOF)
            raise NotProven("it came without a secret or a certificate")
        from dispy.net.opening import NoOpening, wait_for_opening
        from dispy.net.proving import prove

        try:
            wait_for_opening(sock)
        except NoOpening as error:
            raise NotProven(f"its TLS handshake failed: {error}") from None
        take_turn()
        return prove(sock, current(credentials), None)


def is_of_other_user(transport: Transport) -> bool:
    """Say whether the other side is of another user of this machine, and has proven nothing."""
    if not isinstance(transport, socket) or not _is_of_this_machine(transport):
        return False
    user = peers.user_of(transport)
    return peers.CAN_TELL and (user is None or not peers.is_friend(user))


def _check_whose_node(sock: socket) -> None:
    """Raise NotProven where a node of this machine is not of our user: it sends what is unpickled.

    Nothing is said to it before.
    """
    if not peers.CAN_TELL or not _is_of_this_machine(sock):
        return  # whether other machines may be dialled was decided before
    try:
        user = peers.wait_for_user(sock, PROOF_SECONDS, gevent.sleep)
    except ConnectionResetError:
        if _has_refused(sock):
            return
        raise
    if user is None:
        raise OfOtherUser(_UNKNOWN)
    if not peers.is_friend(user):
        raise OfOtherUser(whose_node(user))


def _check_whose_program(sock: socket) -> None:
    """Raise NotProven, and tell the other side, where that is not a process of our user."""
    if not peers.CAN_TELL:
        return  # a warning at the start has said so
    user = peers.user_of(sock)
    if user is not None and peers.is_friend(user):
        return
    if user is None and peers.is_closed(sock):
        raise ConnectionResetError("it closed the connection")
    _refuse_plainly(sock, OTHER_USER)
    # Not by name: to ask for that may take long, and anybody may come here as often as he likes.
    whose = _UNKNOWN if user is None else f"it is of another user of this machine (uid {user})"
    raise OfOtherUser(whose)


def _has_refused(sock: socket) -> bool:
    """Say whether a node that has closed the connection said why; whoever reads it is told."""
    head = sock.recv(HEADER.size, MSG_PEEK)
    return len(head) == HEADER.size and HEADER.unpack(head)[1] == Kind.REFUSE


def whose_node(user: int) -> str:
    """Say to whom a node of this machine belongs that we do not use, and what to do."""
    theirs, ours = peers.user_name(user), peers.user_name(peers.own_user())
    return (
        f"it belongs to {theirs}, and this program to {ours}: without a secret a program uses "
        f"nodes of its own user alone. Put the same secret into ~/.config/dispy/secret of both "
        f"users (`dispy secret` makes one), or start a node of your own, with another --port; or, "
        f"if every user of this machine may pretend to be a node, say "
        f"JobCluster(..., insecure=True) or set DISPY_INSECURE=1"
    )


def _is_of_this_machine(sock: socket) -> bool:
    return sock.family in (AF_INET, AF_INET6) and is_loopback(sock.getpeername()[0])


def _refuse_plainly(sock: socket, reason: str) -> None:
    """Say why, to a peer that speaks otherwise; what it has sent is read, or closing would reset
    the connection before it has read that."""
    with contextlib.suppress(OSError):
        with gevent.Timeout(FAREWELL_SECONDS, False):
            sock.recv(STRANGERS_BYTES)
        sock.send(encode_head(Kind.REFUSE, [reason]))


@contextlib.contextmanager
def _closed_unless_proven(sock: socket):  # type: ignore[no-untyped-def]
    try:
        with gevent.Timeout(PROOF_SECONDS, TimeoutError("it has not proven itself in time")):
            yield
    except BaseException:
        sock.close()
        raise
