"""Directories that are reached step by step from an open one: never through a link.

Whoever runs as the same user may exchange a directory for a link between one look and the next.
So each step goes by the descriptor of the one before it and follows no link; only the first, the
root, is opened by its path, once. Disk work: call it in a thread where it may take long.
"""

import errno
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dispy.model.errors import DispyError

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Opened like this a named pipe makes nobody wait, and is told from a file afterwards.
READ_FILE = os.O_RDONLY | NO_FOLLOW | getattr(os, "O_NONBLOCK", 0)
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW
_STEP = os.O_RDONLY | NO_FOLLOW | getattr(os, "O_DIRECTORY", 0)
_NO_STEP = frozenset({errno.ELOOP, errno.ENOTDIR})
_DEPTH = 100  # directories one within the other, in which empty ones are looked for


class PlaceRefused(DispyError):
    """A file cannot be put where it belongs; the text says why."""


@dataclass(frozen=True, slots=True)
class Beneath:
    """A directory below a root; each use goes down to it anew, in `parts`."""

    root: int  # the descriptor of the root, which belongs to whoever opened it
    path: Path  # where it should lie: for people, and for what runs there
    parts: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path) -> "Beneath":
        """Open a root, which must be no link itself; its descriptor is the caller's."""
        return cls(os.open(path, _STEP), path)

    def below(self, *parts: str) -> "Beneath":
        """Return a directory in this one, there or not; `parts` are names."""
        return Beneath(self.root, self.path.joinpath(*parts), (*self.parts, *parts))

    @contextmanager
    def opened(self, make: bool = False) -> Iterator[int]:
        """Give its descriptor; raises PlaceRefused and OSError."""
        descriptor = walk(self.root, self.parts, "/".join(self.parts), make)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @property
    def _parent(self) -> "Beneath":
        assert self.parts, "a root has no name below itself"
        return Beneath(self.root, self.path.parent, self.parts[:-1])

    @property
    def is_there(self) -> bool:
        """Whether anything has its name, a link too."""
        try:
            with self._parent.opened() as parent:
                os.stat(self.parts[-1], dir_fd=parent, follow_symlinks=False)
                return True
        except (OSError, PlaceRefused):
            return False

    def move(self, target: "Beneath") -> None:
        """Give it another name below the same root; raises PlaceRefused and OSError."""
        with self._parent.opened() as here, target._parent.opened(make=True) as there:
            os.rename(self.parts[-1], target.parts[-1], src_dir_fd=here, dst_dir_fd=there)

    def remove_parent_if_empty(self) -> None:
        """Remove the directory that it was in, unless there is anything else; never raises."""
        parent = self._parent
        with suppress(OSError, PlaceRefused), parent._parent.opened() as above:
            os.rmdir(parent.parts[-1], dir_fd=above)

    def remove(self) -> None:
        """Remove it, and all that is in it; never raises, and leaves what it may not remove."""
        with suppress(OSError, PlaceRefused), self._parent.opened() as parent:
            remove_tree(parent, self.parts[-1])


def walk(
    start: int, parts: Sequence[str], path: str, make: bool = False, made: list[str] | None = None
) -> int:
    """Return a descriptor of the directory that lies `parts` below an open one.

    `path` names it in errors. `make`: directories that are not there are made, and `made` gets
    their paths. Raises PlaceRefused where a link or a file is in the way, and OSError.
    """
    descriptor = os.dup(start)
    try:
        for at, part in enumerate(parts):
            if make and make_directory(descriptor, part) and made is not None:
                made.append("/".join(parts[: at + 1]))
            inner = step(descriptor, part, path)
            os.close(descriptor)
            descriptor = inner
        return descriptor
    except BaseException:
        os.close(descriptor)
        raise


def make_directory(parent: int, name: str) -> bool:
    """Make a directory, unless something has that name already; say whether it was made."""
    try:
        os.mkdir(name, 0o777, dir_fd=parent)
        return True
    except FileExistsError:
        return False


def step(descriptor: int, name: str, path: str) -> int:
    """Return a descriptor one directory further down; raises PlaceRefused and OSError."""
    assert name not in ("", ".", ".."), "names were checked before"
    assert "/" not in name, "it is one step"
    try:
        return os.open(name, _STEP, dir_fd=descriptor)
    except OSError as error:
        if error.errno in _NO_STEP:
            raise PlaceRefused(
                f"{path!r} is refused: {name!r} on the way there is a symbolic link or a file, "
                f"which might lead out of the directory"
            ) from None
        raise


def remove_tree(parent: int, name: str) -> None:
    """Remove what has this name in an open directory, whatever it is; leaves what it may not.

    Directories in it are first moved up into `parent`: so a tree may be of any depth, and one
    descriptor is enough.
    """
    waiting = deque([name])
    while waiting:
        name = waiting.popleft()
        with suppress(OSError):
            os.unlink(name, dir_fd=parent)
            continue
        try:
            descriptor = os.open(name, _STEP, dir_fd=parent)
        except OSError:
            continue  # it has gone, or it is closed to us
        try:
            with suppress(OSError):
                os.fchmod(descriptor, 0o700)
            for inside in os.listdir(descriptor):
                _remove_inside(descriptor, inside, parent, waiting)
        except OSError:
            pass  # a disk that fails
        finally:
            os.close(descriptor)
        with suppress(OSError):
            os.rmdir(name, dir_fd=parent)


def _remove_inside(descriptor: int, inside: str, parent: int, waiting: deque[str]) -> None:
    """Unlink a file; move a directory to where its turn comes."""
    with suppress(OSError):
        os.unlink(inside, dir_fd=descriptor)
        return
    with suppress(OSError):
        os.rmdir(inside, dir_fd=descriptor)
        return
    with suppress(OSError):
        inner = os.open(inside, _STEP, dir_fd=descriptor)
        try:
            os.fchmod(inner, 0o700)  # else it could not be moved, where a job took the right away
        finally:
            os.close(inner)
        moved = f".dispy-{os.urandom(8).hex()}"
        os.rename(inside, moved, src_dir_fd=descriptor, dst_dir_fd=parent)
        waiting.append(moved)


def remove_empty(parent: int, name: str, depth: int = _DEPTH) -> None:
    """Remove the directories at and below this name that have nothing in them."""
    with suppress(OSError):
        descriptor = os.open(name, _STEP, dir_fd=parent)
        try:
            for inside in os.listdir(descriptor) if depth else ():
                remove_empty(descriptor, inside, depth - 1)
        finally:
            os.close(descriptor)
        os.rmdir(name, dir_fd=parent)
