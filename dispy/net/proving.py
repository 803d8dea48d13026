"""How both ends of a TCP connection prove who they are: TLS, then certificates, then secrets.

Imported only by processes that have something to prove; OpenSSL comes with it. Which messages
there are depends on our own credentials alone, and their sizes are fixed.
"""

import contextlib

import gevent
from gevent.socket import SHUT_WR, socket, wait_read, wait_write

from dispy.model.credentials import OTHER_SECRET, Credentials
from dispy.net.secure import NotProven
from dispy.net.tls import (
    TlsError,
    TlsLost,
    TlsSocket,
    certified_context,
    handshake,
    own_context,
)
from dispy.protocol.proof import (
    ANSWER_BYTES,
    CLAIM_BYTES,
    VERDICT_BYTES,
    answer,
    claim,
    is_proven,
    read_verdict,
    verdict,
)

FAREWELL_SECONDS = 1.0  # that somebody who is refused has to read why
FAREWELL_BYTES = 4096  # read at once meanwhile, and thrown away


def prove(sock: socket, credentials: Credentials, host: str | None) -> TlsSocket:
    """Return the encrypted connection once both sides have proven what they must.

    host: what was dialled; None: the other side dialled us. Waits in the calling greenlet. Raises
    NotProven, OSError and TimeoutError.
    """
    certificate = credentials.certificate
    try:
        address = sock.getpeername()[0]  # it may be gone when we are
        context = (
            own_context(credentials.pair) if certificate is None else certified_context(certificate)
        )
        secured = handshake(sock, context, host is not None)
        if certificate is not None:
            dialled = [] if host is None else [host, address]
            _judge(secured, dialled, bool(credentials.secrets))
            secured.go_by_name()
        if credentials.secrets:
            if host is None:
                _ask(secured, credentials)
            else:
                _offer(secured, credentials)
    except TlsError as error:
        if host is None:
            _let_read(sock)
        raise NotProven(_told(str(error), credentials)) from None
    except TlsLost as error:
        if "alert" not in error.reason:
            raise  # it went without a word: it may be ending, and soon there again
        raise NotProven(_told(error.reason, credentials)) from None
    return secured


def _judge(secured: TlsSocket, dialled: list[str], asks_secret: bool) -> None:
    """Tell each other what is wrong with the other's certificate, and end where something is."""
    fault = secured.fault_of_peer(dialled)
    _send_all(secured, verdict(fault, asks_secret))
    told, wants_secret = read_verdict(_receive(secured, VERDICT_BYTES))
    if fault:
        raise NotProven(f"its certificate {fault}")
    if told:
        raise NotProven(f"it refuses this side's certificate, which {told}")
    if asks_secret and not wants_secret:
        raise NotProven("it has a certificate alone, and this side asks for a secret too")
    if wants_secret and not asks_secret:
        raise NotProven("it asks for a secret too, and this side has a certificate alone")


def _offer(secured: TlsSocket, credentials: Credentials) -> None:
    keying = secured.keying()
    _send_all(secured, claim(credentials.secrets, keying))
    if not is_proven(_receive(secured, ANSWER_BYTES), credentials.secrets, keying):
        raise NotProven(OTHER_SECRET)


def _ask(secured: TlsSocket, credentials: Credentials) -> None:
    keying = secured.keying()
    said, proven = answer(_receive(secured, CLAIM_BYTES), credentials.secrets, keying)
    _send_all(secured, said)
    if not proven:
        raise NotProven(OTHER_SECRET)


def _told(reason: str, credentials: Credentials) -> str:
    """Return what a person can make of OpenSSL's reason for the end of a handshake."""
    if "wrong version number" in reason or "record layer" in reason:
        return (
            "it was started without a secret or certificate, and this side has one: start it "
            "with the same"
        )
    certificate = credentials.certificate
    if certificate is not None and "certificate verify failed" in reason:
        if certificate.cafile:
            return f"its certificate is not signed by the authority of {certificate.cafile}"
        return (
            f"its certificate is not the same as {certificate.certfile}, and no authority "
            f"(cafile) is named"
        )
    if "alert" in reason and "protocol version" not in reason and certificate is None:
        return "it wants a certificate, and this side has a secret alone"
    # OpenSSL's word depends on whether an authority of the same name is known to the other side.
    if certificate is not None and ("unknown ca" in reason or "decrypt error" in reason):
        return (
            f"it does not accept the certificate {certificate.certfile} of this side: its "
            f"authority (cafile) has not signed it, or it has a secret alone"
        )
    return f"its TLS handshake failed: {reason}"


def _let_read(sock: socket) -> None:
    """Wait until the other side has read why it is refused, and gone: closing while something
    of it is unread would reset the connection before."""
    with contextlib.suppress(OSError), gevent.Timeout(FAREWELL_SECONDS, False):
        sock.shutdown(SHUT_WR)
        while True:
            wait_read(sock.fileno())
            if not sock.recv(FAREWELL_BYTES):
                return


def _send_all(secured: TlsSocket, data: bytes) -> None:
    """Send it; where the other side has gone, what it said before tells why, to who reads next."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[secured.send(rest) :]
        except BlockingIOError:
            wait_write(secured.fileno())
        except OSError:
            return


def _receive(secured: TlsSocket, size: int) -> bytes:
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
