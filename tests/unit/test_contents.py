"""Contents are known by their digest, and one that is another by now is refused by name."""

import hashlib
import os
from pathlib import Path

import pytest

from dispy.client.contents import Contents
from dispy.shipping import contents
from dispy.shipping.contents import Content, ContentLost, digest_of


def test_a_file_and_memory_of_the_same_bytes_have_one_digest(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * 3_000_000)
    file, memory = Content.of_file(str(path)), Content.of_memory(b"x" * 3_000_000)
    assert file.digest == memory.digest == digest_of(path.read_bytes())
    assert file.digest == hashlib.blake2b(path.read_bytes(), digest_size=32).digest()
    assert file.size == memory.size == 3_000_000
    for content in (file, memory):
        assert bytes(content.read(2_999_990, 100)) == b"x" * 10
        assert bytes(content.read(3_000_000, 5)) == b""


def test_a_file_that_changed_or_went_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"before")
    content = Content.of_file(str(path))
    path.write_bytes(b"after!")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ContentLost, match=r"file '.*data' changed while it was being sent"):
        content.read(0, 6)
    path.unlink()
    with pytest.raises(ContentLost, match=r"file '.*data' cannot be read any more: No such file"):
        content.read(0, 6)


def test_a_file_is_found_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").write_bytes(b"here")
    monkeypatch.chdir(tmp_path)
    content = Content.of_file("data")
    monkeypatch.chdir("/")
    assert content.read(0, 9) == b"here"


def test_a_file_is_hashed_once_unless_it_is_young_or_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []
    real = contents._digest_of_file
    monkeypatch.setattr(contents, "_digest_of_file", lambda p: hashed.append(p) or real(p))
    path = tmp_path / "data"
    path.write_bytes(b"one")
    for _ in range(2):
        Content.of_file(str(path))
    assert len(hashed) == 2, "a file that may be written once more was taken as known"
    os.utime(path, (1e9, 1e9))
    for _ in range(3):
        Content.of_file(str(path))
    assert len(hashed) == 3
    path.write_bytes(b"two")
    os.utime(path, (1e9 + 1, 1e9 + 1))
    assert Content.of_file(str(path)).digest == digest_of(b"two")


def test_what_is_held_twice_is_there_until_it_was_released_twice() -> None:
    table, content = Contents(), Content.of_memory(b"value")
    table.hold(content)
    table.hold_for(7, [content])
    table.release(content.digest)
    assert table.get(content.digest) is content
    table.release_for(7)
    table.release_for(7)
    assert table.get(content.digest) is None
    table.release(content.digest)
