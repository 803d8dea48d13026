"""The recovery file: whole at every instant, its user's alone, locked while somebody uses it."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dispy.client import recovery_writer
from dispy.client.recovery_file import InUse, RecoveryFile, make_room, newest
from dispy.client.recovery_form import (
    Content,
    KnownCluster,
    KnownNode,
    NoRecoveryFile,
    Program,
    parse,
)
from dispy.client.recovery_writer import Writer
from dispy.model.credentials import Certificate, KeyPair
from dispy.model.errors import DispyError

PROGRAM = Program("0" * 32, "host, process 7", 1.5, "DISPY_SECRET_FILE", "/home/me/secret")
CLUSTER = KnownCluster(1, "compute", "/home/me", 10)
NODE = KnownNode("1" * 32, "node one", "10.0.0.1", 51348)
OTHER = KnownNode("2" * 32, "n\u00f6de\n", "::1", 51349, taken=7)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "file")


def content(program: Program = PROGRAM) -> Content:
    return Content(program, {1: CLUSTER}, {NODE.node_id: NODE, OTHER.node_id: OTHER})


@pytest.mark.parametrize(
    "program",
    [
        PROGRAM,
        Program("0" * 32, "", 2.0, pair=KeyPair("a key\n", "a certificate")),
        Program("0" * 32, "", 3.0, certificate=Certificate("c.pem", None, "ca.pem")),
    ],
)
def test_what_is_written_is_read(path: str, program: Program) -> None:
    made = RecoveryFile.create(path, Content(program).lines())
    for entry in (CLUSTER, NODE, OTHER):
        made.append(Content(program).add(entry))
    assert made.read() == content(program)
    made.append(Content(program).add(1))
    made.append(Content(program).add(NODE.node_id))
    assert made.read() == Content(program, {}, {OTHER.node_id: OTHER})
    made.close(remove=True)
    assert not os.path.exists(path)


def test_cut_at_any_byte_it_has_what_was_written_before_or_says_what_is_wrong() -> None:
    whole = content().lines()
    first = whole.index(b"\n")
    for length in range(len(whole)):
        cut = whole[:length]
        if length < first:
            with pytest.raises(NoRecoveryFile, match="is no recovery file of dispy, or its first"):
                parse(cut, "file")
            continue
        found = parse(cut, "file")
        entries = [CLUSTER, NODE, OTHER][: max(0, cut.count(b"\n") - 1)]
        assert [*found.clusters.values(), *found.nodes.values()] == entries
        assert found.damaged == 0


def test_with_any_byte_changed_it_tells_nothing_wrong() -> None:
    whole = content().lines()
    right = [CLUSTER, NODE, OTHER]
    for at in range(whole.index(b"\n") + 1, len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        found = parse(changed, "file")
        entries = [*found.clusters.values(), *found.nodes.values()]
        assert set(entries) < set(right)
        assert len(entries) + found.damaged <= 3


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is no recovery file of dispy"),
        (b"my own notes\n", "is no recovery file of dispy"),
        (os.urandom(1000), "is no recovery file of dispy"),
        (Content(PROGRAM).add(NODE), "is no recovery file of dispy"),
    ],
)
def test_what_is_something_else_is_told(data: bytes, complaint: str) -> None:
    with pytest.raises(NoRecoveryFile, match=complaint):
        parse(data, "file")


def test_lines_with_right_sums_and_wrong_words_are_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dispy.client import recovery_form

    line = recovery_form._line
    wrong = [
        {"node": {"node_id": 7}}, {"node": 7}, {"cluster": {"number": True}}, {"closed": "x"},
        {"lost": [1]}, {"other": 1}, {}, {"node": {}, "cluster": {}},
    ]  # fmt: skip
    found = parse(content().lines() + b"".join(map(line, wrong)), "file")
    assert (len(found.nodes), len(found.clusters), found.damaged) == (2, 1, len(wrong))
    for first in ({}, {"program": 7}, {"program": {"identity": 7, "certificate": 1, "pair": 1}}):
        data = line({"what": "dispy recovery", "version": 1, **first})
        with pytest.raises(NoRecoveryFile, match="does not say whose it is"):
            parse(data, "file")
    with pytest.raises(NoRecoveryFile, match="written by another version of dispy .form 2, this"):
        parse(line({"what": "dispy recovery", "version": 2}), "file")


def test_it_is_its_users_alone_whatever_the_umask_is(path: str) -> None:
    before = os.umask(0)
    try:
        made = RecoveryFile.create(path, b"")
        assert os.stat(path).st_mode & 0o777 == 0o600
        made.rewrite(content().lines())
        assert os.stat(path).st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
    made.close(remove=True)


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_one_that_others_may_read_or_write_is_refused(path: str, mode: int) -> None:
    RecoveryFile.create(path, content().lines()).close(remove=False)
    os.chmod(path, mode)
    with pytest.raises(NoRecoveryFile, match=f"others can read or write it.*chmod 600 {path}"):
        RecoveryFile.open(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_one_of_another_user_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    RecoveryFile.create(path, content().lines()).close(remove=False)
    os.chown(path, 1, 1)
    with pytest.raises(NoRecoveryFile, match="it belongs to another user"):
        RecoveryFile.open(path)


def test_it_is_locked_until_its_process_dies_and_by_no_child_of_that(path: str) -> None:
    program = (
        "import os, sys\n"
        "from dispy.client.recovery_file import RecoveryFile\n"
        "made = RecoveryFile.create(sys.argv[1], b'')\n"
        "made.rewrite(b'')\n"
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.close(write)\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"  # outlives its parent
        "    os._exit(0)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(InUse, match="is in use: its program still runs"):
            RecoveryFile.open(path)
        process.kill()
        process.wait()
        opened = RecoveryFile.open(path)  # while the child lives
        with pytest.raises(InUse):
            RecoveryFile.open(path)
        opened.close(remove=True)


def test_a_file_that_was_replaced_while_it_was_opened_is_in_use(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    RecoveryFile.create(path, b"").close(remove=False)
    from dispy.client import recovery_file

    def lock_after_a_rewrite(descriptor: int) -> bool:
        os.rename(path, f"{path}.before")
        Path(path).touch(mode=0o600)
        return True

    monkeypatch.setattr(recovery_file, "try_lock", lock_after_a_rewrite)
    with pytest.raises(InUse):
        RecoveryFile.open(path)


def test_two_programs_of_one_second_have_files_of_their_own(path: str) -> None:
    one, two = (RecoveryFile.create(path, b"x", numbered=True) for _ in range(2))
    assert (one.path, two.path) == (path, f"{path}_2")
    with pytest.raises(FileExistsError):
        RecoveryFile.create(path, b"x")
    assert sorted(os.listdir(os.path.dirname(path))) == ["file", "file_2"]
    one.close(remove=True)
    two.close(remove=True)


def test_a_disk_without_links_has_files_too(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    made = RecoveryFile.create(path, content().lines())
    with pytest.raises(FileExistsError):
        RecoveryFile.create(path, b"")
    assert made.read() == content()
    assert os.listdir(os.path.dirname(path)) == ["file"]
    made.close(remove=True)


def test_what_a_program_left_that_died_is_kept_and_no_other_file_is_touched(
    path: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        living = RecoveryFile.create(path, content().lines())
        with pytest.raises(InUse):
            make_room(path)
        living.close(remove=False)
        make_room(path)
        assert f"it is kept as {path}.{number}" in caplog.text
    assert sorted(os.listdir(tmp_path)) == ["file.1", "file.2"]
    Path(path).write_text("my own notes")
    os.chmod(path, 0o600)
    with pytest.raises(NoRecoveryFile, match="is no recovery file of dispy"):
        make_room(path)
    assert Path(path).read_text() == "my own notes"
    with pytest.raises(DispyError, match="recover_file: cannot create /no/where: No such file"):
        make_room("/no/where")


def test_a_program_that_is_killed_while_it_looks_for_room_leaves_no_file_of_that_name(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def look(name: str) -> None:
        call = getattr(os, name)

        def looking(*arguments: object, **options: object) -> object:
            result = call(*arguments, **options)
            seen.append(os.path.exists(path))
            return result

        monkeypatch.setattr(os, name, looking)

    for name in ("open", "write", "link", "rename", "fsync", "unlink", "close"):
        look(name)
    make_room(path)
    assert seen
    assert not any(seen)


def test_the_newest_of_a_directory_comes_first(tmp_path: Path) -> None:
    for at, name in enumerate(["_dispy_3", "_dispy_1", "other", "_dispy_2"]):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (at, at))
    names = [re.sub(".*/", "", path) for path in newest(str(tmp_path))]
    assert names == ["_dispy_2", "_dispy_1", "_dispy_3"]
    assert newest(str(tmp_path / "nowhere")) == []


# -- as a program writes it


def test_a_program_whose_nodes_come_and_go_for_months_has_a_small_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery_writer, "SIZE_BYTES", 1000)
    writer = Writer(PROGRAM)
    wanted = str(tmp_path / "file")
    writer.write(wanted, True, [CLUSTER])
    most = 0
    for at in range(200):
        node = KnownNode(f"{at:032}", "node", "10.0.0.1", 51348)
        writer.write(wanted, True, [node])
        writer.write(wanted, True, [node.node_id])
        most = max(most, os.path.getsize(wanted))
    writer.write(wanted, True, [NODE])
    assert most < 4 * content().size + 1000
    assert writer.file is not None
    assert writer.file.read() == Content(PROGRAM, {1: CLUSTER}, {NODE.node_id: NODE})
    with pytest.raises(InUse):  # rewritten, it is locked still
        RecoveryFile.open(wanted)
    writer.close(remove=True)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told_once_and_what_was_torn_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writer, wanted, write = Writer(PROGRAM), str(tmp_path / "file"), os.write
    writer.write(wanted, True, [CLUSTER])

    def write_half(descriptor: int, data: memoryview) -> int:
        write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write_half)
    writer.write(wanted, True, [NODE])
    writer.write(wanted, True, [OTHER])
    assert caplog.text.count("file cannot be written (No space left on device)") == 1
    assert parse(Path(wanted).read_bytes(), "file") == Content(PROGRAM, {1: CLUSTER})
    assert os.listdir(tmp_path) == ["file"]
    monkeypatch.setattr(os, "write", write)
    writer.write(wanted, True, [])
    assert writer.file is not None
    assert writer.file.read() == content()
    writer.close(remove=True)
