"""Files from another machine land below their directory, whole, or not at all."""

import os
from pathlib import Path

import pytest

from dispy.shipping.arriving import ArrivingFile, find_place
from dispy.system.beneath import PlaceRefused
from dispy.worker.sending import name_below


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "no name"),
        (".", "no name"),
        ("a\0b", "no name"),
        ("../x", "would leave"),
        ("a/../../x", "would leave"),
        ("a/..", "would leave"),
        ("/etc/passwd", "would leave"),
        ("//host/x", "would leave"),
        ("out/x", "might lead out"),
        ("within/x", "might lead out"),
        ("inside/file/x", "is a symbolic link or a file"),
        ("inside", "is a directory"),
        ("within", "is a directory"),
        ("/".join("d" * 100), "no name"),
        ("/".join("d" * 10_000), "no name"),
        ("d" * 5000, "no name"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str, words: str) -> None:
    home = tmp_path / "home"
    (home / "inside").mkdir(parents=True)
    (home / "inside" / "file").touch()
    (home / "out").symlink_to(tmp_path)
    (home / "within").symlink_to(home / "inside")
    with pytest.raises(PlaceRefused, match=words):
        ArrivingFile(home, name, 0o600, 0)
    assert sorted(os.listdir(tmp_path)) == ["home"]


def test_names_with_dots_and_odd_letters_are_fine(tmp_path: Path) -> None:
    for name in ("..x", "a/...", "a b/\N{BLACK SMILING FACE}", "x" * 255, "a\\b"):
        assert find_place(tmp_path, name) == name.split("/")


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("before")
    file = ArrivingFile(tmp_path, "a/b", 0o6755, 5_000_000_000)
    file.write(b"one")
    assert (tmp_path / "a" / "b").read_text() == "before"
    file.write(memoryview(b"two"))
    file.finish()
    file.discard()  # too late: it changes nothing
    status = (tmp_path / "a" / "b").stat()
    assert (tmp_path / "a" / "b").read_text() == "onetwo"
    assert (status.st_mode & 0o7777, status.st_mtime) == (0o755, 5.0)
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_file_that_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    file = ArrivingFile(tmp_path, "b", 0o644, 0)
    file.write(b"one")
    file.discard()
    assert os.listdir(tmp_path) == []


def test_a_path_below_the_jobs_directory_keeps_its_own_directory(tmp_path: Path) -> None:
    job = tmp_path / "job"
    (job / "plots").mkdir(parents=True)
    (tmp_path / "link").symlink_to(job)
    directory = str(job)
    assert name_below(str(job / "plots" / "a.png"), directory) == "plots/a.png"
    assert name_below(str(tmp_path / "link" / "plots" / "a.png"), directory) == "plots/a.png"
    assert name_below(str(tmp_path / "a.png"), directory) == "a.png"
    assert name_below(str(tmp_path / "job2" / "a.png"), directory) == "a.png"
