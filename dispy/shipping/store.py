"""What a node or scheduler keeps by its digest: files and values that clusters and jobs have named.

Shared by all owners, and kept once. That an owner knows a digest is no reason to let it have what
lies under it: see `dispy.net.possession`.
Bounded by a quota, from which what is in use is exempt: what was not used for longest goes first.
A file counts as there only when it is whole and its digest was compared. Its files are reached by
the descriptor of its directory, and no link is followed. Used on its owner's loop; methods that say
so run in a thread.
"""

import contextlib
import errno
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Hashable
from itertools import count
from pathlib import Path

from dispy.model.accounts import Account
from dispy.model.errors import DispyError
from dispy.shipping.contents import DIGEST_SIZE, new_digest
from dispy.system.beneath import NEW_FILE, READ_FILE, Beneath

DISK_PART = 10  # of the disk that is the quota where nobody says another one: one tenth,
QUOTA_BYTES = 10 * 1024**3  # but no more than this
_IS_DIGEST = re.compile(f"[0-9a-f]{{{2 * DIGEST_SIZE}}}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class NoRoom(DispyError):
    """A content cannot be stored; the text says what is missing."""


def default_quota(directory: Path) -> int:
    """Return how many bytes a store in `directory` keeps where nobody says another number."""
    return min(QUOTA_BYTES, shutil.disk_usage(directory).total // DISK_PART)


def let_list(directory: Path) -> None:
    """Have a store's directory listed again, if it is there, so that it can be removed."""
    with contextlib.suppress(OSError):
        directory.chmod(0o700)


def room_error(what: str, size: int, directory: Path, error: OSError) -> NoRoom:
    """Say why a file of `size` bytes could not be written below `directory`."""
    if error.errno not in _FULL:
        return NoRoom(f"{what} cannot be written there: {error.strerror or error}")
    free = f"none is free in {directory}"
    with contextlib.suppress(OSError):  # a job may have removed it
        free = f"{shutil.disk_usage(directory).free:,} bytes are free in {directory}"
    if error.errno == errno.EDQUOT:
        free += ", and the quota of this process's user is used up"
    elif error.errno == errno.EFBIG:
        free += ", and the limit on the size of its files (ulimit -f) is reached"
    return NoRoom(f"there is no room for {what} of {size:,} bytes: {free}")


class Store:
    """Owns its directory; `quota` is in bytes. `for_others`: jobs of another user read its files,
    and find those alone whose digests they know."""

    def __init__(
        self,
        directory: Path,
        quota: int,
        for_others: bool = False,
        listed: bool = True,
        begins_empty: bool = True,
        outlives_power: bool = False,
    ) -> None:
        """listed: whether its own user sees what is in it; else he, too, must know the digest.

        begins_empty: else what lies there whole, from an earlier process, is in it.
        outlives_power: what it has is on the disk, so that the machine may lose its power.
        """
        directory.parent.mkdir(parents=True, exist_ok=True)
        let_list(directory)
        place = Beneath.of(directory.parent).below(directory.name)
        if begins_empty:
            place.remove()  # what a node left that was killed
        with place.opened(make=True) as descriptor:
            self._descriptor = os.dup(descriptor)
        os.close(place.root)
        self._for_others = for_others
        if for_others:
            os.fchmod(self._descriptor, 0o711)
        elif not listed:
            os.fchmod(self._descriptor, 0o300)
        self.directory, self.quota, self.outlives_power = directory, quota, outlives_power
        self.used = 0  # bytes of all that is whole
        self._sizes: OrderedDict[bytes, int] = OrderedDict()  # least recently used first
        self._arrivals: dict[bytes, int] = {}  # which of all arrivals each was
        self._accounts: dict[bytes, Account] = {}  # of those who brought them
        self._nobody = Account(0, "")  # of what was taken over
        self._users: dict[bytes, set[Hashable]] = {}
        self._numbers = count(1)
        if not begins_empty:
            self._take_over()

    def _take_over(self) -> None:
        """Take in what lies there by its digest, and remove what was on its way."""
        for name in os.listdir(self._descriptor):
            if _IS_DIGEST.fullmatch(name) is None:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._descriptor)
                continue
            digest, state = bytes.fromhex(name), os.lstat(name, dir_fd=self._descriptor)
            self._sizes[digest] = state.st_size
            self._arrivals[digest] = next(self._numbers)
            self._accounts[digest] = self._nobody
            self.used += state.st_size

    def charge(self, digest: bytes, account: Account) -> None:
        """Count a content that was taken over in the account of the first who needs it."""
        if self._accounts[digest] is self._nobody:
            self._accounts[digest] = account
            account.take(self._sizes[digest])

    def close(self) -> None:
        """Free the descriptor of the directory; nothing is asked for any more."""
        with contextlib.suppress(OSError):
            os.fchmod(self._descriptor, 0o700)  # so that it can be removed
        os.close(self._descriptor)

    def path(self, digest: bytes) -> Path | None:
        """Return where a content lies, None unless it is there; counts as a use of it."""
        if digest not in self._sizes:
            return None
        self._sizes.move_to_end(digest)
        return self._place(digest)

    def arrival(self, digest: bytes) -> int | None:
        """Return a number that this content has until it goes, None if it is not there."""
        return self._arrivals.get(digest)

    def size(self, digest: bytes) -> int | None:
        """Return the bytes of a content, None if it is not there."""
        return self._sizes.get(digest)

    @property
    def contents(self) -> int:
        """How many there are."""
        return len(self._sizes)

    def open(self, digest: bytes) -> int:
        """In a thread: return a descriptor of a content that is there; raises OSError."""
        return os.open(digest.hex(), READ_FILE, dir_fd=self._descriptor)

    def _place(self, digest: bytes) -> Path:
        return self.directory / digest.hex()

    def hold(self, digest: bytes, user: Hashable) -> None:
        """Keep a content, there already or not, until this user releases it."""
        self._users.setdefault(digest, set()).add(user)

    def release(self, digest: bytes, user: Hashable) -> None:
        """End a user's `hold`, if there is one; what is too much then goes."""
        users = self._users.get(digest)
        if users is None:
            return
        users.discard(user)
        if not users:
            del self._users[digest]
            self._shrink(0)

    def sync(self) -> None:
        """In a thread: return when the disk has the names of all that was kept; raises OSError."""
        os.fsync(self._descriptor)

    def is_held(self, digest: bytes) -> bool:
        """Whether anybody holds a content, be it here or not."""
        return digest in self._users

    def clear(self) -> None:
        """Remove all that nobody holds."""
        for digest in [digest for digest in self._sizes if digest not in self._users]:
            self._remove(digest)

    def drop(self, digest: bytes) -> None:
        """Remove a content that is there and that nobody holds."""
        assert digest not in self._users, "it is not held"
        self._remove(digest)

    def begin(
        self, digest: bytes, size: int, what: str, account: Account | None = None
    ) -> "Arriving | Comparing":
        """Return where a content can be written; `what` names it in errors.

        Of one that is there only the digest is taken. account: of who brings it, from now on until
        it goes. Raises NoRoom where the disk has none for it, or the account.
        """
        if digest in self._sizes:
            return Comparing(digest)
        account = account or Account(0, "")
        if not account.fits(size):
            self._make_room(account, size)
        if not account.fits(size):
            raise NoRoom(account.why_not(what, size))
        self._shrink(size)
        free = shutil.disk_usage(self._descriptor).free
        if size > free:
            raise room_error(what, size, self.directory, OSError(errno.ENOSPC, ""))
        path = self.directory / f"arriving-{next(self._numbers)}"
        try:
            return Arriving(self._descriptor, path, digest, size, what, account)
        except OSError as error:
            raise room_error(what, size, self.directory, error) from None

    def keep(self, arrived: "Arriving | Comparing") -> None:
        """Take in what has arrived whole, unless it is there; its digest has been compared."""
        if isinstance(arrived, Comparing) or arrived.digest in self._sizes:
            return
        if self._for_others:
            arrived.let_others_read()
        here = self._descriptor
        os.replace(arrived.path.name, arrived.digest.hex(), src_dir_fd=here, dst_dir_fd=here)
        self._sizes[arrived.digest] = arrived.size
        self._arrivals[arrived.digest] = next(self._numbers)
        self._accounts[arrived.digest] = arrived.account
        arrived.was_kept = True
        self.used += arrived.size
        self._shrink(0)

    def _shrink(self, coming: int) -> None:
        """Remove what nobody uses, until `coming` bytes more are within the quota."""
        if self.used + coming <= self.quota:
            return
        for digest in [digest for digest in self._sizes if digest not in self._users]:
            if self.used + coming <= self.quota:
                return
            self._remove(digest)

    def _make_room(self, account: Account, coming: int) -> None:
        """Remove what nobody uses of what one owner has brought, until `coming` bytes fit."""
        for digest in [digest for digest, whose in self._accounts.items() if whose is account]:
            if digest not in self._users:
                self._remove(digest)
                if account.fits(coming):
                    return

    def _remove(self, digest: bytes) -> None:
        size = self._sizes.pop(digest)
        del self._arrivals[digest]
        self.used -= size
        self._accounts.pop(digest).release(size)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(digest.hex(), dir_fd=self._descriptor)


class Comparing:
    """A content that comes from one more owner, and is there; used as `Arriving`."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self._sum = new_digest()

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """In a thread: take the next piece into account."""
        self._sum.update(piece)

    def sync(self) -> None:
        """Nothing: it is there."""

    @property
    def is_right(self) -> bool:
        """Whether this owner has the content that is there."""
        return self._sum.digest() == self.digest

    def close_and_clear(self) -> None:
        """Do nothing: there is nothing to free."""


class Arriving:
    """A content on its way into the store: an open file, and the digest so far."""

    def __init__(
        self,
        directory: int,
        path: Path,
        digest: bytes,
        size: int,
        what: str,
        account: Account,
    ) -> None:
        """`directory` is the descriptor of the one that `path` lies in."""
        self.account, self.was_kept = account, False
        self.path, self.digest, self.size, self.what = path, digest, size, what
        self._directory = directory
        self._file = os.open(path.name, NEW_FILE, 0o600, dir_fd=directory)
        self._sum = new_digest()
        account.take(size)

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """In a thread: append a piece; raises NoRoom."""
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            raise room_error(self.what, self.size, self.path.parent, error) from None
        self._sum.update(piece)

    def sync(self) -> None:
        """In a thread: return when the disk has it; raises OSError."""
        os.fsync(self._file)

    def let_others_read(self) -> None:
        """Let every user of the machine read it, who can enter the directory."""
        os.fchmod(self._file, 0o444)

    @property
    def is_right(self) -> bool:
        """Whether what was written is what was announced."""
        return self._sum.digest() == self.digest

    def close_and_clear(self) -> None:
        """Free the descriptor, and the file unless it was kept."""
        os.close(self._file)
        if not self.was_kept:
            self.account.release(self.size)
        with contextlib.suppress(OSError):
            os.unlink(self.path.name, dir_fd=self._directory)
