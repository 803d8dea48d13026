"""From a connected socket to one whose other side may be spoken to: TLS, certificates, proofs.

What a link of this process must be follows from its credentials alone: with any, every TCP link
is TLS and both sides prove what they have; with none, only friends of this machine are spoken to,
or anybody where a person said so. Nothing is tried in a weaker way after a stronger one failed.

Before the proof no frame is read, no file is touched and nothing is kept but what OpenSSL keeps
of a handshake. All of it within PROOF_SECONDS.
"""

import contextlib
from typing import TYPE_CHECKING, Union

import gevent
from gevent.socket import MSG_PEEK, socket, wait_read, wait_write

from dispy.model.credentials import Credentials
from dispy.model.errors import DispyError
from dispy.protocol.frames import encode_head
from dispy.protocol.messages import Kind

if TYPE_CHECKING:
    from dispy.net.tls import TlsSocket

PROOF_SECONDS = 10.0  # for the handshake and the proofs: a slow machine under load
STRANGERS_BYTES = 4096  # that are read, and thrown away, of a peer that is refused
_TLS_BEGINS = b"\x16"  # a handshake record; no frame of ours that a peer sends first begins so
WANTS_PROOF = (
    "this side has a secret or a certificate, and asks for one: put the same secret into "
    "~/.config/dispy/secret on both machines (`dispy secret` says how)"
)
PLAIN_HERE = "this side was started without a secret or certificate"

Transport = Union[socket, "TlsSocket"]


class NotProven(DispyError):
    """The other side has not proven what it must; the text says what to do, not how it failed."""


def dial(sock: socket, credentials: Credentials) -> Transport:
    """Prove ourselves at a socket that we connected, and have the other side do so.

    Waits in the calling greenlet. Raises NotProven, OSError and TimeoutError; the socket is closed
    then.
    """
    with _closed_unless_proven(sock):
        if not credentials.protected:
            return sock
        # 60 ms that only these need.
        from dispy.net.tls import TlsError, handshake
        from dispy.protocol.proof import ANSWER_BYTES, claim, is_proven

        try:
            secured = handshake(sock, _context(credentials), dialled=True)
        except TlsError as error:
            raise NotProven(_no_tls(error)) from None
        if credentials.secrets:
            keying = secured.keying()
            _send_all(secured, claim(credentials.secrets, keying))
            if not is_proven(_receive(secured, ANSWER_BYTES), credentials.secrets, keying):
                raise NotProven("it has not the secret that this side has")
        return secured


def accept(sock: socket, credentials: Credentials) -> Transport:
    """Have whoever connected to us prove itself, and do so too; as `dial`."""
    with _closed_unless_proven(sock):
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
        from dispy.net.tls import TlsError, handshake
        from dispy.protocol.proof import CLAIM_BYTES, answer

        try:
            secured = handshake(sock, _context(credentials), dialled=False)
        except TlsError as error:
            raise NotProven(f"its TLS handshake failed: {error}") from None
        if credentials.secrets:
            keying = secured.keying()
            said, proven = answer(_receive(secured, CLAIM_BYTES), credentials.secrets, keying)
            _send_all(secured, said)
            if not proven:
                raise NotProven("it has not the secret that this side has")
        return secured


def _refuse_plainly(sock: socket, reason: str) -> None:
    """Say why, to a peer that speaks otherwise; what it has sent is read, or closing would reset
    the connection before it has read that."""
    with contextlib.suppress(OSError):
        sock.recv(STRANGERS_BYTES)
        sock.send(encode_head(Kind.REFUSE, [reason]))


def _no_tls(error: Exception) -> str:
    if "wrong version number" in str(error) or "record layer" in str(error):
        return (
            "it was started without a secret or certificate, and this side has one: start it "
            "with the same"
        )
    return f"its TLS handshake failed ({error}): it wants a certificate that this side has not"


def _context(credentials: Credentials):  # type: ignore[no-untyped-def]  # OpenSSL's, imported late
    from dispy.net.tls import certified_context, own_context

    if credentials.certificate is not None:
        return certified_context(credentials.certificate)
    return own_context()


@contextlib.contextmanager
def _closed_unless_proven(sock: socket):  # type: ignore[no-untyped-def]
    try:
        with gevent.Timeout(PROOF_SECONDS, TimeoutError("it has not proven itself in time")):
            yield
    except BaseException:
        sock.close()
        raise


def _send_all(secured: "TlsSocket", data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[secured.send(rest) :]
        except BlockingIOError:
            wait_write(secured.fileno())


def _receive(secured: "TlsSocket", size: int) -> bytes:
    """Return so many bytes, or fewer at the end of the stream."""
    buffer = bytearray(size)
    place = memoryview(buffer)
    while place:
        try:
            came = secured.recv_into(place)
        except BlockingIOError:
            wait_read(secured.fileno())
            continue
        if not came:
            break
        place = place[came:]
    return bytes(buffer[: size - len(place)])
