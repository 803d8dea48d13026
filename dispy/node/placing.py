"""Files into a working directory, and out of it: never beside it, whatever lies in the way.

Every step down goes by descriptor from the directory itself and follows no link, so nothing that
jobs do meanwhile can lead it elsewhere. A file appears whole, under its own name, with its own
mode and time. All of this is disk work: call it in a thread.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from io import FileIO
from pathlib import Path

from dispy.model.errors import DispyError
from dispy.node.store import room_error
from dispy.shipping.contents import PIECE_SIZE, new_digest
from dispy.shipping.files import Entry

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_STEP = _DIRECTORY | os.O_NOFOLLOW
_NO_STEP = frozenset({errno.ELOOP, errno.ENOTDIR})
_NO_RANGES = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF})
_RANGE = 1 << 30  # bytes of one call


class PlaceRefused(DispyError):
    """A file cannot be put where it belongs; the text says why."""


def make_below(root: Path, parts: Sequence[str]) -> Path:
    """Return the directory `root`/`parts`, made where it is not there; it is below `root`.

    Raises PlaceRefused where a link or a file is in the way, and OSError.
    """
    with _parent(root, "/".join([*parts, "."]), make=True):
        return root.joinpath(*parts)


def open_below(root: Path, parts: Sequence[str]) -> int:
    """Return a descriptor of the directory `root`/`parts`; no link leads there.

    Raises PlaceRefused and OSError.
    """
    with _parent(root, "/".join([*parts, "."]), make=False) as (descriptor, _):
        return os.dup(descriptor)


def place(directory: Path, entry: Entry, source: Path | None) -> list[str]:
    """Put an entry where it belongs, over what was there; `source` has a file's content.

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
        raise room_error(f"file {entry.path!r}", entry.size, directory, error) from None
    return made


def has(directory: Path, entry: Entry) -> bool:
    """Say whether a file is there already, with this very content; gives it its mode and time."""
    try:
        with _parent(directory, entry.path, make=False) as (parent, name):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=parent)
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
    digest = new_digest()
    while piece := file.read(PIECE_SIZE):
        digest.update(piece)
    return digest.digest() == entry.digest


def remove(directory: Path, path: str, made: Collection[str] = ()) -> None:
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
    directory: Path, path: str, make: bool, made: list[str] | None = None
) -> Iterator[tuple[int, str]]:
    """Give a descriptor of the directory that `path` lies in, and the last part of it."""
    *parts, name = path.split("/")
    descriptor = os.open(directory, _DIRECTORY)
    try:
        for at, part in enumerate(parts):
            if make and _make(descriptor, part) and made is not None:
                made.append("/".join(parts[: at + 1]))
            inner = _step(descriptor, part, path)
            os.close(descriptor)
            descriptor = inner
        yield descriptor, name
    finally:
        os.close(descriptor)


def _make(descriptor: int, part: str) -> bool:
    try:
        os.mkdir(part, 0o777, dir_fd=descriptor)
        return True
    except FileExistsError:
        return False


def _step(descriptor: int, part: str, path: str) -> int:
    """Return a descriptor one directory further down."""
    try:
        return os.open(part, _STEP, dir_fd=descriptor)
    except OSError as error:
        if error.errno in _NO_STEP:
            raise PlaceRefused(
                f"{path!r} is refused: {part!r} on the way there is a link or a file, which "
                f"might lead out of the directory"
            ) from None
        raise


def _make_directory(parent: int, name: str, entry: Entry) -> None:
    _make(parent, name)
    descriptor = _step(parent, name, entry.path)
    try:
        os.fchmod(descriptor, entry.mode | stat.S_IRWXU)  # jobs may write there, and we remove it
        os.utime(descriptor, ns=(entry.mtime, entry.mtime))
    finally:
        os.close(descriptor)


def _make_link(parent: int, name: str, entry: Entry) -> None:
    """Make another name for an entry, unless something has that name already."""
    with contextlib.suppress(FileExistsError):
        os.symlink(entry.digest.decode(), name, dir_fd=parent)


def _put(parent: int, name: str, entry: Entry, source: Path) -> None:
    growing = f".dispy-{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(growing, flags, 0o600, dir_fd=parent)
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


def _copy(source: Path, target: int, size: int) -> None:
    """Copy a file by the kernel; file systems that can share the bytes do."""
    with open(source, "rb", buffering=0) as file:
        left = size
        while left:
            try:
                copied = os.copy_file_range(file.fileno(), target, min(left, _RANGE))
            except (AttributeError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_RANGES:
                    raise
                copied = _copy_piece(file.fileno(), target)
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
