"""SQLite files that are one user's own, and whole whenever their process is killed.

All of it may wait for a disk. `sqlite3` is imported when the first is opened: it takes 10 ms.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dispy.system.directories import open_private

if TYPE_CHECKING:
    import sqlite3

BESIDE = ("", "-wal", "-shm", "-journal")


def open_database(path: str, settings: Sequence[str]) -> "sqlite3.Connection":
    """Open a file, or make it for this user alone, with these PRAGMAs.

    For any thread, one at a time; without transactions of its own. Raises OSError and
    sqlite3.Error.
    """
    import sqlite3

    os.close(open_private(path))
    made = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        for setting in settings:
            made.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        made.close()
        raise
    return made


@contextlib.contextmanager
def change(database: "sqlite3.Connection") -> "Iterator[sqlite3.Connection]":
    """Make what is done within one transaction: all of it or, with an exception, nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield database
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(Exception):  # it has ended itself: a full disk
            database.execute("ROLLBACK")
        raise


def put_aside(path: str) -> str:
    """Rename a closed file that cannot be read, and what belongs to it; return its new path."""
    wanted = aside = f"{path}.damaged-{int(time.time())}"
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = f"{wanted}-{number}"
    for beside in BESIDE:
        with contextlib.suppress(OSError):
            os.replace(f"{path}{beside}", f"{aside}{beside}")
    return aside


def remove(path: str) -> None:
    """Remove a closed file, and what belongs to it."""
    for beside in BESIDE:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{beside}")
