"""The journal of a shared scheduler: what a SIGKILL must not take from it.

Entries are recorded on the hub and written by a thread, in groups: while one is being committed the
next one gathers. What is recorded between two calls of `commit` is written together or not at all,
and everything in the order in which it was recorded.
"""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from dispy.model.errors import DispyError
from dispy.net.threads import in_thread
from dispy.scheduler.journal_entries import Entry, Payloads, Remembered
from dispy.scheduler.journal_file import JournalFile, NewerJournal, is_damage
from dispy.scheduler.journal_form import Stored, restore, store
from dispy.scheduler.journal_rows import Rows

logger = logging.getLogger("dispy.scheduler")
Key = TypeVar("Key", bound=Hashable)

GROUP_BYTES = 8 * 1024 * 1024  # after which the next group begins: some 10 ms of writing
RETRY_SECONDS = 1.0  # after a write that failed
CLOSE_SECONDS = 10.0  # that a disk which fails has until the end
TRIM_EVERY = 32  # groups, where one follows the other


class Journal(Protocol):
    """What keeps entries, wherever that is. Used on the hub of its scheduler."""

    def load(self) -> Remembered:
        """Return what was recorded before, once, before anything else; waits.

        Raises DispyError where the journal cannot be used, with what to do.
        """

    def record(self, entry: Entry) -> None:
        """Add an entry, which is written with the next `commit`; never waits."""

    def commit(self, then: Callable[[], None]) -> None:
        """Have `then` called on the hub, never at once, when all that was recorded is committed."""

    def payloads(self, batches: Sequence[int]) -> dict[int, Payloads]:
        """Return what submissions carry, by batch; waits.

        What is not in it cannot be read any more: its jobs are to be given up. Raises DispyError
        where it may be read later.
        """

    def finals(self, slot: int, numbers: Sequence[int]) -> dict[int, Payloads]:
        """Return columns and buffers of Finals that are not taken, by number; waits."""

    def close(self) -> None:
        """Write what was committed, and let go of the file; waits."""


@dataclass(slots=True)
class _Group:
    """What is written at once, or a part of that; rows that it brings are not among its dead."""

    rows: dict[int, Stored] = field(default_factory=dict)
    dead: list[int] = field(default_factory=list)
    then: list[Callable[[], None]] = field(default_factory=list)
    weight: int = 0

    def add(self, part: "_Group") -> None:
        """Append what comes later."""
        self.rows.update(part.rows)
        self.weight += part.weight
        self.then += part.then
        for number in part.dead:
            self.remove(number)

    def remove(self, number: int) -> None:
        """Remove a row, that of an earlier group or one that nobody need ever write."""
        row = self.rows.pop(number, None)
        if row is None:
            self.dead.append(number)
        else:
            self.weight -= row.weight


class SqliteJournal(Journal):
    """One in a directory of its own, which only this user can look into.

    failed: told on the hub why nothing is committed for now, each time that the reason changes, and
    "" when it is again; what was recorded waits. outlive_power: a commit outlives the machine's
    death too, and takes as long as its disk does.
    """

    def __init__(
        self, directory: str, failed: Callable[[str], None], outlive_power: bool = False
    ) -> None:
        self._file = JournalFile(directory, outlive_power)
        self._failed = failed
        self._why = ""
        self._rows = Rows()
        self._turn = BoundedSemaphore(1)  # of whoever uses the file
        self._part = _Group()  # recorded since the last `commit`
        self._groups: deque[_Group] = deque()  # of which the first may be on its way
        self._writing: gevent.Greenlet[..., None] | None = None
        self._closing = Event()

    # -- before anything else

    def load(self) -> Remembered:
        """See Journal."""
        try:
            with self._turn:
                self._rows, known = in_thread(self._load)
        except DispyError:
            in_thread(self._file.close)
            raise
        except Exception as error:
            in_thread(self._file.close)
            raise DispyError(
                f"the journal {self._file.path} cannot be used: {_tell(error)}"
            ) from error
        if known.lost:
            logger.error("%s", known.lost)
        return known

    def _load(self) -> tuple[Rows, Remembered]:
        import sqlite3

        self._file.lock()
        try:
            self._file.open()
            rows, known = self._replay()
        except (NewerJournal, OSError, sqlite3.OperationalError):
            raise
        except Exception as error:  # whatever a file may hold that is no journal of ours
            aside = self._file.begin_anew()
            rows, known = self._replay()
            known.lost = (
                f"the journal of the earlier scheduler cannot be read ({_tell(error)}), so its "
                f"clusters, jobs and results are not known any more; the file is now {aside}"
            )
        self._file.remove_left_over()
        return rows, known

    def _replay(self) -> tuple[Rows, Remembered]:
        rows, known = Rows(), Remembered()
        for row in self._file.load():
            rows.replay(row, known)
        rows.recall(known)
        return rows, known

    # -- what is recorded

    def record(self, entry: Entry) -> None:
        """See Journal."""
        made, dead = self._rows.take(entry)
        for row in made:
            stored = self._part.rows[row.number] = store(row)
            self._part.weight += stored.weight
        for number in dead:
            self._part.remove(number)

    def commit(self, then: Callable[[], None]) -> None:
        """See Journal."""
        assert not self._closing.is_set(), "nothing is recorded after the end"
        part, self._part = self._part, _Group()
        part.then.append(then)
        # The first group may be with the thread.
        if len(self._groups) > 1 and self._groups[-1].weight < GROUP_BYTES:
            self._groups[-1].add(part)
        else:
            self._groups.append(part)
        if self._writing is None:
            self._writing = gevent.spawn(self._write_all)

    def _write_all(self) -> None:
        written = 0
        while True:
            while self._groups:
                if self._write(self._groups[0]):
                    for then in self._groups.popleft().then:
                        self._call(then)
                    written += 1
                    if written % TRIM_EVERY == 0:
                        self._trim()
                elif self._closing.wait(RETRY_SECONDS):
                    gevent.sleep(RETRY_SECONDS / 10)
            if not self._trim() and not self._groups:
                break
        self._writing = None

    def _write(self, group: _Group) -> bool:
        if group.rows or group.dead:
            try:
                self._do(self._file.write, list(group.rows.values()), group.dead)
            except Exception as error:
                self._write_failed(error)
                return False
        self._report("")
        return True

    def _write_failed(self, error: Exception) -> None:
        if not is_damage(error):
            self._report(f"the journal {self._file.path} cannot be written: {_tell(error)}")
            return
        waiting = {number for group in self._groups for number in group.rows}
        try:
            aside, lost = self._do(self._file.rescue, self._rows.needed() - waiting)
        except Exception as again:
            self._report(
                f"the journal {self._file.path} is damaged ({_tell(error)}), and cannot be begun "
                f"anew: {_tell(again)}"
            )
        else:
            self._report(
                f"the journal was damaged ({_tell(error)}), and begun anew. {lost} of its rows "
                f"could not be read; a restart will not know them. The old one is now {aside}"
            )

    def _do(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Run a method of the file in a thread, when it is free."""
        with self._turn:
            return in_thread(method, *arguments)

    def _trim(self) -> bool:
        try:
            return bool(self._do(self._file.trim))
        except Exception as error:
            logger.warning("free pages of %s are not given back: %s", self._file.path, error)
            return False

    def _report(self, why: str) -> None:
        if why != self._why:
            self._why = why
            if why:
                logger.error("%s", why)
            else:
                logger.warning("the journal %s is written again", self._file.path)
            self._call(self._failed, why)

    def _call(self, function: Callable[..., None], *arguments: str) -> None:
        try:
            function(*arguments)
        except Exception:  # a fault of whoever asked for it; others wait for the next group
            logger.exception("what follows a commit has failed")

    # -- what is read back

    def payloads(self, batches: Sequence[int]) -> dict[int, Payloads]:
        """See Journal."""
        return self._read(self._rows.batches, batches)

    def finals(self, slot: int, numbers: Sequence[int]) -> dict[int, Payloads]:
        """See Journal."""
        held = {number: (slot, number) for number in numbers}
        found = self._read(self._rows.finals, list(held.values()))
        return {number: found[key] for number, key in held.items() if key in found}

    def _read(self, rows: Mapping[Key, int], wanted: Sequence[Key]) -> dict[Key, Payloads]:
        found: dict[Key, Payloads] = {}
        stored: dict[int, Key] = {}
        for key in wanted:
            if (number := rows.get(key)) is not None:
                if (row := self._unwritten(number)) is not None:
                    found[key] = restore(b"".join(row.rest), row.check())
                else:
                    stored[number] = key
        if stored:
            try:
                read = self._do(self._file.read, list(stored))
            except Exception as error:
                raise DispyError(
                    f"the journal {self._file.path} cannot be read now: {_tell(error)}"
                ) from error
            found |= {stored[number]: payloads for number, payloads in read.items()}
        return found

    def _unwritten(self, number: int) -> Stored | None:
        for group in (*self._groups, self._part):
            if number in group.rows:
                return group.rows[number]
        return None

    def close(self) -> None:
        """See Journal."""
        self._closing.set()
        if (writing := self._writing) is not None:
            writing.join(timeout=CLOSE_SECONDS)
            if not writing.ready():
                logger.error("the journal ends without what it was told last: %s", self._why)
                writing.kill()
        try:
            self._do(self._file.close)
        except Exception as error:
            logger.error("the journal %s does not close: %s", self._file.path, _tell(error))


def _tell(error: Exception) -> str:
    """Return what an error says, without the numbers that Python puts before it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error) or type(error).__name__
