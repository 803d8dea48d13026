"""The file by which the results of a program that died are found again, as it is on the disk.

Never more open than to its user, from its first instant; whole whenever its program is killed;
locked for as long as that lives.
"""

import contextlib
import logging
import os
import stat
from collections.abc import Sequence
from typing import NoReturn

from dispy.client.recovery_form import Content, NoRecoveryFile, parse
from dispy.model.errors import DispyError
from dispy.system.locking import try_lock
from dispy.system.processes import disconnect

logger = logging.getLogger("dispy.client")

SIZE_LIMIT = 64 * 1024 * 1024  # bytes that are read: far above what any program writes


class InUse(DispyError):
    """Its program lives, or another recovery uses the file."""


class RecoveryFile:
    """One that is open and locked. Used by one thread at a time; it may wait for the disk."""

    def __init__(self, path: str) -> None:
        self.path, self.size = path, 0  # bytes
        self._descriptor = self._draft = -1
        self._draft_path = ""

    @classmethod
    def create(cls, path: str, data: bytes, numbered: bool = False) -> "RecoveryFile":
        """Make a file that has this content from the first moment on.

        numbered: where there is one already, put a number behind the name. Raises OSError;
        FileExistsError where it is there.
        """
        made, wanted, number = cls(path), path, 1
        made._write_draft(data)
        while True:
            try:
                made._put(path)
                break
            except FileExistsError:
                number += 1
                if not numbered or number > 1000:
                    made.close(remove=True)
                    raise
                path = f"{wanted}_{number}"
            except OSError:
                made.close(remove=True)
                raise
        made.path, made.size = path, len(data)
        made._descriptor, made._draft = made._draft, -1
        # Now, not before: a busy disk takes its time, and a kill must not find the draft alone.
        os.fsync(made._descriptor)
        return made

    @classmethod
    def try_out(cls, path: str) -> None:
        """See that one can be made; raises OSError.

        Nothing has this name meanwhile: who is killed then would leave what is no recovery file,
        and stands in the way of the next one.
        """
        trial = cls(path)
        trial._write_draft(b"")
        trial._drop_draft()

    @classmethod
    def open(cls, path: str) -> "RecoveryFile":
        """Open one that is there, and lock it; raises NoRecoveryFile and InUse."""
        path = os.path.realpath(path)
        opened = cls(path)
        try:
            opened._descriptor = _open(path)
            state = os.fstat(opened._descriptor)
            _check(path, state)
            if not try_lock(opened._descriptor) or not _is_same(path, state):
                raise InUse(
                    f"{path} is in use: its program still runs, or somebody else recovers from it. "
                    f"Wait for that, or end it"
                )
        except OSError as error:
            opened.close(remove=False)
            raise NoRecoveryFile(f"{path} cannot be opened: {error.strerror}") from None
        except BaseException:
            opened.close(remove=False)
            raise
        opened.size = state.st_size
        return opened

    def read(self) -> Content:
        """Return what it says; raises NoRecoveryFile."""
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            data = b""
            while piece := os.read(self._descriptor, 1 << 20):
                data += piece
        except OSError as error:
            raise NoRecoveryFile(f"{self.path} cannot be read: {error.strerror}") from None
        return parse(data, self.path)

    def append(self, lines: bytes) -> None:
        """Add lines, and return when the disk has them; raises OSError."""
        _write(self._descriptor, lines)
        self.size += len(lines)
        os.fsync(self._descriptor)

    def rewrite(self, data: bytes) -> None:
        """Replace all of it at once; it stays locked throughout. Raises OSError."""
        self._write_draft(data)
        try:
            os.fsync(self._draft)
            os.replace(self._draft_path, self.path)
        except OSError:
            self._drop_draft()
            raise
        before, self._descriptor, self._draft = self._descriptor, self._draft, -1
        _close(before)
        self.size = len(data)

    def close(self, remove: bool) -> None:
        """Give up the lock; `remove`: the file is not needed any more."""
        if self._draft >= 0:
            self._drop_draft()
        if self._descriptor >= 0:
            if remove:
                with contextlib.suppress(OSError):  # somebody else has removed it
                    os.unlink(self.path)
            _close(self._descriptor)
            self._descriptor = -1

    def _write_draft(self, data: bytes) -> None:
        """Write and lock a file beside the path, under a name that nobody takes for one."""
        where, name = os.path.split(self.path)
        self._draft_path = os.path.join(where, f".{name}.{os.urandom(4).hex()}")
        self._draft = _open(self._draft_path, os.O_CREAT | os.O_EXCL)
        try:
            try_lock(self._draft)
            _write(self._draft, data)
        except BaseException:
            self._drop_draft()
            raise

    def _put(self, path: str) -> None:
        """Give the draft its name, unless there is such a file; raises OSError."""
        try:
            os.link(self._draft_path, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links: two programs would have to be very quick
            if os.path.lexists(path):
                raise FileExistsError from None
            os.rename(self._draft_path, path)
        else:
            os.unlink(self._draft_path)

    def _drop_draft(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._draft_path)
        _close(self._draft)
        self._draft = -1


def make_room(path: str) -> None:
    """See to it that a file of this name can be made, now or later.

    What a program that died has left there is kept under a name with a number. Raises DispyError
    for a file that is none of ours or whose program lives, and where no file can be made.
    """
    with contextlib.suppress(FileNotFoundError):
        os.lstat(path)
        before = RecoveryFile.open(path)
        try:
            before.read()
            _set_aside(path)
        finally:
            before.close(remove=False)
    try:
        RecoveryFile.try_out(path)
    except OSError as error:
        raise DispyError(f"recover_file: cannot create {path}: {error.strerror}") from None


def _set_aside(path: str) -> None:
    number = 1
    while os.path.lexists(f"{path}.{number}"):
        number += 1
    os.rename(path, f"{path}.{number}")
    logger.warning(
        "%s is of a program that has died: it is kept as %s.%d; `dispy recover` brings its results",
        path, path, number,
    )  # fmt: skip


# Descriptors of the files that this process has locked. A forked child has copies of them, and
# would keep the locks for as long as it lives.
_locked: set[int] = set()


def _open(path: str, flags: int = 0) -> int:
    descriptor = os.open(path, os.O_RDWR | flags | getattr(os, "O_CLOEXEC", 0), 0o600)
    _locked.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    _locked.discard(descriptor)
    os.close(descriptor)


def _give_up_copies() -> None:
    for descriptor in _locked:
        disconnect(descriptor)
    _locked.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_give_up_copies)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _check(path: str, state: os.stat_result) -> None:
    """Raise NoRecoveryFile for what no program of ours has left: it names whom results come from,
    and these are unpickled."""
    if not stat.S_ISREG(state.st_mode):
        _refuse(path, "it is not a file")
    if os.name == "posix" and state.st_uid not in (0, os.geteuid()):
        _refuse(path, "it belongs to another user")
    if os.name == "posix" and state.st_mode & 0o077:
        _refuse(path, f"others can read or write it, and dispy leaves none so: chmod 600 {path}")
    if state.st_size > SIZE_LIMIT:
        _refuse(path, f"it has {state.st_size} bytes, which none of dispy has")


def _refuse(path: str, why: str) -> NoReturn:
    raise NoRecoveryFile(f"{path} cannot be used: {why}")


def _is_same(path: str, state: os.stat_result) -> bool:
    """Say whether a file still has its name: its program may have rewritten or removed it."""
    try:
        return os.path.samestat(os.stat(path), state)
    except OSError:
        return False


def newest(directory: str) -> Sequence[str]:
    """Return the paths of files that programs have left there by themselves, the newest first."""
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if entry.name.startswith("_dispy_"):
                with contextlib.suppress(OSError):
                    found.append((entry.stat().st_mtime_ns, entry.path))
    return [path for _, path in sorted(found, reverse=True)]
