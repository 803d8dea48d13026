"""Where this operating system keeps what belongs to a user and to the machine."""

import contextlib
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


def user_state(environment: Mapping[str, str]) -> str:
    """Return the directory of what this user's programs keep between their runs, as XDG has it."""
    named = environment.get("XDG_STATE_HOME", "")
    if os.path.isabs(named):
        return named
    return os.path.join(environment.get("HOME") or os.path.expanduser("~"), ".local", "state")


def read_private(path: str, source: str) -> str:
    """Return the text of a file that only its owner, this user or root, may read and write.

    `source` names who asked for it. Raises DispyError that says what to do.
    """
    asked_for = path if source == path else f"{path} ({source})"
    try:
        with open(path, encoding="utf-8") as file:
            state = os.fstat(file.fileno())
            if os.name == "posix" and state.st_uid not in (0, os.geteuid()):
                raise DispyError(f"{asked_for} belongs to another user: who wrote it?")
            if os.name == "posix" and state.st_mode & 0o077:
                raise DispyError(f"{asked_for} can be read by others: chmod 600 {path}")
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DispyError(f"{source}: cannot read {path}: {reason}") from None


def file_state(path: str) -> tuple[int, ...] | None:
    """Return numbers that differ once a file has changed; None: it is not there."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_mtime_ns, state.st_ctime_ns, state.st_size


def write_private(path: str, text: str, replace: bool = False) -> None:
    """Write a file that only this user may read, whole or not at all.

    Its directory is made, for this user alone, where there is none. Raises FileExistsError where
    the file is there and is not to be replaced, and OSError.
    """
    path = os.path.realpath(path)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    draft = f"{path}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(draft, path)
        else:
            os.link(draft, path)  # fails where it is there, in whatever moment that came
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)


def open_private(path: str, empty: bool = False) -> int:
    """Open a file to read and write, or make it, for this user alone; return its descriptor.

    empty: whatever is in it goes. Raises OSError, also where it is a symbolic link.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags | os.O_TRUNC if empty else flags, 0o600)


def sync_directory(path: str) -> None:
    """Return when the disk has the names in a directory; raises OSError."""
    if os.name != "posix":  # where a directory cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
