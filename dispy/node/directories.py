"""Where computations work on a node: a fresh directory each, or one that their client has named.

Below the node's own directory: `OWNER/NUMBER` for those that are removed, and `clients/ADDRESS/...`
for those with a `dest_path`, which computations may share and which may stay. `remove` does disk
work and runs in a thread; all else on the node's loop.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispy.model.errors import DispyError
from dispy.node import placing
from dispy.shipping.files import Entry, why_not_inside
from dispy.system.users import User, hand_over

KEPT = "clients"  # what stays in the node's directory lies below this
_GOING = "going"  # what is about to be removed


@dataclass(slots=True, eq=False)
class WorkingDirectory:
    """The right of one computation to work in a directory."""

    path: Path
    is_fresh: bool  # nothing was there before, and nobody else works there
    cleanup: bool  # what it brings is removed at its end
    shared: "_Shared | None" = None


@dataclass(slots=True, eq=False)
class _Shared:
    """A directory with a name, which several computations may use."""

    path: Path
    stays: bool  # it was there before anybody came, or somebody wants it to stay
    users: set[int] = field(default_factory=set)  # ids of WorkingDirectory
    brought: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # by whom
    kept: set[str] = field(default_factory=set)  # files that stay whoever goes


class Directories:
    """Owns all directories below the node's own; `root` exists.

    user: whose those are in which computations work, and nobody else's; None: the node's.
    """

    def __init__(self, root: Path, user: User | None = None) -> None:
        self._root, self.user = root, user
        self._shared: dict[Path, _Shared] = {}

    def open(
        self, owner_id: str, number: int, address: str, settings: dict[str, Any]
    ) -> WorkingDirectory:
        """Return where a computation works; raises DispyError where its wishes cannot be met."""
        cleanup, wish = settings.get("cleanup", True) is not False, settings.get("dest_path")
        if wish is None and cleanup:
            name = str(number)
            if os.path.lexists(self._root / owner_id[:12] / name):  # its end is not over
                name += f"-{os.urandom(4).hex()}"
            path = self._make([owner_id[:12], name], own=1)
            return WorkingDirectory(path, is_fresh=True, cleanup=True)
        if wish is None:
            wish = f"{owner_id[:12]}-{number}"
        why = why_not_inside(wish) if isinstance(wish, str) else "it is no text"
        if why is not None:
            raise DispyError(f"dest_path {str(wish)[:200]!r} is refused: {why}")
        parts = [KEPT, address.replace(":", "_") or "local", *wish.split("/")]
        path = self._root.joinpath(*parts)
        was_there = os.path.lexists(path)
        self._make(parts, own=2)
        shared = self._shared.get(path)
        if shared is None:
            shared = self._shared[path] = _Shared(path, stays=was_there)
        opened = WorkingDirectory(path, is_fresh=not was_there, cleanup=cleanup, shared=shared)
        shared.users.add(id(opened))
        shared.stays = shared.stays or not cleanup
        return opened

    def _make(self, parts: list[str], own: int) -> Path:
        """Make a directory; the `own` first parts of the way stay the node's."""
        where = self._root.joinpath(*parts)
        try:
            placing.make_below(self._root, parts)
            for depth in range(len(parts)) if self.user is not None else ():
                with placing.opened_below(self._root, parts[: depth + 1]) as descriptor:
                    self._give_away(descriptor, where, theirs=depth >= own)
        except OSError as error:
            raise DispyError(f"cannot make {where}: {error.strerror or error}") from None
        return where

    def _give_away(self, descriptor: int, where: Path, theirs: bool) -> None:
        assert self.user is not None
        if not theirs:
            os.fchmod(descriptor, 0o711)  # they come through, and see no other names
        elif not hand_over(descriptor, self.user):
            raise DispyError(
                f"{where} belongs to another user; the jobs of this node run as {self.user.name}"
            )

    def brought(self, directory: WorkingDirectory, entry: Entry, was_there: bool) -> None:
        """Take note of a file that a computation has put there, or found there as it wants it."""
        shared = directory.shared
        if shared is None or (was_there and entry.path not in shared.brought):
            return
        if directory.cleanup:
            shared.brought[entry.path].add(id(directory))
        else:
            shared.kept.add(entry.path)

    def close(self, directory: WorkingDirectory) -> "Removal":
        """End a computation's right to a directory; return what is to be removed now."""
        shared = directory.shared
        if shared is None:
            return Removal(self._put_aside(directory.path))
        shared.users.discard(id(directory))
        files = []
        for path, users in list(shared.brought.items()):
            if id(directory) in users:
                users.discard(id(directory))
                if not users:
                    del shared.brought[path]
                    files.append(path)
        if not shared.users and not shared.stays and not any(self._inside(shared.path)):
            del self._shared[shared.path]
            return Removal(self._put_aside(shared.path))
        return Removal(shared.path, [path for path in files if path not in shared.kept])

    def _inside(self, path: Path) -> Iterator[_Shared]:
        return (other for other in self._shared.values() if path in other.path.parents)

    def _put_aside(self, path: Path) -> Path:
        """Rename a directory, so that its name is free at once; return its new one."""
        going = self._root / _GOING / os.urandom(8).hex()
        try:
            going.parent.mkdir(exist_ok=True)
            return path.rename(going)
        except OSError:
            return path

    def stop(self) -> None:
        """Remove all that does not stay, and the root with it if that is all."""
        for inside in list(self._root.iterdir()) if self._root.exists() else ():
            if inside.name != KEPT:
                shutil.rmtree(inside, ignore_errors=True)
        _remove_empty(self._root / KEPT)
        with suppress(OSError):
            self._root.rmdir()


class Removal:
    """What is to go: a whole directory, or some files of one that stays."""

    def __init__(self, path: Path, files: list[str] | None = None) -> None:
        self._path, self._files = path, files

    def carry_out(self) -> None:
        """In a thread."""
        if self._files is None:
            shutil.rmtree(self._path, ignore_errors=True)
            return
        above = {str(place) for path in self._files for place in Path(path).parents} - {"."}
        for path in self._files:
            placing.remove(self._path, path, above)


def _remove_empty(path: Path) -> None:
    """Remove the directories at and below `path` that have nothing in them."""
    for inside, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            os.rmdir(inside)
