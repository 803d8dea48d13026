"""What is owed to owners that are away or slow, on disk: one database in the node's directory.

Each call does its work where it is made, which is a thread, and one at a time: see `Backlog`. A
frame is one row with its head, and pieces with what its buffers hold. When nothing is left the
file goes.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent
import msgpack
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool

from dispy.net.threads import in_thread
from dispy.node.directories import OWED
from dispy.protocol.frames import Shared
from dispy.system.database import change, open_database, put_aside, remove

if TYPE_CHECKING:
    import sqlite3

    from dispy.node.owed import Owed

logger = logging.getLogger("dispy.node")

PIECE_BYTES = 32 * 1024 * 1024  # of one value in the database, whose limit is 1 GB
FINISH_SECONDS = 5.0
LOG_BYTES = 16 * 1024 * 1024  # of its log that are kept for the next time
# A commit outlives the node's death; that of the machine may cost the last ones.
SETTINGS = ("journal_mode=WAL", "synchronous=NORMAL", f"journal_size_limit={LOG_BYTES}")
_TABLES = """
CREATE TABLE IF NOT EXISTS owner (
    id INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, name TEXT NOT NULL, gone REAL NOT NULL);
CREATE TABLE IF NOT EXISTS frame (
    id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, number INTEGER NOT NULL,
    weight INTEGER NOT NULL, head BLOB NOT NULL, UNIQUE (owner, number));
CREATE TABLE IF NOT EXISTS piece (
    frame INTEGER NOT NULL, place INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (frame, place)) WITHOUT ROWID;
"""


class Left(NamedTuple):
    """What an earlier node owed somebody: those numbered 1 to `frames`, of `weight` bytes."""

    identity: str
    name: str
    frames: int
    weight: int
    gone: float  # second since the epoch from which it was away


class Spilled:
    """Owns the file; `call` is how the loop uses the rest."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / OWED
        self._lock = BoundedSemaphore(1)
        self._open: sqlite3.Connection | None = None
        self._later = Pool()  # of greenlets for which nobody waits

    def call(self, method: Any, *arguments: Any) -> Any:
        """Run a method in a thread, after those that were called before; raise what it raises.

        Whoever waits for it may be killed: the next one waits all the same.
        """
        value, error = gevent.spawn(self._in_turn, method, arguments).get()
        if error is not None:
            raise error
        return value

    def soon(self, method: Any, *arguments: Any) -> None:
        """The same, and nobody waits; what it raises is logged."""

        def run() -> None:
            _, error = self._in_turn(method, arguments)
            if error is not None:
                logger.warning("what nobody wants stays in %s: %s", self._path, error)

        self._later.spawn(run)

    def finish(self) -> None:
        """Wait for all that is on its way, for a moment, and close the file."""
        self._later.join(timeout=FINISH_SECONDS)
        self.call(self.close)

    def _in_turn(self, method: Any, arguments: Any) -> tuple[Any, BaseException | None]:
        with self._lock:
            try:
                return in_thread(method, *arguments), None
            except BaseException as error:  # for whoever waits
                return None, error

    @property
    def is_there(self) -> bool:
        """Whether there is a file."""
        return self._path.exists()

    def _database(self) -> "sqlite3.Connection":
        if self._open is None:
            made = open_database(str(self._path), SETTINGS)
            try:
                made.executescript(_TABLES)
            except BaseException:
                made.close()
                raise
            self._open = made
        return self._open

    def _change(self) -> "AbstractContextManager[sqlite3.Connection]":
        return change(self._database())

    # -- all of these in a thread

    def left(self) -> list[Left]:
        """Return what an earlier node has left, numbered anew; what cannot be read is put aside."""
        if not self.is_there:
            return []
        try:
            return self._read_left()
        except Exception as error:  # whatever a file may hold that is no database of ours
            self._put_aside(error)
            return []

    def _read_left(self) -> list[Left]:
        found: list[Left] = []
        with self._change() as database:
            for row, identity, name, gone in database.execute("SELECT * FROM owner").fetchall():
                rows = database.execute(
                    "SELECT id, weight FROM frame WHERE owner = ? ORDER BY number", (row,)
                ).fetchall()
                # Twice, because each number may be there already.
                for sign in (-1, 1):
                    database.executemany(
                        "UPDATE frame SET number = ? WHERE id = ?",
                        [(sign * at, frame) for at, (frame, _) in enumerate(rows, 1)],
                    )
                weight = sum(int(weight) for _, weight in rows)
                found.append(Left(str(identity), str(name), len(rows), weight, float(gone)))
        return found

    def _put_aside(self, error: Exception) -> None:
        self.close()
        aside = put_aside(str(self._path))
        logger.warning(
            "results that an earlier node kept for its clients cannot be read (%s); the file is "
            "now %s", error, aside,
        )  # fmt: skip

    def write(self, identity: str, name: str, gone: float, group: "Sequence[Owed]") -> None:
        """Keep these frames of an owner, all or none."""
        was_there = self.is_there
        try:
            self._write(identity, name, gone, group)
        except BaseException:
            if not was_there:  # nothing is in it, and nobody would remove it
                self.close()
                remove(str(self._path))
            raise

    def _write(self, identity: str, name: str, gone: float, group: "Sequence[Owed]") -> None:
        with self._change() as database:
            row = self._row(database, identity, name, gone)
            # Of a write before, whose end nobody has heard of.
            self._delete(database, "owner = ? AND number >= ?", (row, group[0].number))
            for kind, (number, *body), buffers, weight in group:
                sizes = [memoryview(b).nbytes for b in buffers if not isinstance(b, Shared)]
                assert len(sizes) == len(buffers), "memory files are a local node's alone"
                frame = database.execute(
                    "INSERT INTO frame (owner, number, weight, head) VALUES (?, ?, ?, ?)",
                    (row, number, weight, msgpack.packb([kind, body, sizes])),
                ).lastrowid
                database.executemany(
                    "INSERT INTO piece VALUES (?, ?, ?)",
                    ((frame, place, data) for place, data in enumerate(_pieces(buffers))),
                )

    def _row(self, database: "sqlite3.Connection", identity: str, name: str, gone: float) -> int:
        database.execute(
            "INSERT INTO owner (identity, name, gone) VALUES (?, ?, ?) "
            "ON CONFLICT (identity) DO UPDATE SET gone = excluded.gone",
            (identity, name, gone),
        )
        found = database.execute("SELECT id FROM owner WHERE identity = ?", (identity,))
        return int(found.fetchone()[0])

    def seen(self, identity: str, gone: float) -> None:
        """Take note of when an owner was there last, if something is kept for it."""
        if self.is_there:
            with self._change() as database:
                database.execute("UPDATE owner SET gone = ? WHERE identity = ?", (gone, identity))

    def read(self, identity: str, after: int, last: int, most: int) -> "list[Owed]":
        """Return an owner's frames after a number and up to `last`, about `most` bytes of them,
        and one at least, if there is any."""
        from dispy.node.owed import Owed

        database, found, taken = self._database(), [], 0
        rows = database.execute(
            "SELECT frame.id, number, weight, head FROM frame, owner WHERE identity = ? AND "
            "frame.owner = owner.id AND number > ? AND number <= ? ORDER BY number",
            (identity, after, last),
        )
        with contextlib.closing(rows):
            for frame, number, weight, head in rows:
                kind, body, sizes = msgpack.unpackb(head, strict_map_key=False)
                data = [
                    piece
                    for (piece,) in database.execute(
                        "SELECT data FROM piece WHERE frame = ? ORDER BY place", (frame,)
                    )
                ]
                found.append(Owed(kind, [number, *body], _joined(sizes, data), weight))
                taken += weight
                if taken >= most:
                    break
        return found

    def forget(self, identity: str, number: int) -> int:
        """Delete an owner's frames up to a number, and return how many bytes they took; the file
        goes with the last of all."""
        if not self.is_there:
            return 0
        with self._change() as database:
            found = database.execute("SELECT id FROM owner WHERE identity = ?", (identity,))
            row = found.fetchone() or (0,)  # which nobody has
            where = "owner = ? AND number <= ?"
            ((weight,),) = database.execute(
                f"SELECT COALESCE(SUM(weight), 0) FROM frame WHERE {where}", (row[0], number)
            )
            self._delete(database, where, (row[0], number))
            database.execute(
                "DELETE FROM owner WHERE id = ? AND NOT EXISTS "
                "(SELECT 1 FROM frame WHERE frame.owner = owner.id)",
                row,
            )
            empty = database.execute("SELECT 1 FROM owner LIMIT 1").fetchone() is None
        if empty:
            self.close()
            remove(str(self._path))
        return int(weight)

    def _delete(self, database: "sqlite3.Connection", where: str, values: tuple[int, int]) -> None:
        frames = f"SELECT id FROM frame WHERE {where}"
        database.execute(f"DELETE FROM piece WHERE frame IN ({frames})", values)
        database.execute(f"DELETE FROM frame WHERE {where}", values)

    def close(self) -> None:
        """Close the file; it stays."""
        if self._open is not None:
            opened, self._open = self._open, None
            opened.close()


def _pieces(buffers: Sequence[Any]) -> Iterator[memoryview]:
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        for at in range(0, view.nbytes, PIECE_BYTES):
            yield view[at : at + PIECE_BYTES]


def _joined(sizes: list[int], pieces: list[bytes]) -> list[bytes]:
    """Return the buffers that were cut into pieces."""
    buffers, at = [], 0
    for size in sizes:
        count = -(-size // PIECE_BYTES)
        own = pieces[at : at + count]
        buffers.append(own[0] if count == 1 else b"".join(own))
        at += count
        if len(buffers[-1]) != size:
            raise ValueError("a frame is not whole")
    return buffers
