"""A file on its way into a directory: it is there whole or not at all, and never beside it.

Names come from another machine and are believed in nothing. The way to a file's place is gone by
descriptors, which no link leads astray. Any thread may use a file, one at a time. Every error is an
OSError, or a PlaceRefused with a sentence.
"""

import contextlib
import os
import stat
from pathlib import Path, PurePosixPath

from dispy.system.beneath import NEW_FILE, Beneath, PlaceRefused, walk

PARTS_LIMIT = 64  # directories of a name, one within the other
NAME_LIMIT = 4096  # characters of a name: what the kernel takes of a path
_MODE = 0o777  # what is taken of a file's mode: not set-user-id and its kin


def find_place(directory: Path, name: str) -> list[str]:
    """Return the parts of a file's name ("plots/one.png"), all below `directory`.

    Raises PlaceRefused.
    """
    if not name or "\0" in name or len(name) > NAME_LIMIT:
        raise PlaceRefused(f"{name[:200]!r} is no name of a file")
    parts = list(PurePosixPath(name).parts)
    if not parts or len(parts) > PARTS_LIMIT:
        raise PlaceRefused(f"{name[:200]!r} is no name of a file")
    if name.startswith(("/", "\\")) or ".." in parts or os.path.splitdrive(name)[0]:
        raise PlaceRefused(f"{name[:200]!r} would leave the directory {directory}")
    return parts


class ArrivingFile:
    """Grows under another name beside its place, and takes that when it is whole."""

    def __init__(self, directory: Path, name: str, mode: int, modified: int) -> None:
        """Begin it; `modified` is in nanoseconds since the epoch."""
        *above, self._name = find_place(directory, name)
        self._mode, self._modified = mode & _MODE, modified
        directory.mkdir(parents=True, exist_ok=True)
        root = Beneath.of(Path(os.path.realpath(directory)))
        try:
            self._directory = walk(root.root, above, name, make=True)
        finally:
            os.close(root.root)
        try:
            if self._is_directory():
                raise PlaceRefused(f"{directory / name} is a directory; no file can replace it")
            self._growing = f".dispy-{os.urandom(8).hex()}.part"
            self._descriptor = os.open(self._growing, NEW_FILE, 0o600, dir_fd=self._directory)
        except BaseException:
            os.close(self._directory)
            raise
        self._closed = False

    def _is_directory(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return stat.S_ISDIR(os.stat(self._name, dir_fd=self._directory).st_mode)
        return False

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Add the next piece."""
        if self._closed:
            raise OSError("it was given up before")
        view = memoryview(piece)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def finish(self) -> None:
        """Put the file in its place, over what was there, with its own mode and time."""
        if self._closed:
            raise OSError("it was given up before")
        os.fchmod(self._descriptor, self._mode)
        os.utime(self._descriptor, ns=(self._modified, self._modified))
        here = self._directory
        os.replace(self._growing, self._name, src_dir_fd=here, dst_dir_fd=here)
        self._close()

    def discard(self) -> None:
        """Leave nothing of it, unless it is in its place."""
        if not self._closed:
            with contextlib.suppress(OSError):
                os.unlink(self._growing, dir_fd=self._directory)
            self._close()

    def _close(self) -> None:
        self._closed = True
        os.close(self._descriptor)
        os.close(self._directory)
