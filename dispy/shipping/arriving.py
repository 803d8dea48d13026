"""A file on its way into a directory: it is there whole or not at all, and never beside it.

Names come from another machine and are believed in nothing. Any thread may use a file, one at a
time. Every error is an OSError, or a PlaceRefused with a sentence.
"""

import contextlib
import os
from pathlib import Path, PurePosixPath

from dispy.model.errors import DispyError

PARTS_LIMIT = 64  # directories of a name, one within the other
_MODE = 0o777  # what is taken of a file's mode: not set-user-id and its kin


class PlaceRefused(DispyError):
    """A file may not be put where its name says."""


def find_place(directory: Path, name: str) -> Path:
    """Return where a file of this name ("plots/one.png") belongs; raises PlaceRefused.

    It is below `directory`, and no part of the way there is a symbolic link, wherever that
    leads: another program could point it elsewhere between this look and the next.
    """
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name or len(parts) > PARTS_LIMIT:
        raise PlaceRefused(f"{name!r} is no name of a file")
    if name.startswith(("/", "\\")) or ".." in parts or os.path.splitdrive(name)[0]:
        raise PlaceRefused(f"{name!r} would leave the directory {directory}")
    place = directory
    for part in parts[:-1]:
        place /= part
        if place.is_symlink():
            raise PlaceRefused(
                f"{name!r} would leave the directory {directory}: {place} is a symbolic link"
            )
        if place.exists() and not place.is_dir():
            raise PlaceRefused(f"{name!r} needs a directory {place}, and that is a file")
    place /= parts[-1]
    if place.is_dir():
        raise PlaceRefused(f"{place} is a directory; no file can replace it")
    return place


class ArrivingFile:
    """Grows under another name beside its place, and takes that when it is whole."""

    def __init__(self, directory: Path, name: str, mode: int, modified: int) -> None:
        """Begin it; `modified` is in nanoseconds since the epoch."""
        self.place = find_place(directory, name)
        self._mode, self._modified = mode & _MODE, modified
        self.place.parent.mkdir(parents=True, exist_ok=True)
        self._path = self.place.with_name(f".dispy-{os.urandom(8).hex()}.part")
        self._file = open(self._path, "xb", buffering=0)  # noqa: SIM115

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Add the next piece."""
        view = memoryview(piece)
        while view:
            view = view[self._file.write(view) :]

    def finish(self) -> None:
        """Put the file in its place, over what was there, with its own mode and time."""
        with self._file:
            os.chmod(self._path, self._mode)
            os.utime(self._path, ns=(self._modified, self._modified))
        os.replace(self._path, self.place)

    def discard(self) -> None:
        """Leave nothing of it, unless it is in its place."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
