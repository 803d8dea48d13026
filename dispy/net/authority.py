"""A certificate authority of one's own: a key, and the certificates that it signs.

All keys are of the curve P-256. Imported by `dispy cert` alone.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dispy.model.errors import DispyError
from dispy.net import certificates
from dispy.system.directories import read_private, write_private

KEY, CERTIFICATE, AUTHORITY, REVOKED = "key.pem", "cert.pem", "ca.pem", "revoked"
AUTHORITY_DAYS, DAYS = 3650, 365
DAYS_MOST = 36500
_LEEWAY = datetime.timedelta(hours=1)  # between the clocks of two machines


def make_authority(directory: str, name: str, days: int = AUTHORITY_DAYS) -> None:
    """Make the key and the certificate of an authority; raises DispyError, also where one is."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    certificate = (
        _begun(subject, subject, key, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(os.path.join(directory, KEY), _pem_key(key))
    _write(os.path.join(directory, AUTHORITY), _pem(certificate))


def issue(
    directory: str,
    name: str,
    to: str,
    addresses: Sequence[str] = (),
    host_names: Sequence[str] = (),
    roles: Sequence[str] = (),
    days: int = DAYS,
) -> None:
    """Make a key and a certificate that the authority in `directory` signs; `to`: where they go.

    With what the other side needs: the authority's certificate. Raises DispyError.
    """
    authority, authority_key = _authority(directory)
    last = (authority.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)).days
    if days > last:
        raise DispyError(f"--days: the authority itself is valid for {last} days more")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _begun(_name(name), authority.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
            ),
            critical=False,
        )
    )
    if names := _alternatives(addresses, host_names, roles):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(authority_key, hashes.SHA256())
    _write(os.path.join(to, KEY), _pem_key(key))
    _write(os.path.join(to, CERTIFICATE), _pem(certificate))
    _write(os.path.join(to, AUTHORITY), _pem(authority))


def revoke(path: str, revoked: str) -> str:
    """Add the certificate of a file to a list of those that count no more; return its subject.

    Raises DispyError, also where it is in the list.
    """
    certificate = certificates.load(path)[0]
    name = certificates.subject(certificate)
    try:
        listed = os.path.exists(revoked) and certificates.read_fingerprints(revoked)
        if listed and certificate.fingerprint(hashes.SHA256()) in listed:
            raise DispyError(f"{path} ({name}) is in {revoked} already")
        Path(revoked).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = f"{certificates.fingerprint(certificate)}  # {' '.join(name.split())}\n"
        with open(revoked, "a", encoding="utf-8") as file:
            file.write(line)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DispyError(f"cannot use the list {revoked}: {reason}") from None
    return name


def _authority(directory: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    path = os.path.join(directory, KEY)
    if not os.path.exists(path):
        raise DispyError(f"there is no authority in {directory}; `dispy cert ca` makes one")
    certificate = certificates.load(os.path.join(directory, AUTHORITY))[0]
    try:
        key = serialization.load_pem_private_key(read_private(path, path).encode(), None)
    except (ValueError, TypeError):
        raise DispyError(f"{path} has no key in it that can be used") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DispyError(f"{path} has not a key as `dispy cert ca` makes it")
    return certificate, key


def _name(name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    except ValueError:
        raise DispyError(f"the name {name!r} has not 1 to 64 letters") from None


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LEEWAY)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs, key_cert_sign=signs, crl_sign=signs,
        content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _alternatives(
    addresses: Sequence[str], host_names: Sequence[str], roles: Sequence[str]
) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for address in addresses:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            raise DispyError(f"--ip: {address!r} is not an address") from None
    for host_name in host_names:
        try:
            names.append(x509.DNSName(host_name))
        except ValueError:
            raise DispyError(
                f"--dns: {host_name!r} is not a host name of ASCII letters (xn--...)"
            ) from None
    for role in roles:
        if role not in certificates.ROLES:
            raise DispyError(f"--role: {role!r} is not one of {', '.join(certificates.ROLES)}")
        names.append(x509.UniformResourceIdentifier(certificates.ROLE + role))
    return names


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _pem_key(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _write(path: str, text: str) -> None:
    try:
        write_private(path, text)
    except FileExistsError:
        raise DispyError(f"{path} is there already, and stays as it is") from None
    except OSError as error:
        raise DispyError(f"cannot write {path}: {error.strerror or error}") from None
