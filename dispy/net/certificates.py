"""What is in a certificate, for those who check it and for people.

A role stands in it as a name of the kind URI, `dispy:role:node`; a certificate without any may be
of every role. Imported only where there are certificates: `cryptography` comes with it.
"""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from dispy.model.credentials import Certificate
from dispy.model.errors import DispyError

ROLE = "dispy:role:"
ROLES = ("node", "client", "scheduler", "relay")
WARNING_DAYS = 30  # before its end a certificate is warned about


def load(path: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM file; raises DispyError."""
    try:
        return x509.load_pem_x509_certificates(Path(path).expanduser().read_bytes())
    except OSError as error:
        raise DispyError(f"cannot read the certificate {path}: {error.strerror or error}") from None
    except ValueError:
        raise DispyError(f"{path} has no certificate in it (PEM)") from None


def fingerprint(certificate: x509.Certificate) -> str:
    """Return its SHA-256 as people write it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":")


def read_fingerprints(path: str | None) -> frozenset[bytes]:
    """Return the fingerprints of a list file, one a line; raises OSError and ValueError."""
    if path is None:
        return frozenset()
    lines = [line.split("#", 1)[0].strip() for line in Path(path).read_text().splitlines()]
    found = frozenset(bytes.fromhex(line.replace(":", "")) for line in lines if line)
    if any(len(one) != hashes.SHA256.digest_size for one in found):
        raise ValueError(f"{path} has a line that is no SHA-256 fingerprint")
    return found


def subject(certificate: x509.Certificate) -> str:
    """Return its common name, or all of its subject where it has none."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (
        x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
        ValueError,
    ):  # fmt: skip
        return None
    return extension.value


def hosts(certificate: x509.Certificate) -> list[str]:
    """Return the addresses and host names that it is for; none: it says nothing of that."""
    names = _alternatives(certificate)
    if names is None:
        return []
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return addresses + names.get_values_for_type(x509.DNSName)


def roles(certificate: x509.Certificate) -> frozenset[str]:
    """Return the roles that it is for; none: all."""
    names = _alternatives(certificate)
    said = [] if names is None else names.get_values_for_type(x509.UniformResourceIdentifier)
    return frozenset(uri.removeprefix(ROLE) for uri in said if uri.startswith(ROLE))


def is_for(certificate: x509.Certificate, *dialled: str) -> bool:
    """Say whether it names one of these hosts or addresses, or none at all."""
    named = hosts(certificate)
    return not named or any(_names(one, host) for one in named for host in dialled if host)


def _names(name: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(host)
    except ValueError:
        name, host = name.lower().rstrip("."), host.lower().rstrip(".")
        if name.startswith("*."):
            return host.partition(".")[2] == name[2:]
        return name == host


def not_in_time(certificate: x509.Certificate) -> str:
    """Return what is wrong with when it is valid ("has expired on ..."), or nothing."""
    now = datetime.datetime.now(datetime.timezone.utc)
    if certificate.not_valid_after_utc < now:
        return f"has expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if certificate.not_valid_before_utc > now:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return ""


def days_left(certificate: x509.Certificate) -> int:
    """Return for how many days more it is valid; negative: it is not."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return (certificate.not_valid_after_utc - now).days


def own_concern(certificate: Certificate) -> list[str]:
    """Return a sentence where our own certificate ends soon; raises DispyError where it cannot
    be used now."""
    own = load(certificate.certfile)[0]
    if fault := not_in_time(own):
        raise DispyError(
            f"the certificate {certificate.certfile} {fault}: `dispy cert issue` makes a new one"
        )
    days = days_left(own)
    if days >= WARNING_DAYS:
        return []
    return [
        f"the certificate {certificate.certfile} expires in {days} days, on "
        f"{own.not_valid_after_utc:%Y-%m-%d}: `dispy cert issue` makes a new one"
    ]
