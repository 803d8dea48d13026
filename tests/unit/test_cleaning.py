"""A scheduler that begins anew removes what is its own, and nothing while another one is there."""

from pathlib import Path

import pytest

from dispy.model.errors import DispyError
from dispy.scheduler.cleaning import clean
from dispy.scheduler.identity import begin
from dispy.scheduler.journal import SqliteJournal


def test_only_what_was_given_to_the_scheduler_is_removed(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    journal = SqliteJournal(str(directory), lambda why: None)
    journal.load()
    before = begin(str(directory))
    with pytest.raises(DispyError, match="another scheduler uses"):
        clean(str(directory))
    assert (directory / "journal.sqlite").exists()
    journal.close()
    (directory / "journal.sqlite.damaged-1").touch()
    (directory / "journal.sqlite.damaged-1-beside").mkdir()
    (directory / "beside" / "7").write_bytes(b"large")
    (directory / "thesis.tex").touch()
    (directory / "contents" / "store").mkdir(parents=True)
    (directory / "contents" / "store" / "file").touch()
    (directory / "contents" / "store").chmod(0o300)  # as it is while nobody may list it
    clean(str(directory))
    assert {path.name for path in directory.iterdir()} == {"lock", "identity.json", "thesis.tex"}
    after = begin(str(directory))
    assert (after.identity, after.life) == (before.identity, before.life + 1)


def test_a_directory_that_is_not_there_is_clean(tmp_path: Path) -> None:
    clean(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_directory_that_is_no_schedulers_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "contents").mkdir()
    (tmp_path / "journal.sqlite").touch()
    clean(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"contents", "journal.sqlite"}
