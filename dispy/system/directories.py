"""Where this operating system keeps what belongs to a user and to the machine."""

import os
from collections.abc import Mapping

from dispy.model.errors import DispyError

SYSTEM_CONFIGURATION = "/etc/dispy/config.toml"


def configuration_files(environment: Mapping[str, str]) -> list[str]:
    """Return the paths of the configuration files to read, the strongest first.

    The one that DISPY_CONFIG names, be it there or not; else the user's and the system's, as
    far as they exist.
    """
    if named := environment.get("DISPY_CONFIG", "").strip():
        return [os.path.expanduser(named)]
    own = os.path.join(user_configuration(environment), "dispy", "config.toml")
    return [path for path in (own, SYSTEM_CONFIGURATION) if os.path.isfile(path)]


def user_configuration(environment: Mapping[str, str]) -> str:
    """Return the directory of this user's configuration files, as XDG has it."""
    named = environment.get("XDG_CONFIG_HOME", "")
    # The XDG specification has relative paths ignored.
    if os.path.isabs(named):
        return named
    return os.path.join(environment.get("HOME") or os.path.expanduser("~"), ".config")


def read_private(path: str, source: str) -> str:
    """Return the text of a file that only its owner, this user or root, may read and write.

    `source` names who asked for it. Raises DispyError that says what to do.
    """
    try:
        with open(path, encoding="utf-8") as file:
            state = os.fstat(file.fileno())
            if os.name == "posix" and state.st_uid not in (0, os.geteuid()):
                raise DispyError(f"{path} ({source}) belongs to another user: who wrote it?")
            if os.name == "posix" and state.st_mode & 0o077:
                raise DispyError(f"{path} ({source}) can be read by others: chmod 600 {path}")
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DispyError(f"{source}: cannot read {path}: {reason}") from None
