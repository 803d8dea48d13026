"""Where computations work on a node: a fresh directory each, or one that their client has named.

Below the node's own directory: `OWNER/NUMBER` for those that are removed, and `clients/ADDRESS/...`
for those with a `dest_path`, which computations may share and which may stay. `remove` does disk
work and runs in a thread; all else on the node's loop.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dispy.model.errors import DispyError
from dispy.node import placing
from dispy.shipping.files import Entry, why_not_inside
from dispy.system.beneath import Beneath, PlaceRefused, remove_empty, remove_tree
from dispy.system.users import User, hand_over

KEPT = "clients"  # what stays in the node's directory lies below this
OWED = "owed.sqlite"  # so begin the names of files with what is owed to clients; they stay too
_GOING = "going"  # what is about to be removed


@dataclass(slots=True, eq=False)
class WorkingDirectory:
    """The right of one computation to work in a directory."""

    place: Beneath
    is_fresh: bool  # nothing was there before, and nobody else works there
    cleanup: bool  # what it brings is removed at its end
    shared: "_Shared | None" = None

    @property
    def path(self) -> Path:
        """Where it is, for those who work there."""
        return self.place.path


@dataclass(slots=True, eq=False)
class _Shared:
    """A directory with a name, which several computations may use."""

    place: Beneath
    stays: bool  # it was there before anybody came, or somebody wants it to stay
    users: set[int] = field(default_factory=set)  # ids of WorkingDirectory
    brought: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # by whom
    kept: set[str] = field(default_factory=set)  # files that stay whoever goes


class Directories:
    """Owns all directories below the node's own; `root` exists, and no job of the node's does.

    user: whose those are in which computations work, and nobody else's; None: the node's.
    """

    def __init__(self, root: Path, user: User | None = None) -> None:
        self._root, self.user = Beneath.of(root), user
        self._shared: dict[tuple[str, ...], _Shared] = {}

    def open(
        self, owner_id: str, number: int, address: str, settings: dict[str, Any]
    ) -> WorkingDirectory:
        """Return where a computation works; raises DispyError where its wishes cannot be met."""
        cleanup, wish = settings.get("cleanup", True) is not False, settings.get("dest_path")
        if wish is None and cleanup:
            place = self._root.below(owner_id[:12], str(number))
            if place.is_there:  # the end of that one is not over
                place = self._root.below(owner_id[:12], f"{number}-{os.urandom(4).hex()}")
            self._make(place, own=1)
            return WorkingDirectory(place, is_fresh=True, cleanup=True)
        if wish is None:
            wish = f"{owner_id[:12]}-{number}"
        why = why_not_inside(wish) if isinstance(wish, str) else "it is no text"
        if why is not None:
            raise DispyError(f"dest_path {str(wish)[:200]!r} is refused: {why}")
        place = self._root.below(KEPT, address.replace(":", "_") or "local", *wish.split("/"))
        was_there = place.is_there
        self._make(place, own=2)
        shared = self._shared.get(place.parts)
        if shared is None:
            shared = self._shared[place.parts] = _Shared(place, stays=was_there)
        opened = WorkingDirectory(place, is_fresh=not was_there, cleanup=cleanup, shared=shared)
        shared.users.add(id(opened))
        shared.stays = shared.stays or not cleanup
        return opened

    def _make(self, place: Beneath, own: int) -> None:
        """Make a directory, and those above it, of which the `own` first ones stay the node's.

        Raises DispyError.
        """
        try:
            with place.opened(make=True):
                pass
            for depth in range(len(place.parts)) if self.user is not None else ():
                with self._root.below(*place.parts[: depth + 1]).opened() as descriptor:
                    self._give_away(descriptor, place, theirs=depth >= own)
        except OSError as error:
            raise DispyError(f"cannot make {place.path}: {error.strerror or error}") from None

    def _give_away(self, descriptor: int, place: Beneath, theirs: bool) -> None:
        assert self.user is not None
        if not theirs:
            os.fchmod(descriptor, 0o711)  # they come through, and see no other names
        elif not hand_over(descriptor, self.user):
            raise DispyError(
                f"{place.path} belongs to another user; the jobs of this node run as "
                f"{self.user.name}"
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
            removal = Removal(self._put_aside(directory.place))
            directory.place.remove_parent_if_empty()  # its owner's
            return removal
        shared.users.discard(id(directory))
        files = []
        for path, users in list(shared.brought.items()):
            if id(directory) in users:
                users.discard(id(directory))
                if not users:
                    del shared.brought[path]
                    files.append(path)
        if not shared.users and not shared.stays and not any(self._inside(shared.place)):
            del self._shared[shared.place.parts]
            return Removal(self._put_aside(shared.place))
        return Removal(shared.place, [path for path in files if path not in shared.kept])

    def _inside(self, place: Beneath) -> Iterator[_Shared]:
        above, depth = place.parts, len(place.parts)
        for parts, other in self._shared.items():
            if len(parts) > depth and parts[:depth] == above:
                yield other

    def _put_aside(self, place: Beneath) -> Beneath:
        """Rename a directory, so that its name is free at once; return where it is."""
        going = self._root.below(_GOING, os.urandom(8).hex())
        try:
            place.move(going)
            return going
        except (OSError, PlaceRefused):
            return place

    def stop(self) -> None:
        """Remove all that does not stay, and the root with it if that is all."""
        with suppress(OSError):
            for inside in os.listdir(self._root.root):
                if inside != KEPT and not inside.startswith(OWED):
                    remove_tree(self._root.root, inside)
        remove_empty(self._root.root, KEPT)
        os.close(self._root.root)
        with suppress(OSError):
            self._root.path.rmdir()


class Removal:
    """What is to go: a whole directory, or some files of one that stays."""

    def __init__(self, place: Beneath, files: list[str] | None = None) -> None:
        self._place, self._files = place, files

    def carry_out(self) -> None:
        """In a thread."""
        if self._files is None:
            self._place.remove()
            return
        above = {str(place) for path in self._files for place in Path(path).parents} - {"."}
        for path in self._files:
            placing.remove(self._place, path, above)
