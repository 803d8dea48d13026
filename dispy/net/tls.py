"""A TLS 1.3 connection with what a link uses of a socket.

pyOpenSSL on the non-blocking descriptor itself: memory BIOs cost a third of the throughput. The
certificate is the user's, or one that this process makes for itself and throws away.
"""

import contextlib
import datetime
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from gevent.socket import socket, wait_read, wait_write
from OpenSSL import SSL, crypto

from dispy.model.credentials import Certificate
from dispy.model.errors import DispyError
from dispy.protocol.proof import EXPORTER, KEYING_BYTES

RECORD_BYTES = 16 * 1024  # of data in one TLS record, at most
JOINED_BYTES = 64 * 1024  # of small pieces that are written as one
_RELEASE_BUFFERS = 0x10  # SSL_MODE_RELEASE_BUFFERS: 47 KB an idle connection instead of 88
_LIFETIME = datetime.timedelta(days=3650)
_LEEWAY = datetime.timedelta(days=1)  # between two clocks


class TlsError(DispyError):
    """The other side does not speak TLS as we do; the text is for people."""


class TlsSocket:
    """One connection; the socket is its own from now on. Used in one thread, that of its hub."""

    def __init__(self, sock: socket, connection: SSL.Connection) -> None:
        self._sock, self._connection = sock, connection
        certificate = connection.get_peer_certificate()
        assert certificate is not None, "both sides present one"
        encoded = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        self.peer_key: bytes = hashlib.sha256(encoded).digest()

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
        """Write some of it; raises BlockingIOError and OSError."""
        try:
            return self._connection.send(data)
        except (SSL.WantWriteError, SSL.WantReadError):
            raise BlockingIOError from None
        except SSL.Error as error:
            raise _lost(error) from None

    def sendmsg(self, pieces: Sequence[bytes | memoryview]) -> int:
        """Write some of the pieces, small ones as one."""
        size, count = 0, 0
        for piece in pieces:
            size += len(piece)
            count += 1
            if size >= JOINED_BYTES:
                break
        if count > 1 and len(pieces[0]) < JOINED_BYTES:
            return self.send(b"".join(pieces[:count])[: JOINED_BYTES + RECORD_BYTES])
        return self.send(pieces[0])

    def recv_into(self, buffer: memoryview) -> int:
        """Read what has arrived, 0 at the end; raises BlockingIOError and OSError."""
        size, connection = 0, self._connection
        try:
            while size < len(buffer):
                came = connection.recv_into(buffer[size:] if size else buffer)
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
        return OSError(error.args[0], str(error.args[1]))
    return ConnectionResetError(f"TLS: {_reason(error)}")


def _reason(error: SSL.Error) -> str:
    if isinstance(error, SSL.SysCallError):
        return str(error.args[-1])
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return str(reasons[-1][-1]) if reasons else "the connection was closed"


# -- handshakes


def handshake(sock: socket, context: SSL.Context, dialled: bool) -> TlsSocket:
    """Return the connection once both sides have their keys; waits in the calling greenlet.

    Raises TlsError and OSError.
    """
    sock.settimeout(0)
    connection = SSL.Connection(context, sock)
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


@cache
def own_context() -> SSL.Context:
    """Return a context whose certificate was made for this process and proves nothing.

    It takes any certificate of the other side, which must have one.
    """
    context = _context()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dispy")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(now + _LIFETIME)
        .sign(key, hashes.SHA256())
    )
    context.use_privatekey(crypto.PKey.from_cryptography_key(key))
    context.use_certificate(crypto.X509.from_cryptography(certificate))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    return context


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_mode(_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    return context


@cache
def certified_context(certificate: Certificate) -> SSL.Context:
    """Return a context that presents a certificate and asks for one that it can verify.

    That is one which the authority has signed, or the very same. Raises DispyError.
    """
    context = _context()
    try:
        context.use_certificate_chain_file(certificate.certfile)
        context.use_privatekey_file(certificate.keyfile or certificate.certfile)
        context.check_privatekey()
        if certificate.cafile:
            context.load_verify_locations(certificate.cafile)
        own = x509.load_pem_x509_certificate(Path(certificate.certfile).read_bytes())
        revoked = read_fingerprints(certificate.revoked)
    except (SSL.Error, OSError, ValueError) as error:
        reason = _reason(error) if isinstance(error, SSL.Error) else str(error)
        raise DispyError(
            f"the certificate {certificate.certfile} with the key "
            f"{certificate.keyfile or certificate.certfile} cannot be used: {reason}"
        ) from None
    same = own.fingerprint(hashes.SHA256())

    def verify(connection: Any, shown: crypto.X509, error: int, depth: int, fine: int) -> bool:
        encoded = crypto.dump_certificate(crypto.FILETYPE_ASN1, shown)
        fingerprint = hashlib.sha256(encoded).digest()
        if fingerprint in revoked:
            return False
        return bool(fine) or (depth == 0 and fingerprint == same)

    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)
    return context


def read_fingerprints(path: str | None) -> frozenset[bytes]:
    """Return the SHA-256 fingerprints of a file, one a line; raises OSError and ValueError."""
    if path is None:
        return frozenset()
    lines = [line.split("#", 1)[0].strip() for line in Path(path).read_text().splitlines()]
    return frozenset(bytes.fromhex(line.replace(":", "")) for line in lines if line)
