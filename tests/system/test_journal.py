"""The journal's file: private, locked, checked, bounded; and patient where the disk is full."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent.event import Event
from system.trouble import fill

from dispy.model.errors import DispyError
from dispy.scheduler import journal as journal_module
from dispy.scheduler import journal_file, journal_form
from dispy.scheduler.journal import SqliteJournal
from dispy.scheduler.journal_entries import Finals, Given, Heard, Submitted, Taken
from dispy.scheduler.journal_file import NewerJournal

DEADLINE = 30.0  # seconds
PAYLOAD = bytes(1000)
FILES = pytest.mark.usefixtures("files_for_little")
LEAF, OVERFLOW = 13, 0  # with which pages begin that have rows, and what is too long for these
LONG = bytes(range(250)) * 400


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Callable[..., SqliteJournal]]:
    opened: list[SqliteJournal] = []

    def make(failed: Callable[[str], None] = pytest.fail, **more: Any) -> SqliteJournal:
        opened.append(SqliteJournal(str(tmp_path / "journal"), failed, **more))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


@pytest.fixture
def files_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_form, "BESIDE_BYTES", 50_000)


def submitted(batch: int, count: int = 1, buffers: tuple[bytes, ...] = ()) -> Submitted:
    jobs = list(range(batch * 1000, batch * 1000 + count))
    return Submitted(
        batch, 1, jobs, [PAYLOAD] * (count - len(buffers)) + [1] * len(buffers), buffers
    )


def record(journal: SqliteJournal, *entries: Any) -> None:
    """Return when these are committed."""
    done = Event()
    for entry in entries:
        journal.record(entry)
    journal.commit(done.set)
    assert done.wait(DEADLINE)


def execute(journal: SqliteJournal, statement: str) -> Any:
    """Run a statement on the journal's own connection, when nobody uses it; return its rows."""
    return journal._do(lambda: journal._file._database.execute(statement).fetchall())


@FILES
def test_nobody_else_can_look_into_it(
    open_journal: Callable[..., SqliteJournal], tmp_path: Path
) -> None:
    (tmp_path / "journal").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        journal = open_journal()
        journal.load()
        record(journal, submitted(1, 2, (LONG,)))
        found = {path: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    finally:
        os.umask(before)
    assert len(found) >= 5
    assert {mode for path, mode in found.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in found.items() if path.is_file()} == {0o600}


def test_two_schedulers_never_share_it(open_journal: Callable[..., SqliteJournal]) -> None:
    first = open_journal()
    first.load()
    with pytest.raises(DispyError, match="another scheduler keeps its journal in .*/journal"):
        open_journal().load()
    record(first, submitted(1))
    first.close()
    assert open_journal().load().waiting == [1000]


@FILES
def test_with_power_in_mind_nothing_is_committed_before_the_disk_has_it(
    open_journal: Callable[..., SqliteJournal],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    journal = open_journal(outlive_power=True)
    journal.load()
    beside, synced = tmp_path / "journal/beside", []

    def seen(descriptor: int) -> None:
        rows = journal._file._database.execute("SELECT number FROM entry").fetchall()
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), len(rows)))

    monkeypatch.setattr(os, "fsync", seen)
    record(journal, submitted(1, 1, (LONG,)))
    (path,) = beside.iterdir()
    assert synced == [(str(path), 0), (str(beside), 0)]
    assert execute(journal, "PRAGMA synchronous") == [(2,)]  # FULL


def test_while_a_group_is_written_the_next_one_gathers(
    open_journal: Callable[..., SqliteJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal()
    journal.load()
    writes: list[int] = []
    write = journal._file.write

    def counted(rows: Any, dead: Any) -> None:
        writes.append(len(rows))
        write(rows, dead)

    monkeypatch.setattr(journal._file, "write", counted)
    called: list[int] = []
    for number in range(1, 501):
        journal.record(submitted(number))
        journal.commit(lambda number=number: called.append(number))
        assert not called  # nobody waits, and nobody is called at once
    record(journal)
    assert called == list(range(1, 501))
    assert writes == [1, 499]


def test_a_group_is_bounded(
    open_journal: Callable[..., SqliteJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "GROUP_BYTES", 10_000)
    journal = open_journal()
    journal.load()
    for number in range(1, 31):
        journal.record(submitted(number))
        journal.commit(lambda: None)
    assert len(journal._groups) == 4
    record(journal)
    assert list(journal._rows.batches) == list(range(1, 31))


def test_what_was_not_committed_as_a_whole_is_not_written(
    open_journal: Callable[..., SqliteJournal],
) -> None:
    journal = open_journal()
    journal.load()
    done = Event()
    for number, then in enumerate([lambda: None, lambda: None, done.set], 1):
        journal.record(submitted(number))
        journal.commit(then)
    journal.record(submitted(4))  # while others wait for the thread
    assert done.wait(DEADLINE)
    journal.record(submitted(5))
    journal.close()
    assert open_journal().load().waiting == [1000, 2000, 3000]


def test_a_fault_of_who_is_called_stops_nobody_else(
    open_journal: Callable[..., SqliteJournal], caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal()
    journal.load()
    journal.record(submitted(1))
    journal.commit(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
    record(journal, submitted(2))
    assert "ZeroDivisionError" in caplog.text


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("a disk can be mounted by root alone")
    directory = tmp_path / "journal"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)


@FILES
def test_a_full_disk_is_told_and_loses_nothing(
    small_disk: Path,
    open_journal: Callable[..., SqliteJournal],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.02)
    told: list[str] = []
    full, again = Event(), Event()

    def failed(why: str) -> None:
        told.append(why)
        (full if why else again).set()

    journal = open_journal(failed)
    journal.load()
    record(journal, submitted(1))
    filling = fill(small_disk)
    called: list[int] = []
    for number in range(2, 6):
        journal.record(submitted(number, 40, (LONG,) if number == 3 else ()))
        journal.commit(lambda number=number: called.append(number))
    assert full.wait(DEADLINE)
    assert len(journal.payloads([1, 3, 5])) == 3  # from the disk, and from memory
    assert not called
    filling.unlink()
    assert again.wait(DEADLINE)
    record(journal)
    assert called == [2, 3, 4, 5]
    assert told[-1] == ""
    assert all("full" in why or "No space left" in why for why in told[:-1])
    journal.close()
    journal = open_journal()
    known = journal.load()
    assert list(known.batches) == [1, 2, 3, 4, 5]
    assert journal.payloads([3])[3].buffers == [LONG]
    journal.close()


def scribble(path: Path, page: int) -> None:
    """Write nonsense over a page of a database."""
    with path.open("r+b") as file:
        file.seek(page * journal_file.PAGE_BYTES)
        file.write(b"nonsense" * (journal_file.PAGE_BYTES // 8))


@pytest.mark.parametrize("damage", ["pages", "map", "header", "no database", "row"])
def test_a_damaged_journal_is_put_aside_and_said(
    open_journal: Callable[..., SqliteJournal], tmp_path: Path, damage: str
) -> None:
    journal = open_journal()
    journal.load()
    record(journal, submitted(11, 1, (LONG * 6,)))
    record(journal, *(submitted(number, 100, (LONG,)) for number in range(1, 11)))
    if damage == "row":
        change = "substr(head, 1, length(head) - 5) || x'07' || substr(head, -4)"
        execute(journal, f"UPDATE entry SET head = CAST({change} AS BLOB) WHERE number = 5")
    journal.close()
    path = tmp_path / "journal/journal.sqlite"
    if damage == "pages":
        starts = path.read_bytes()[:: journal_file.PAGE_BYTES]
        scribble(path, [at for at, start in enumerate(starts) if start == OVERFLOW][-5])
    elif damage == "map":
        scribble(path, 1)  # of who needs which page, which no load looks at
    elif damage == "header":
        scribble(path, 0)
    elif damage == "no database":
        path.write_text("something else\n" * 1000)
    journal = open_journal()
    known = journal.load()
    assert known.waiting == []
    assert known.batches == {}
    (aside,) = (tmp_path / "journal").glob("journal.sqlite.damaged-*[0-9]")
    assert str(aside) in known.lost
    assert "cannot be read" in known.lost
    assert len(list(Path(f"{aside}-beside").iterdir())) == 1
    assert list((tmp_path / "journal/beside").iterdir()) == []
    record(journal, submitted(1, 3, (LONG,)))
    journal.close()
    journal = open_journal()
    known = journal.load()
    assert (known.lost, known.waiting) == ("", [1000, 1001, 1002])
    assert journal.payloads([1])[1].buffers == [LONG]


def test_damage_that_is_found_later_costs_what_cannot_be_read_alone(
    open_journal: Callable[..., SqliteJournal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "RETRY_SECONDS", 0.02)
    told: list[str] = []
    journal = open_journal(told.append)
    journal.load()
    record(journal, *(submitted(number, 100, (LONG,)) for number in range(1, 21)))
    for pragma in ("wal_checkpoint(TRUNCATE)", "shrink_memory"):
        execute(journal, f"PRAGMA {pragma}")
    path = tmp_path / "journal/journal.sqlite"
    starts = path.read_bytes()[:: journal_file.PAGE_BYTES]
    leaves = [at for at, start in enumerate(starts) if start == LEAF]
    assert len(leaves) > 2
    scribble(path, leaves[1])
    for number in range(1, 21):
        jobs = [number * 1000 + at for at in range(100)]
        if number % 2:
            record(journal, Finals(1, number, 1, jobs, [jobs]), Taken(1, number))
    record(journal, submitted(21))
    assert "begun anew" in told[0]
    assert told[-1] == ""
    journal.close()
    journal = open_journal()
    known = journal.load()
    assert not known.lost
    assert 21 in known.batches
    assert set(known.batches) < {*range(2, 21, 2), 21}
    assert len(known.batches) > 5
    found = journal.payloads(list(known.batches))
    assert len(found) == len(known.batches)
    assert all(one.buffers == [LONG] for batch, one in found.items() if batch != 21)
    assert list((tmp_path / "journal").glob("journal.sqlite.damaged-*"))


@FILES
def test_a_submission_whose_file_is_gone_is_left_out_of_the_answer(
    open_journal: Callable[..., SqliteJournal], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = open_journal()
    journal.load()
    record(journal, *(submitted(number, 1, (LONG,)) for number in (1, 2, 3)))
    paths = sorted((tmp_path / "journal/beside").iterdir(), key=lambda path: int(path.name))
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes().replace(LONG[:9], LONG[1:10]))
    assert list(journal.payloads([1, 2, 3])) == [3]
    assert "No such file" in caplog.text
    assert "not what was written" in caplog.text
    record(journal, *(Finals(1, at, 1, [at * 1000], [], ()) for at in (1, 2, 3)), Taken(1, 3))
    assert list((tmp_path / "journal/beside").iterdir()) == []


@FILES
def test_files_that_a_kill_left_are_removed_and_others_stay(
    open_journal: Callable[..., SqliteJournal], tmp_path: Path
) -> None:
    journal = open_journal()
    journal.load()
    record(journal, submitted(1, 1, (LONG,)))
    journal.close()
    beside = tmp_path / "journal/beside"
    kept = list(beside.iterdir())
    for name in ("77", "78.draft"):
        (beside / name).write_bytes(b"half of it")
    journal = open_journal()
    journal.load()
    assert list(beside.iterdir()) == kept
    assert journal.payloads([1])[1].buffers == [LONG]


def test_a_journal_of_a_newer_dispy_is_refused_and_left_alone(
    open_journal: Callable[..., SqliteJournal], tmp_path: Path
) -> None:
    journal = open_journal()
    journal.load()
    record(journal, submitted(1))
    execute(journal, "PRAGMA user_version=2")
    journal.close()
    with pytest.raises(NewerJournal, match="newer dispy: its format is 2, .* up to 1"):
        open_journal().load()
    assert sorted(path.name for path in (tmp_path / "journal").iterdir()) == [
        "beside", "journal.sqlite", "lock",
    ]  # fmt: skip


def test_a_journal_of_an_older_dispy_goes_on(
    open_journal: Callable[..., SqliteJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_journal()
    journal.load()
    record(journal, submitted(1))
    journal.close()
    steps = (*journal_file._STEPS, "CREATE TABLE more (number INTEGER PRIMARY KEY)")
    monkeypatch.setattr(journal_file, "_STEPS", steps)
    monkeypatch.setattr(journal_file, "FORMAT", 2)
    for _ in range(2):
        journal = open_journal()
        assert journal.load().waiting == [1000]
        assert execute(journal, "SELECT * FROM more") == []
        journal.close()


def test_it_is_as_large_as_what_is_needed(
    open_journal: Callable[..., SqliteJournal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = journal_file.PAGE_BYTES
    monkeypatch.setattr(journal_file, "SLACK_BYTES", 8 * page)
    monkeypatch.setattr(journal_file, "TRIM_PAGES", 16)
    monkeypatch.setattr(journal_file, "LOG_BYTES", 64 * page)
    settings = [each for each in journal_file._SETTINGS if "checkpoint" not in each]
    monkeypatch.setattr(journal_file, "_SETTINGS", (*settings, "wal_autocheckpoint=64"))
    journal = open_journal()
    journal.load()
    paths = [tmp_path / "journal" / name for name in ("journal.sqlite", "journal.sqlite-wal")]
    for number in range(1, 41):
        batch = submitted(number, 500)
        record(journal, Heard(1, number), batch)
        record(journal, Given("node", batch.jobs))
        if number > 20:
            assert paths[0].stat().st_size < 60 * page + 20 * 33 * page
            done = submitted(number - 20, 500).jobs
            record(journal, Finals(1, number, 1, done, [[b"result"] * 500]))
            record(journal, Taken(1, number))
    assert paths[0].stat().st_size > 20 * 500 * 1000
    last = [submitted(number, 500).jobs for number in range(21, 41)]
    for number, jobs in enumerate(last, 41):
        journal.record(Finals(1, number, 1, jobs, []))
    record(journal, Taken(1, 60))
    while journal._writing is not None:  # it gives pages back when it has nothing else to do
        journal._writing.join()
    assert paths[0].stat().st_size <= 14 * page
    assert paths[1].stat().st_size <= 70 * page
