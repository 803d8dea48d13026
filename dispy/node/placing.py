"""Files into a working directory, and out of it: never beside it, whatever lies in the way.

Every step down goes by descriptor from the node's own directory (`dispy.system.beneath`) and
follows no link, so nothing that jobs do meanwhile can lead it elsewhere. A file appears whole,
under its own name, with its own mode and time. All of this is disk work: call it in a thread.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator
from io import FileIO

from dispy.shipping.contents import PIECE_SIZE, new_digest
from dispy.shipping.files import Entry
from dispy.shipping.store import room_error
from dispy.system.beneath import (
    NEW_FILE,
    READ_FILE,
    Beneath,
    PlaceRefused,
    make_directory,
    step,
    walk,
)

_NO_RANGES = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})
_RANGE = 1 << 30  # bytes of one call


def place(directory: Beneath, entry: Entry, source: int | None) -> list[str]:
    """Put an entry where it belongs, over what was there; `source` is the open content of a file.

    Return the directories that were made for it. Raises PlaceRefused and NoRoom.
    """
    made: list[str] = []
    try:
        with _parent(directory, entry.path, make=True, made=made) as (parent, name):
            if entry.is_directory:
                _make_directory(parent, name, entry)
            elif entry.is_link:
                _make_link(parent, name, entry)
            else:
                assert source is not None, "a file has a content"
                _put(parent, name, entry, source)
    except OSError as error:
        if error.errno in (errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise PlaceRefused(
                f"{entry.path!r} is a directory there; no file replaces it"
            ) from None
        raise room_error(f"file {entry.path!r}", entry.size, directory.path, error) from None
    return made


def has(directory: Beneath, entry: Entry) -> bool:
    """Say whether a file is there already, with this very content; gives it its mode and time."""
    try:
        with _parent(directory, entry.path, make=False) as (parent, name):
            descriptor = os.open(name, READ_FILE, dir_fd=parent)
            with open(descriptor, "rb", buffering=0) as file:
                if not _is_content(file, entry):
                    return False
                os.fchmod(descriptor, entry.mode)
                os.utime(descriptor, ns=(entry.mtime, entry.mtime))
                return True
    except (OSError, PlaceRefused):
        return False


def _is_content(file: FileIO, entry: Entry) -> bool:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
        return False
    if status.st_nlink != 1:
        return False  # it may be a file of somebody else's, whose mode is not ours to change
    digest = new_digest()
    while piece := file.read(PIECE_SIZE):
        digest.update(piece)
    return digest.digest() == entry.digest


def remove(directory: Beneath, path: str, made: Collection[str] = ()) -> None:
    """Remove an entry, and of the directories above it those `made` for it; never raises.

    A directory that has something in it stays.
    """
    with contextlib.suppress(OSError, PlaceRefused):
        with _parent(directory, path, make=False) as (parent, name):
            try:
                os.unlink(name, dir_fd=parent)
            except (IsADirectoryError, PermissionError):
                os.rmdir(name, dir_fd=parent)
        while (path := path.rpartition("/")[0]) in made:
            with _parent(directory, path, make=False) as (parent, name):
                os.rmdir(name, dir_fd=parent)


@contextlib.contextmanager
def _parent(
    directory: Beneath, path: str, make: bool, made: list[str] | None = None
) -> Iterator[tuple[int, str]]:
    """Give a descriptor of the directory that `path` lies in, and the last part of it."""
    *parts, name = path.split("/")
    with directory.opened() as top:
        descriptor = walk(top, parts, path, make, made)
        try:
            yield descriptor, name
        finally:
            os.close(descriptor)


def _make_directory(parent: int, name: str, entry: Entry) -> None:
    make_directory(parent, name)
    descriptor = step(parent, name, entry.path)
    try:
        os.fchmod(descriptor, entry.mode | stat.S_IRWXU)  # jobs may write there, and we remove it
        os.utime(descriptor, ns=(entry.mtime, entry.mtime))
    finally:
        os.close(descriptor)


def _make_link(parent: int, name: str, entry: Entry) -> None:
    """Make another name for an entry, unless something has that name already."""
    with contextlib.suppress(FileExistsError):
        os.symlink(entry.digest.decode(), name, dir_fd=parent)


def _put(parent: int, name: str, entry: Entry, source: int) -> None:
    growing = f".dispy-{os.urandom(8).hex()}"
    descriptor = os.open(growing, NEW_FILE, 0o600, dir_fd=parent)
    try:
        try:
            _copy(source, descriptor, entry.size)
            os.fchmod(descriptor, entry.mode)
            os.utime(descriptor, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(descriptor)
        os.replace(growing, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:  # whatever it is, nothing half done stays there
        with contextlib.suppress(OSError):
            os.unlink(growing, dir_fd=parent)
        raise


def _copy(source: int, target: int, size: int) -> None:
    """Copy a file by the kernel; file systems that can share the bytes do."""
    left = size
    while left:
        try:
            copied = os.copy_file_range(source, target, min(left, _RANGE))
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_RANGES:
                raise
            copied = _copy_piece(source, target)
        if not copied:
            break
        left -= copied


def _copy_piece(source: int, target: int) -> int:
    """Copy a piece where the kernel cannot: between some file systems, or not on Linux."""
    piece = memoryview(os.read(source, PIECE_SIZE))
    copied = len(piece)
    while piece:
        piece = piece[os.write(target, piece) :]
    return copied
