"""The files of one computation in its directory: those for all its jobs, and those of single jobs.

`bring` fetches what a manifest names and puts it there. A file is there as long as somebody who
brought it needs it, and is never two files at once: who wants another one under the same name
waits until those who use it are done. One disk operation at a time, in threads.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import BoundedSemaphore

from dispy.model.accounts import Account
from dispy.model.errors import DispyError
from dispy.net.fetching import Fetching
from dispy.net.threads import Result, in_thread
from dispy.node import placing
from dispy.node.directories import Directories, WorkingDirectory
from dispy.shipping.files import Entry
from dispy.shipping.store import Store
from dispy.system.beneath import Beneath
from dispy.system.users import acting_as

logger = logging.getLogger("dispy.node")

ALL_JOBS = "all jobs"  # who uses the files of the computation itself
_OVER = "nobody needs it any more"


@dataclass(slots=True)
class _Use:
    """A path that somebody uses, and with which content; `placed`: it lies there."""

    digest: bytes
    users: set[Hashable] = field(default_factory=set)
    placed: bool = False


@dataclass(slots=True, eq=False)
class _Bringing:
    """One call of `bring` on its way."""

    user: Hashable
    is_over: bool = False  # its user has left
    fetched: "AsyncResult[str | None]" = field(default_factory=AsyncResult)
    there: set[str] = field(default_factory=set)  # paths at which the right file lay already


class WorkingFiles:
    """Used on the node's loop; `bring` and `leave` return at once."""

    def __init__(
        self,
        directory: WorkingDirectory,
        directories: Directories,
        fetching: Fetching,
        store: Store,
        node: str,
        disk: Account | None = None,
    ) -> None:
        """disk: where what is placed is counted."""
        self.directory = directory
        self._directories, self._fetching, self._store = directories, fetching, store
        self._node, self._account = node, disk or Account(0, "")
        self._sizes: dict[str, int] = {}  # of the files that are counted there
        self._uses: dict[str, _Use] = {}
        self._paths: dict[Hashable, set[str]] = {}  # by user
        self._made: set[str] = set()  # directories for files of single jobs
        self._freed = Event()  # somebody uses a path no more
        self._disk = BoundedSemaphore(1)
        self._bringing: set[_Bringing] = set()
        self._closed = False

    def bring(
        self, entries: Sequence[Entry], user: Hashable, done: Callable[[str | None], None]
    ) -> None:
        """Have these entries in the directory, then call `done(None)`, else `done(why)`."""
        bringing = _Bringing(user)
        self._bringing.add(bringing)
        gevent.spawn(self._bring, bringing, entries, done)

    def leave(self, user: Hashable) -> None:
        """Remove what a user brought, unless others use it."""
        for bringing in self._bringing:
            if bringing.user == user:
                self._stop(bringing)
        freed = []
        for path in self._paths.pop(user, ()):
            use = self._uses[path]
            use.users.discard(user)
            if not use.users:
                del self._uses[path]
                freed.append(path)
        self._freed.set()
        if freed:
            gevent.spawn(self._remove, freed)

    def _stop(self, bringing: _Bringing) -> None:
        bringing.is_over = True
        bringing.fetched.set(_OVER)

    def close(self) -> None:
        """Bring nothing more."""
        self._closed = True
        for bringing in self._bringing:
            self._stop(bringing)
        self._freed.set()

    def clear(self) -> None:
        """Remove what goes with the computation, whose processes have ended; return then."""
        self.close()
        removal = self._directories.close(self.directory)
        with self._disk:
            in_thread(removal.carry_out)
        if self.directory.cleanup:  # else its files stay, and count as long as their owner is known
            self._account.release(sum(self._sizes.values()))

    # -- in a greenlet for each call of `bring`

    def _bring(
        self, bringing: _Bringing, entries: Sequence[Entry], done: Callable[[str | None], None]
    ) -> None:
        why: str | None = None
        held = [entry.digest for entry in entries if entry.is_file]
        for digest in held:
            self._store.hold(digest, bringing)
        try:
            self._fetch(bringing, entries)
            self._take_paths(bringing, entries)
            with self._disk:
                for entry in entries:
                    self._place(bringing, entry)
        except DispyError as error:
            why = f"on node {self._node}: {error}"
        finally:
            for digest in held:
                self._store.release(digest, bringing)
            self._bringing.discard(bringing)
        done(why)

    def _fetch(self, bringing: _Bringing, entries: Sequence[Entry]) -> None:
        """Wait until the store has all contents that are needed; raises DispyError."""
        names = {entry.digest: f"file {entry.path!r}" for entry in entries if entry.is_file}
        wanted = {entry.digest: entry.size for entry in entries if entry.is_file}
        if not self.directory.is_fresh and bringing.user == ALL_JOBS:
            for entry in entries:
                # What an earlier computation left there need not come again.
                if entry.is_file and self._is_there(entry):
                    bringing.there.add(entry.path)
                    wanted.pop(entry.digest, None)
        request = self._fetching.fetch(list(wanted.items()), bringing.fetched.set, names)
        try:
            why = bringing.fetched.get()
        finally:
            self._fetching.cancel(request)
        self._check_wanted(bringing)
        if why is not None:
            raise DispyError(why)

    def _is_there(self, entry: Entry) -> bool:
        with self._disk:
            found: bool = in_thread(self._inside, placing.has, entry)
            return found

    def _inside(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """In a thread: call with the directory, as the user whose it is; raises DispyError."""
        place, user = self.directory.place, self._directories.user
        if user is None:
            return function(place, *arguments)
        try:
            # The way there is the node's alone.
            with place.opened() as descriptor, acting_as(user):
                return function(Beneath(descriptor, place.path), *arguments)
        except OSError as error:
            raise DispyError(f"cannot use {place.path}: {error.strerror or error}") from None

    def _check_wanted(self, bringing: _Bringing) -> None:
        if bringing.is_over:
            raise DispyError(_OVER)

    def _take_paths(self, bringing: _Bringing, entries: Sequence[Entry]) -> None:
        """Wait until nobody uses other files under these names; then they are the user's."""
        user = bringing.user
        while others := self._others(user, entries):
            for entry, use in others:
                if ALL_JOBS in use.users:
                    raise DispyError(
                        f"file {entry.path!r} of this job is another than that of the same name "
                        f"which all jobs use; give it another name"
                    )
            self._freed.clear()
            self._freed.wait()
            self._check_wanted(bringing)
        for entry in entries:
            use = self._uses.setdefault(entry.path, _Use(entry.digest))
            if use.digest != entry.digest:
                if entry.is_link:
                    continue  # that name is taken; the file has its own
                use.digest, use.placed = entry.digest, False  # nobody else uses it
            use.users.add(user)
            self._paths.setdefault(user, set()).add(entry.path)

    def _others(self, user: Hashable, entries: Sequence[Entry]) -> list[tuple[Entry, _Use]]:
        found = ((entry, self._uses.get(entry.path)) for entry in entries if not entry.is_link)
        return [
            (entry, use)
            for entry, use in found
            if use is not None and use.digest != entry.digest and use.users - {user}
        ]

    def _place(self, bringing: _Bringing, entry: Entry) -> None:
        """Put an entry where it belongs, in a thread; raises DispyError."""
        self._check_wanted(bringing)
        use = self._uses.get(entry.path)
        if use is None or use.placed or use.digest != entry.digest:
            return
        was_there = entry.path in bringing.there
        if not was_there:
            self._count(entry)
            made = in_thread(self._put, entry)
            if bringing.user != ALL_JOBS:
                self._made.update(made)
        use.placed = True
        if bringing.user == ALL_JOBS:
            self._directories.brought(self.directory, entry, was_there)

    def _count(self, entry: Entry) -> None:
        """Count a file that is to be placed; raises DispyError where there is no room for it."""
        size = entry.size if entry.is_file else 0
        self._account.release(self._sizes.pop(entry.path, 0))
        if not self._account.fits(size):
            raise DispyError(self._account.why_not(f"file {entry.path!r}", size))
        self._account.take(size)
        self._sizes[entry.path] = size

    def _put(self, entry: Entry) -> list[str]:
        """In a thread: place an entry; raises DispyError."""
        if not entry.is_file:
            return self._inside(placing.place, entry, None)
        try:
            source = self._store.open(entry.digest)
        except OSError:
            raise DispyError(f"file {entry.path!r} was removed while it was needed") from None
        try:
            return self._inside(placing.place, entry, source)
        finally:
            os.close(source)

    def _remove(self, paths: list[str]) -> None:
        with self._disk:
            for path in paths:
                if path not in self._uses and not self._closed:
                    self._account.release(self._sizes.pop(path, 0))
                    made = frozenset(self._made)
                    with contextlib.suppress(DispyError):
                        in_thread(self._inside, placing.remove, path, made)
