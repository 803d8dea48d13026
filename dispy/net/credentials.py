"""Where a process finds its credentials: settings, files, and a place that needs no setting.

Read in the thread of whoever starts, and a file of secrets again, at the next connection, when it
has changed. A file that others could read, or have written, is refused.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dispy.model.credentials import Certificate, Credentials, Secret, read_secrets
from dispy.model.errors import DispyError
from dispy.model.setting import Value
from dispy.system.directories import file_state, read_private, user_configuration

logger = logging.getLogger("dispy.net")


def secret_path(environment: Mapping[str, str]) -> str:
    """Return where the secret lies that is found without a setting."""
    return os.path.join(user_configuration(environment), "dispy", "secret")


def load_credentials(settings: Mapping[str, Value]) -> Credentials:
    """Return what a room's settings say: secret, secret_file, certfile, keyfile, cafile, revoked.

    With nothing said, the secret of `secret_path`, if there is one; the `secret_file` "none" means
    that there is none. Raises DispyError for a file that cannot be used, or that others may read.
    """
    certificate = _certificate(settings)
    insecure = bool(settings["insecure"].value)
    said = settings["secret"]
    if said.value:
        return Credentials((Secret(said.value, said.source),), certificate, insecure)
    path, source = _secrets_file(settings["secret_file"], certificate is not None)
    if path is None:
        return Credentials((), certificate, insecure)
    _known[path] = _Known(file_state(path), read_secrets(read_private(path, source), path))
    return Credentials(_known[path].secrets, certificate, insecure, path)


def _certificate(settings: Mapping[str, Value]) -> Certificate | None:
    certfile, keyfile = settings["certfile"], settings["keyfile"]
    if certfile.value or keyfile.value:
        if not certfile.value:
            raise DispyError(f"{keyfile.source}: a key needs its certificate (certfile) too")
        key = _path(keyfile) or _path(certfile)
        assert key is not None
        read_private(key, keyfile.source if keyfile.value else certfile.source)
        return Certificate(
            _path(certfile) or "", _path(keyfile), _path(settings["cafile"]),
            _path(settings["revoked"]),
        )  # fmt: skip
    for name in ("cafile", "revoked"):
        if settings[name].value:
            raise DispyError(f"{settings[name].source}: it needs a certificate (certfile) too")
    return None


def _secrets_file(named: Value, certified: bool) -> tuple[str | None, str]:
    """Return the path of the file with our secrets, if there is one, and who named it."""
    if named.value is not None:
        path = _path(named)
        return (None if path is None or path.lower() == "none" else path), named.source
    usual = secret_path(os.environ)
    return (None if certified or not os.path.exists(usual) else usual), usual


def _path(value: Value) -> str | None:
    return os.path.expanduser(value.value) if value.value else None


# -- secrets that change while a process runs


@dataclass(frozen=True, slots=True)
class _Known:
    """The secrets of a file as it was in some state."""

    state: tuple[int, ...] | None  # None: it was not there
    secrets: tuple[Secret, ...]


_known: dict[str, _Known] = {}  # by path; of whichever thread connects


def current(credentials: Credentials) -> Credentials:
    """Return the credentials with the secrets that are in their file now; costs one `stat`.

    A file that is gone, or that cannot be used, changes nothing: what was valid stays so, and a
    warning says it once.
    """
    path = credentials.secrets_file
    if path is None:
        return credentials
    known, state = _known.get(path), file_state(path)
    if known is None or known.state != state:
        before = credentials.secrets if known is None else known.secrets
        known = _known[path] = _Known(state, _read_again(path, before))
    if known.secrets is credentials.secrets:
        return credentials
    return replace(credentials, secrets=known.secrets)


def _read_again(path: str, before: tuple[Secret, ...]) -> tuple[Secret, ...]:
    try:
        found = read_secrets(read_private(path, path), path)
    except DispyError as error:
        logger.warning("the secrets from before stay valid: %s", error)
        return before
    same = {secret: secret for secret in before}  # these have their keys computed
    logger.info("%s has changed: %d secrets are valid now", path, len(found))
    return tuple(same.get(secret, secret) for secret in found)


# -- what people should know of them


def concerns(credentials: Credentials) -> list[str]:
    """Return a sentence on each credential that will be trouble; raises DispyError as a link would.

    That is a secret which can be guessed, and a certificate that ends soon or is not valid.
    """
    found = [
        f"the secret of {secret.source} is short enough to be guessed; `dispy secret` makes a "
        f"good one"
        for secret in credentials.secrets
        if secret.weak
    ]
    if credentials.certificate is not None:
        from dispy.net.certificates import own_concern
        from dispy.net.tls import certified_context

        found += own_concern(credentials.certificate)
        certified_context(credentials.certificate)
    return found
