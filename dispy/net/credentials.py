"""Where a process finds its credentials: settings, files, and a place that needs no setting.

Read in the thread of whoever starts; a file that others could read, or have written, is refused.
"""

import os
from collections.abc import Mapping

from dispy.model.credentials import Certificate, Credentials, Secret, read_secrets
from dispy.model.errors import DispyError
from dispy.model.settings import Value
from dispy.system.directories import read_private, user_configuration


def secret_path(environment: Mapping[str, str]) -> str:
    """Return where the secret lies that is found without a setting."""
    return os.path.join(user_configuration(environment), "dispy", "secret")


def load_credentials(settings: Mapping[str, Value]) -> Credentials:
    """Return what a room's settings say: secret, secret_file, certfile, keyfile, cafile, revoked.

    With nothing said, the secret of `secret_path`, if there is one; the `secret_file` "none" means
    that there is none. Raises DispyError for a file that cannot be used, or that others may read.
    """
    certificate = None
    certfile, keyfile = settings["certfile"], settings["keyfile"]
    if certfile.value or keyfile.value:
        if not certfile.value:
            raise DispyError(f"{keyfile.source}: a key needs its certificate (certfile) too")
        key = _path(keyfile) or _path(certfile)
        assert key is not None
        read_private(key, keyfile.source if keyfile.value else certfile.source)
        certificate = Certificate(
            _path(certfile) or "", _path(keyfile), _path(settings["cafile"]),
            _path(settings["revoked"]),
        )  # fmt: skip
    else:
        for name in ("cafile", "revoked"):
            if settings[name].value:
                raise DispyError(f"{settings[name].source}: it needs a certificate (certfile) too")
    secrets = _secrets(settings, certificate is not None)
    return Credentials(secrets, certificate, bool(settings["insecure"].value))


def _secrets(settings: Mapping[str, Value], certified: bool) -> tuple[Secret, ...]:
    said, named = settings["secret"], settings["secret_file"]
    if said.value:
        return (Secret(said.value, said.source),)
    if named.value is not None:
        path = _path(named)
        if path is None or path.lower() == "none":
            return ()
        return read_secrets(read_private(path, named.source), path)
    usual = secret_path(os.environ)
    if certified or not os.path.exists(usual):
        return ()
    return read_secrets(read_private(usual, usual), usual)


def _path(value: Value) -> str | None:
    return os.path.expanduser(value.value) if value.value else None
