"""A TLS 1.3 connection with what a link uses of a socket.

pyOpenSSL on the non-blocking descriptor itself: memory BIOs cost a third of the throughput. The
certificate is the user's, or one that this process makes for itself and throws away.
"""

import contextlib
import datetime
import logging
import os
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from gevent.socket import socket, wait_read, wait_write
from OpenSSL import SSL, crypto

from dispy.model.credentials import Certificate, KeyPair
from dispy.model.errors import DispyError
from dispy.net import certificates
from dispy.protocol.proof import EXPORTER, KEYING_BYTES
from dispy.system.directories import file_state

logger = logging.getLogger("dispy.net")

RECORD_BYTES = 16 * 1024  # of data in one TLS record, at most
JOINED_BYTES = 64 * 1024  # of small pieces that are written as one
WRITTEN_BYTES = 256 * 1024  # by one call of OpenSSL
_RELEASE_BUFFERS = 0x10  # SSL_MODE_RELEASE_BUFFERS: 47 KB an idle connection instead of 88
_PARTIAL_WRITES = 0x1  # SSL_MODE_ENABLE_PARTIAL_WRITE, pyOpenSSL's default: a call for each record
_LIFETIME = datetime.timedelta(days=3650)
_LEEWAY = datetime.timedelta(days=1)  # between two clocks
_NOT_IN_TIME = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED


class TlsError(DispyError):
    """The other side does not speak TLS as we do; the text is for people."""


class TlsLost(ConnectionResetError):
    """The other side has ended TLS, for a `reason` that it gave."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"TLS: {reason}")
        self.reason = reason


class TlsSocket:
    """One connection; the socket is its own from now on. Used in one thread, that of its hub."""

    def __init__(self, sock: socket, connection: SSL.Connection) -> None:
        self._sock, self._connection = sock, connection
        self._read = _reader(connection)
        certificate = connection.get_peer_certificate(as_cryptography=True)
        assert certificate is not None, "both sides present one"
        self._certificate = certificate
        # By what it is known beside its identity: here a certificate made for its process.
        self.peer_key: bytes = self._certificate.fingerprint(hashes.SHA256())
        self._faults: list[str] = connection.get_app_data()  # that verifying has found
        self.peer_roles = certificates.roles(self._certificate)  # none: it may be of any

    def fault_of_peer(self, dialled: Sequence[str]) -> str:
        """Return what is wrong with the other's certificate, though its authority signed it.

        dialled: the host that we dialled, and its address; empty: it dialled us. Nothing is
        wrong: an empty text.
        """
        if self._faults:
            return self._faults[0]
        if not dialled or certificates.is_for(self._certificate, *dialled):
            return ""
        named = ", ".join(certificates.hosts(self._certificate))
        return f"is for {named:.80}, not for {dialled[0]}: `dispy cert issue` with --ip or --dns"

    def go_by_name(self) -> None:
        """Know the other by the name in its certificate, which somebody has given it, so that a
        renewed one makes nobody another; by the certificate itself where it names nobody."""
        subject = self._certificate.subject
        if subject.rdns:
            self.peer_key = sha256(subject.public_bytes()).digest()

    def keying(self) -> bytes:
        """Return keying material that only the two ends of this connection have."""
        return self._connection.export_keying_material(EXPORTER, KEYING_BYTES, None)

    # -- as a socket

    def settimeout(self, seconds: float) -> None:
        """Do nothing: no call waits."""

    def fileno(self) -> int:
        """Return the descriptor."""
        return int(self._sock.fileno())

    def getpeername(self) -> Any:
        """Return the address of the other side; raises OSError."""
        return self._sock.getpeername()

    def send(self, data: bytes | memoryview) -> int:
        """Write some of it; raises BlockingIOError and OSError.

        What is written after a BlockingIOError begins with the same bytes, and is no shorter.
        """
        sent, size, connection = 0, len(data), self._connection
        try:
            if size <= WRITTEN_BYTES:
                return connection.send(data)
            view = memoryview(data)
            while sent < size:
                sent += connection.send(view[sent : sent + WRITTEN_BYTES])
        except (SSL.WantWriteError, SSL.WantReadError):
            if not sent:
                raise BlockingIOError from None
        except SSL.Error as error:
            if not sent:
                raise _lost(error) from None
        return sent

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Write some of the pieces, small ones as one."""
        if len(pieces[0]) >= JOINED_BYTES:
            return self.send(pieces[0])
        joined, room = [], JOINED_BYTES
        for piece in pieces:
            joined.append(piece[:room])
            room -= len(joined[-1])
            if not room:
                break
        return self.send(b"".join(joined))

    def recv_into(self, buffer: memoryview) -> int:
        """Read what has arrived, 0 at the end; raises BlockingIOError and OSError."""
        size, connection, read = 0, self._connection, self._read
        try:
            while size < len(buffer):
                came = read(buffer[size : size + RECORD_BYTES])
                size += came
                if came < RECORD_BYTES and not connection.pending():
                    break  # a record that is not full is the last, mostly
        except SSL.WantReadError:
            if not size:
                raise BlockingIOError from None
        except SSL.ZeroReturnError:
            pass
        except SSL.SysCallError as error:
            if not size and error.args and error.args[0] > 0:
                raise _lost(error) from None
        except SSL.Error as error:
            if not size:
                raise _lost(error) from None
        return size

    def pending(self) -> bool:
        """Whether something has arrived that the descriptor does not tell of."""
        return self._connection.pending() > 0

    def shutdown(self, how: int) -> None:
        """End both directions; raises OSError."""
        with contextlib.suppress(SSL.Error):  # the descriptor is shut down in any case
            self._connection.shutdown()
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close the descriptor."""
        self._sock.close()


def _lost(error: SSL.Error) -> OSError:
    if isinstance(error, SSL.SysCallError) and error.args and error.args[0] > 0:
        return OSError(error.args[0], os.strerror(error.args[0]))  # else the number's name
    return TlsLost(_reason(error))


def _reason(error: SSL.Error) -> str:
    if isinstance(error, SSL.SysCallError):
        return str(error.args[-1])
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(reasons[-1][-1]) if reasons else "the connection was closed"


def _reader(connection: SSL.Connection) -> Callable[[memoryview], int]:
    """Return what reads one record's data to where it belongs.

    pyOpenSSL's `recv_into` has OpenSSL write to memory of its own and copies that: a quarter of
    the whole time. What lies below is used as it uses that itself; another version may not have it.
    """
    try:
        inside: Any = SSL
        from_buffer, ssl_read = inside._ffi.from_buffer, inside._lib.SSL_read
        ssl, raise_error = connection._ssl, connection._raise_ssl_error
    except AttributeError:
        return connection.recv_into

    def read(place: memoryview) -> int:
        with from_buffer(place, require_writable=True) as data:
            came: int = ssl_read(ssl, data, len(data))
        if came <= 0:
            raise_error(ssl, came)
        return came

    return read


# -- handshakes


def handshake(sock: socket, context: SSL.Context, dialled: bool) -> TlsSocket:
    """Return the connection once both sides have their keys; waits in the calling greenlet.

    Raises TlsError and OSError.
    """
    sock.settimeout(0)
    connection = SSL.Connection(context, sock)
    connection.set_app_data([])
    if dialled:
        connection.set_connect_state()
    else:
        connection.set_accept_state()
    while True:
        try:
            connection.do_handshake()
            return TlsSocket(sock, connection)
        except SSL.WantReadError:
            wait_read(sock.fileno())
        except SSL.WantWriteError:
            wait_write(sock.fileno())
        except SSL.SysCallError as error:
            raise _lost(error) from None
        except SSL.Error as error:
            raise TlsError(_reason(error)) from None
        except (ValueError, x509.InvalidVersion) as error:
            raise TlsError(f"its certificate cannot be read: {error}") from None


@cache
def _own() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    """Return a key and a certificate that are made for this process, and prove nothing."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dispy")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(now + _LIFETIME)
    )
    return key, builder.sign(key, hashes.SHA256())


def own_pair() -> KeyPair:
    """Return what this process shows as its own, for whoever is to speak for it once it died."""
    key, certificate = _own()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return KeyPair(private.decode(), certificate.public_bytes(Encoding.PEM).decode())


@lru_cache(maxsize=4)
def own_context(pair: KeyPair | None = None) -> SSL.Context:
    """Return a context whose certificate was made for this process, or for one that died.

    It takes any certificate of the other side, which must have one. Raises DispyError for a pair
    that is none.
    """
    context = _context()
    try:
        if pair is None:
            key, certificate = _own()
            context.use_privatekey(key)
        else:
            loaded: Any = load_pem_private_key(pair.key.encode(), None)  # of whatever kind
            context.use_privatekey(loaded)
            certificate = x509.load_pem_x509_certificate(pair.certificate.encode())
        context.use_certificate(certificate)
        context.check_privatekey()
    except (SSL.Error, TypeError, ValueError) as error:
        raise DispyError(f"a program's key cannot be used: {error}") from None
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    return context


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_mode(_RELEASE_BUFFERS)
    if hasattr(context, "clear_mode"):  # else it is only slower
        context.clear_mode(_PARTIAL_WRITES)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


# -- certificates of people

_certified: dict[Certificate, tuple[object, SSL.Context]] = {}  # with the states of the files


def certified_context(certificate: Certificate) -> SSL.Context:
    """Return a context that presents a certificate and asks for one that it can verify.

    That is one which the authority has signed, or the very same. The files are read again when
    they have changed; what cannot be used then changes nothing. Raises DispyError the first time.
    """
    paths = (certificate.certfile, certificate.keyfile, certificate.cafile, certificate.revoked)
    states = [file_state(path) for path in paths if path]
    before = _certified.get(certificate)
    if before is not None and before[0] == states:
        return before[1]
    try:
        context = _load_certified(certificate)
    except DispyError as error:
        if before is None:
            raise
        logger.warning("what was read before goes on to count: %s", error)
        context = before[1]
    _certified[certificate] = states, context
    return context


def _load_certified(certificate: Certificate) -> SSL.Context:
    context = _context()
    key = certificate.keyfile or certificate.certfile
    own = certificates.load(certificate.certfile)[0]
    try:
        context.use_certificate_chain_file(certificate.certfile)
        context.use_privatekey_file(key)
        context.check_privatekey()
    except SSL.Error as error:
        raise DispyError(
            f"the certificate {certificate.certfile} with the key {key} cannot be used: "
            f"{_reason(error)}"
        ) from None
    try:
        if certificate.cafile:
            context.load_verify_locations(certificate.cafile)
        revoked = certificates.read_fingerprints(certificate.revoked)
    except SSL.Error as error:
        raise DispyError(
            f"the authority {certificate.cafile} cannot be used: {_reason(error)}"
        ) from None
    except (OSError, ValueError) as error:
        raise DispyError(f"the list {certificate.revoked} cannot be used: {error}") from None
    same = own.fingerprint(hashes.SHA256())
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _verifier(same, revoked))
    return context


def _verifier(same: bytes, revoked: frozenset[bytes]) -> Any:
    """Return what OpenSSL calls for each certificate of a peer's chain, and for each fault of it.

    A certificate that the authority signed and that has a fault is told of in words, after the
    handshake (`TlsSocket.fault_of_peer`): by TLS alone the other side would learn a number.
    """

    def verify(connection: Any, shown: crypto.X509, error: int, depth: int, fine: int) -> bool:
        certificate = shown.to_cryptography()
        key = certificate.fingerprint(hashes.SHA256())
        if key in revoked:
            connection.get_app_data().append("has been revoked")
        if fine:
            return True
        if error in _NOT_IN_TIME:
            fault = certificates.not_in_time(certificate) or "is not valid now"
            connection.get_app_data().append(f"has an authority that {fault}" if depth else fault)
            return True
        return depth == 0 and key == same

    return verify
