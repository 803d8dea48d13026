"""What clients' clusters and jobs need beside themselves, kept on the scheduler's disk for nodes.

A content comes from the client that needs it, before a node is told of it: so it is there while the
client is away. What another client has brought counts only once this one has shown that it has it
too; a mark on disk says so for as long as somebody of this client needs it. So whatever is needed
is there after a restart too (`settle`). What nobody needs is kept within a quota, in case it is
needed again. On the scheduler's hub; nothing here waits.
"""

import contextlib
import shutil
from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from dispy.model.accounts import Account
from dispy.model.errors import DispyError
from dispy.net.fetching import Done, Fetching, Request, is_wanted
from dispy.net.possession import Source
from dispy.protocol.frames import Frame
from dispy.protocol.messages import Kind
from dispy.shipping.contents import Content
from dispy.shipping.files import check
from dispy.shipping.store import Store, default_quota
from dispy.system.directories import sync_directory

CLIENT_PART = 2  # of what is free on the disk at the start: one client may have a half


class ContentsClient(Source, Protocol):
    """A client, as far as it brings contents."""

    slot: int  # which it has as long as the scheduler remembers it, restarts included


class Wanted(NamedTuple):
    """Contents with their sizes in bytes, and what those that are files are called."""

    contents: list[tuple[bytes, int]]
    names: dict[bytes, str]


def wanted_of(table: Mapping[str, Any]) -> Wanted:
    """Return what a cluster's settings or a job's options name; raises DispyError."""
    needs = table.get("needs", [])
    if not isinstance(needs, list) or not all(map(is_wanted, needs)):
        raise DispyError("what it needs is not a list of [digest, size]")
    files = [entry for entry in check(table.get("files", []), 0) if entry.is_file]
    contents = [(digest, size) for digest, size in needs]
    contents += [(entry.digest, entry.size) for entry in files]
    return Wanted(contents, {entry.digest: f"file {entry.path!r}" for entry in files})


def too_large(size: object, largest: int) -> str:
    """Say that a file of so many bytes is too large; "": it is not, or `largest` is 0."""
    if not largest or type(size) is not int or size <= largest:
        return ""
    return f"it has {size} bytes, and scheduler.max_file_size allows {largest}"


@dataclass(slots=True)
class _Of:
    """What one client has here."""

    fetching: Fetching
    account: Account
    needed: Counter[bytes] = field(default_factory=Counter)  # by how many users
    marked: set[bytes] = field(default_factory=set)


class _Use(NamedTuple):
    slot: int
    digests: Collection[bytes]
    request: Request | None  # None: all was there


class ClientContents:
    """Owns its directory, in which nobody else writes."""

    def __init__(
        self,
        directory: Path,
        quota: int | None = None,
        client_disk: int | None = None,
        outlive_power: bool = False,
    ) -> None:
        """quota: bytes that are kept without being needed; None: as a node's store has it.

        outlive_power: wait for the disk with each content, so that the machine may lose its power.
        client_disk: bytes that one client may have; 0: any; None: half of what is free now.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory, self._marks = directory, directory / "marks"
        self._marks.mkdir(mode=0o700, exist_ok=True)
        quota = default_quota(directory) if quota is None else quota
        self._store = Store(
            directory / "store", quota, begins_empty=False, outlives_power=outlive_power
        )
        if client_disk is None:
            client_disk = shutil.disk_usage(directory).free // CLIENT_PART
        self._client_disk = client_disk
        self.largest = 0  # bytes of a file; 0: any
        self._clients: dict[int, _Of] = {}
        self._uses: dict[Hashable, _Use] = {}
        self._marked_before = self._read_marks()
        self._ready: dict[bytes, tuple[int, Content]] = {}  # asked for by nodes, and its arrival

    def _read_marks(self) -> dict[int, set[bytes]]:
        """Return which clients, by slot, have shown an earlier scheduler to have which contents."""
        marked: dict[int, set[bytes]] = {}
        for path in list(self._marks.iterdir()):
            slot, _, hexed = path.name.partition("-")
            try:
                digest = bytes.fromhex(hexed)
                here = self._store.path(digest) is not None
                if here:
                    marked.setdefault(int(slot), set()).add(digest)
            except ValueError:
                here = False
            if not here:
                path.unlink()
        return marked

    def settle(self) -> None:
        """Keep of what an earlier scheduler had what is needed; call once, when `need` was called
        for all that there was, and before all else happens."""
        for slot, own in self._clients.items():
            for digest in own.marked - own.needed.keys():
                self._unmark(own, slot, digest)
        for slot, digests in self._marked_before.items():
            for digest in digests:
                self._mark_path(slot, digest).unlink()
        self._marked_before.clear()
        self._store.clear()

    def close(self) -> None:
        """Remove what nobody needs any more; nothing is asked for afterwards."""
        for own in self._clients.values():
            own.fetching.close()
        self._store.clear()
        self._store.close()
        for directory in (self._store.directory, self._marks, self._directory):
            with contextlib.suppress(OSError):  # there is something in it that is needed
                directory.rmdir()

    # -- needing

    def wanted(self, table: Mapping[str, Any]) -> Wanted:
        """Return what a cluster's settings or a job's options name; raises DispyError, for files
        that are too large too."""
        wanted = wanted_of(table)
        for digest, size in wanted.contents:
            if digest in wanted.names and (why := too_large(size, self.largest)):
                raise DispyError(f"{wanted.names[digest]}: {why}")
        return wanted

    def need(self, client: ContentsClient, user: Hashable, wanted: Wanted, done: Done) -> bool:
        """Keep contents until `release`; True: they are here. Else `done(why)` is called once they
        are, or cannot come; never before this has returned."""
        assert user not in self._uses, "who needs something says so once"
        own = self._of(client)
        for digest, size in wanted.contents:
            if self._store.size(digest) not in (None, size) and not self._store.is_held(digest):
                self._store.drop(digest)  # its end is lost, with the power of the machine
        digests = list(dict(wanted.contents))
        for digest in digests:
            self._hold(own, client.slot, digest)
        if all(own.fetching.has(digest) for digest in digests):
            self._uses[user] = _Use(client.slot, digests, None)
            self._mark(own, client.slot, digests)
            return True

        def came(why: str | None) -> None:
            if why is None:
                self._mark(own, client.slot, digests)
            done(why)

        request = own.fetching.fetch(wanted.contents, came, wanted.names)
        self._uses[user] = _Use(client.slot, digests, request)
        return False

    def release(self, user: Hashable) -> None:
        """Let go what a user needed, if anything; what has not come is not fetched for it."""
        use = self._uses.pop(user, None)
        if use is None:
            return
        own = self._clients[use.slot]
        if use.request is not None:
            own.fetching.cancel(use.request)
        for digest in use.digests:
            own.needed[digest] -= 1
            if not own.needed[digest]:
                del own.needed[digest]
                self._unmark(own, use.slot, digest)
                self._store.release(digest, use.slot)

    def missing(self, user: Hashable) -> int:
        """Return how many contents a user waits for."""
        use = self._uses.get(user)
        return 0 if use is None or use.request is None else len(use.request.missing)

    def _of(self, client: ContentsClient) -> _Of:
        own = self._clients.get(client.slot)
        if own is None:
            account = Account(self._client_disk, "scheduler.client_disk")
            own = _Of(Fetching(client, self._store, account), account)
            self._clients[client.slot] = own
            for digest in self._marked_before.pop(client.slot, ()):
                own.marked.add(digest)
                own.fetching.trust(digest)
                self._store.charge(digest, account)
        return own

    def _hold(self, own: _Of, slot: int, digest: bytes) -> None:
        own.needed[digest] += 1
        if own.needed[digest] == 1:
            self._store.hold(digest, slot)

    # -- clients and nodes

    def link_changed(self, client: ContentsClient) -> None:
        """A client is connected anew: go on with what it was asked for."""
        if client.slot in self._clients:
            self._clients[client.slot].fetching.link_changed()

    def read(self, client: ContentsClient, frame: Frame) -> None:
        """Take a client's PIECE or PROVEN; raises FrameRefused."""
        fetching = self._of(client).fetching
        if frame.kind == Kind.PIECE:
            fetching.piece(frame)
        else:
            fetching.proven(*frame.body)

    def gone(self, client: ContentsClient) -> None:
        """A client is forgotten, whose clusters and jobs need nothing any more."""
        if client.slot in self._clients and self._clients[client.slot].needed:
            # Left by who numbers things twice: what needed them has ended.
            for user in [user for user, use in self._uses.items() if use.slot == client.slot]:
                self.release(user)
        own = self._clients.pop(client.slot, None)
        if own is not None:
            own.fetching.close()

    def get(self, digest: bytes) -> Content | None:
        """Return what nodes may have under this digest: what is needed, and here."""
        arrival = self._store.arrival(digest) if self._store.is_held(digest) else None
        if arrival is None:
            self._ready.pop(digest, None)
            return None
        before, content = self._ready.get(digest, (0, None))
        if content is None or before != arrival:
            path, size = self._store.path(digest), self._store.size(digest)
            assert path is not None, "it is here"
            assert size is not None, "it is here"
            try:
                content = Content(digest, size, str(path), f"content {digest.hex()[:16]}")
            except OSError:
                return None  # somebody has removed its file
            self._ready[digest] = arrival, content
        return content

    # -- marks

    def _mark_path(self, slot: int, digest: bytes) -> Path:
        return self._marks / f"{slot}-{digest.hex()}"

    def _mark(self, own: _Of, slot: int, digests: Collection[bytes]) -> None:
        """Note that a client has shown to have contents that it needs."""
        for digest in digests:
            if digest in own.needed and digest not in own.marked:
                own.marked.add(digest)
                # Where the disk has no room for it, the content is fetched anew after a restart.
                with contextlib.suppress(OSError):
                    self._mark_path(slot, digest).touch(0o600)
                    if self._store.outlives_power:
                        sync_directory(str(self._marks))

    def _unmark(self, own: _Of, slot: int, digest: bytes) -> None:
        if digest in own.marked:
            own.marked.discard(digest)
            with contextlib.suppress(OSError):
                self._mark_path(slot, digest).unlink()
