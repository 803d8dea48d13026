"""What `dispy doctor` says of the credentials of this user."""

import os

from dispy.cli.checks import OK, PROBLEM, WARNING, Check
from dispy.cli.secret import strength
from dispy.client.settings import resolve_here
from dispy.model.credentials import NOTHING, Credentials
from dispy.model.errors import DispyError
from dispy.net.credentials import concerns, load_credentials, secret_path

SUBJECT = "credentials"


def credentials_here() -> tuple[Credentials, list[Check]]:
    """Return what programs and nodes of this user prove themselves by, and what to say of it."""
    try:
        credentials = load_credentials(resolve_here("client", {}))
        worries = concerns(credentials)
    except DispyError as error:
        advice = "Programs and nodes refuse to start until that is well"
        return NOTHING, [Check(PROBLEM, SUBJECT, str(error), advice)]
    checks = [
        Check(OK, SUBJECT, f"secret {secret.fingerprint} of {secret.source}, {strength(secret)}")
        for secret in credentials.secrets
    ]
    if credentials.certificate is not None:
        checks.append(_certificate(credentials.certificate.certfile))
    if not credentials.protected:
        checks.append(_none(credentials))
    checks += [Check(WARNING, SUBJECT, worry, "Nobody else should be able to") for worry in worries]
    return credentials, checks


def _certificate(path: str) -> Check:
    from dispy.net import certificates

    certificate = certificates.load(path)[0]
    finding = (
        f"certificate {path} of {certificates.subject(certificate)}, fingerprint "
        f"{certificates.fingerprint(certificate)[:11]}..., "
        f"for {certificates.days_left(certificate)} days more"
    )
    return Check(OK, SUBJECT, finding)


def _none(credentials: Credentials) -> Check:
    usual = secret_path(os.environ)
    if credentials.insecure:
        finding = "none, and other machines are used without any: somebody has set `insecure`"
        return Check(WARNING, SUBJECT, finding, "`dispy secret` makes a secret; then take it back")
    return Check(OK, SUBJECT, f"none ({usual} is not there): this machine alone is used")
