"""Where this operating system keeps what belongs to a user and to the machine."""

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_CONFIGURATION = Path("/etc/dispy/config.toml")


def configuration_files(environment: Mapping[str, str]) -> list[Path]:
    """Return the configuration files to read, the strongest first.

    The one that DISPY_CONFIG names, be it there or not; else the user's and the system's, as
    far as they exist.
    """
    if named := environment.get("DISPY_CONFIG", "").strip():
        return [Path(os.path.expanduser(named))]
    candidates = [user_configuration(environment) / "dispy" / "config.toml", SYSTEM_CONFIGURATION]
    return [path for path in candidates if path.is_file()]


def user_configuration(environment: Mapping[str, str]) -> Path:
    """Return the directory of this user's configuration files, as XDG has it."""
    named = Path(environment.get("XDG_CONFIG_HOME", ""))
    # The XDG specification has relative paths ignored.
    if named.is_absolute():
        return named
    return Path(environment.get("HOME") or os.path.expanduser("~")) / ".config"
