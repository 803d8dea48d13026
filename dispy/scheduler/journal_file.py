"""A journal's rows on disk: an SQLite database, and a file for each row that carries much.

All of it waits for the disk, in a thread, one call at a time. A row's own file is there before the
row is, and goes after it; what a kill leaves between is removed by the next `load`.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from dispy.model.errors import DispyError
from dispy.scheduler.journal_entries import Payloads
from dispy.scheduler.journal_form import Stored, restore, restore_head
from dispy.scheduler.journal_rows import Found
from dispy.system import database
from dispy.system.directories import open_private, sync_directory
from dispy.system.locking import try_lock

if TYPE_CHECKING:
    import sqlite3

logger = logging.getLogger("dispy.scheduler")

FORMAT = 1  # of the rows; a newer dispy knows all older ones
# What makes each format of the one before it. An older dispy refuses what it does not know.
_STEPS = (
    "CREATE TABLE entry (number INTEGER PRIMARY KEY, kind INTEGER NOT NULL, "
    "head BLOB NOT NULL, size INTEGER NOT NULL, checksum INTEGER NOT NULL, rest BLOB)",
)
_INSERT = "INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)"
PAGE_BYTES = 32 * 1024
LOG_BYTES = 64 * 1024 * 1024  # of its log, after which it is carried over into the database
CACHE_BYTES = 16 * 1024 * 1024
SLACK_BYTES = 16 * 1024 * 1024  # of free pages that are kept for what comes, and a quarter of all
TRIM_PAGES = 256  # that are given back at once
_SETTINGS = (
    f"page_size={PAGE_BYTES}",
    "auto_vacuum=INCREMENTAL",
    "locking_mode=EXCLUSIVE",  # the directory has one user, which its lock sees to
    "journal_mode=WAL",
    "secure_delete=OFF",  # which Debian's writes zeros with
    f"cache_size=-{CACHE_BYTES // 1024}",
    f"journal_size_limit={LOG_BYTES}",
    f"wal_autocheckpoint={LOG_BYTES // PAGE_BYTES}",
)


class NewerJournal(DispyError):
    """A newer dispy has written it."""


class JournalFile:
    """Owns a directory, which nobody else uses until `close`. Raises OSError and sqlite3.Error."""

    def __init__(self, directory: str, outlive_power: bool) -> None:
        """outlive_power: a commit waits until the disk has it, not the system alone."""
        self._directory = os.path.abspath(directory)
        self.path = os.path.join(self._directory, "journal.sqlite")
        self._beside = os.path.join(self._directory, "beside")
        self._outlive_power = outlive_power
        self._lock = -1
        self._open: sqlite3.Connection | None = None
        self._with_files: set[int] = set()  # rows that have one

    @property
    def _database(self) -> "sqlite3.Connection":
        assert self._open is not None, "it was opened by `lock`, and not closed"
        return self._open

    def lock(self) -> None:
        """Take possession of the directory, which is made if need be; raises DispyError, too."""
        for directory in (self._directory, self._beside):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            os.chmod(directory, 0o700)
        path = os.path.join(self._directory, "lock")
        self._lock = open_private(path)
        if not try_lock(self._lock):
            raise DispyError(
                f"another scheduler keeps its journal in {self._directory}: end it, or give this "
                f"one a directory of its own"
            )

    def open(self) -> None:
        """Open the database, or make it. Raises NewerJournal, too."""
        self._open = self._connect(self.path)

    def _connect(self, path: str) -> "sqlite3.Connection":
        power = "FULL" if self._outlive_power else "NORMAL"
        opened = database.open_database(path, (*_SETTINGS, f"synchronous={power}"))
        try:
            ((version,),) = opened.execute("PRAGMA user_version")
            if version > FORMAT:
                raise NewerJournal(
                    f"{path} was written by a newer dispy: its format is {version}, and this dispy "
                    f"knows those up to {FORMAT}. Use that dispy, or another directory"
                )
            if version < FORMAT:
                with database.change(opened):
                    for step in _STEPS[version:]:
                        opened.execute(step)
                    opened.execute(f"PRAGMA user_version={FORMAT}")
        except BaseException:
            opened.close()
            raise
        return opened

    def load(self) -> Iterator[Found]:
        """Check the database, then yield its rows in order; raises ValueError for damage, too."""
        ((said,),) = self._database.execute("PRAGMA quick_check(1)")
        if said != "ok":
            raise ValueError(str(said))
        rows = self._database.execute(
            "SELECT number, kind, head, size, rest IS NULL FROM entry ORDER BY number"
        )
        with contextlib.closing(rows):
            for number, kind, head, size, has_file in rows:
                if has_file:
                    self._with_files.add(number)
                read = partial(self._read, number)
                yield Found(number, kind, restore_head(head), size, read)

    def remove_left_over(self) -> None:
        """Remove the files of rows that are not there."""
        for name in os.listdir(self._beside):
            if not (name.isdecimal() and int(name) in self._with_files):
                os.unlink(os.path.join(self._beside, name))

    def begin_anew(self) -> str:
        """Put aside what cannot be read, with its files, and begin with nothing; return its new
        path."""
        self._close_database()
        aside = database.put_aside(self.path)
        if os.listdir(self._beside):
            os.rename(self._beside, f"{aside}-beside")
            os.mkdir(self._beside, 0o700)
        self._with_files.clear()
        self.open()
        return aside

    def rescue(self, needed: Iterable[int]) -> tuple[str, int]:
        """Begin anew with those rows that can be read of a damaged database; return the new path of
        that, and how many are lost."""
        draft, lost = f"{self.path}.draft", 0
        database.remove(draft)
        with contextlib.closing(self._connect(draft)) as made, database.change(made):
            for number in sorted(needed):
                try:
                    row = self._database.execute(
                        "SELECT * FROM entry WHERE number = ?", (number,)
                    ).fetchone()
                    restore_head(row[2])
                except Exception:  # whatever is not as it was
                    lost += 1
                else:
                    made.execute(_INSERT, row)
        self._close_database()
        aside = database.put_aside(self.path)
        os.rename(draft, self.path)
        self.open()
        return aside, lost

    def write(self, rows: Sequence[Stored], dead: Iterable[int]) -> None:
        """Add rows and remove others: all of it or, with an exception, nothing."""
        written: list[int] = []
        try:
            for row in rows:
                if row.has_file:
                    written.append(row.number)
                    self._write_beside(row)
            if written and self._outlive_power:
                sync_directory(self._beside)
            with database.change(self._database) as changed:
                changed.executemany(
                    _INSERT,
                    map(_values, rows),
                )
                changed.executemany(
                    "DELETE FROM entry WHERE number BETWEEN ? AND ?", _ranges(sorted(dead))
                )
        except BaseException:
            self._unlink(written)  # a full disk may need that room
            raise
        self._with_files.update(written)
        if self._with_files:
            gone = self._with_files.intersection(dead)
            self._unlink(gone)
            self._with_files -= gone

    def _write_beside(self, row: Stored) -> None:
        descriptor = open_private(self._path_of(row.number), empty=True)
        with open(descriptor, "wb", buffering=0) as file:
            for piece in row.rest:
                view = memoryview(piece).cast("B")
                while view:
                    view = view[file.write(view) :]
            if self._outlive_power:
                os.fsync(descriptor)

    def _path_of(self, number: int) -> str:
        return os.path.join(self._beside, str(number))

    def _unlink(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            with contextlib.suppress(OSError):  # the next `load` tries again
                os.unlink(self._path_of(number))

    def read(self, numbers: Sequence[int]) -> dict[int, Payloads]:
        """Return what these rows carry; left out are those that are not there any more, and those
        that can never be read, which is told in the log."""
        found: dict[int, Payloads] = {}
        for number in numbers:
            try:
                found[number] = self._read(number)
            except KeyError:
                pass  # nobody needs it since a moment ago
            except Exception as error:
                if not is_damage(error) and not isinstance(error, ValueError | FileNotFoundError):
                    raise
                logger.error("row %s of %s cannot be read: %s", number, self.path, error)
        return found

    def _read(self, number: int) -> Payloads:
        row = self._database.execute(
            "SELECT rest, checksum FROM entry WHERE number = ?", (number,)
        ).fetchone()
        if row is None:
            raise KeyError(number)
        rest, check = row
        if rest is None:
            with open(self._path_of(number), "rb") as file:
                rest = file.read()
        return restore(rest, check)

    def trim(self) -> bool:
        """Give some free pages back, if there are many; return whether there are more of them."""
        ((pages,),) = self._database.execute("PRAGMA page_count")
        ((free,),) = self._database.execute("PRAGMA freelist_count")
        surplus = free - max(SLACK_BYTES // PAGE_BYTES, (pages - free) // 4)
        if surplus <= 0:
            return False
        # `execute` gives one page back, as it takes each of them for a row, and stops at the first.
        self._database.executescript(f"PRAGMA incremental_vacuum({min(surplus, TRIM_PAGES)})")
        if surplus > TRIM_PAGES:
            return True
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return False

    def close(self) -> None:
        """Close the database, and let the directory go."""
        self._close_database()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _close_database(self) -> None:
        if self._open is not None:
            opened, self._open = self._open, None
            opened.close()


def _values(row: Stored) -> tuple[int, int, bytes, int, int, bytes | None]:
    rest = None if row.has_file else b"".join(row.rest)
    return row.number, row.kind, row.head, row.rest_bytes, row.check(), rest


def is_damage(error: BaseException) -> bool:
    """Say whether an error means that the database is none, or none any more."""
    import sqlite3

    # What is passing, as a full disk, has a class of its own.
    return type(error) is sqlite3.DatabaseError


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run in sorted numbers."""
    first = last = None
    for number in numbers:
        if first is None or last is None:
            first = number
        elif number != last + 1:
            yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last
