"""`dispy demo` does the main job on real files, and says what it could not do."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dispy.client.local_node import END_SECONDS
from dispy.system.interpreter import own_command

DEADLINE = 60.0  # seconds; for machines that are busy with something else


@pytest.fixture
def demo(nothing_left: None) -> Iterator[Callable[..., subprocess.CompletedProcess]]:
    def run(*arguments: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            own_command("demo", *map(str, arguments)),
            capture_output=True, text=True, timeout=DEADLINE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    return run


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "files"
    (place / "below").mkdir(parents=True)
    (place / "words.txt").write_text("Ein Wort, ein zweites Wörtchen;\nund ein drittes\n")
    (place / "below" / "bytes").write_bytes(bytes(range(256)) * 40)
    (place / "empty").write_bytes(b"")
    return place


def test_the_standard_library_is_digested_on_a_local_node(demo) -> None:
    done = demo("--largest=3")
    assert done.returncode == 0, done.stderr
    assert "started a local node" in done.stderr
    lines = done.stdout.splitlines()
    assert sum(".py " in line for line in lines) == 3, done.stdout
    for word in ("jobs/s", "one process", "speed-up", "seconds of work"):
        assert word in done.stdout


def test_the_table_has_true_figures_of_each_file(demo, directory: Path) -> None:
    done = demo("-q", directory)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    digest = hashlib.blake2b((directory / "words.txt").read_bytes(), digest_size=32).hexdigest()
    assert rows["words.txt"] == ["49", "2", "8", "6", "ein", digest[:12]]
    assert rows["below/bytes"][0] == "10,240"
    assert rows["empty"][:4] == ["0", "0", "0", "0"]
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80, done.stdout


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(demo, directory: Path) -> None:
    (directory / "dangling").symlink_to(directory / "nowhere")
    os.mkfifo(directory / "pipe")  # reading it would block
    done = demo("--quiet", directory)
    assert done.returncode == 0, done.stderr
    assert "1 file could not be read:" in done.stdout
    assert f"{directory}/dangling: No such file or directory" in done.stdout
    assert done.stdout.startswith("3 files, ")


def test_a_directory_without_files_or_none_at_all_is_refused(demo, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, complaint in (
        ("empty", "there is no file in it to work on"),
        ("file", "is a file, not a directory"),
        ("nowhere", "there is no such thing"),
    ):
        done = demo(tmp_path / name)
        assert done.returncode == 2
        assert complaint in done.stderr
        assert done.stdout == ""


def test_the_single_executable_has_no_standard_library_and_says_so(nothing_left) -> None:
    frozen = "import sys, dispy_all; sys.frozen = True; sys.argv[1:] = ['demo']; dispy_all.main()"
    done = subprocess.run([sys.executable, "-c", frozen], capture_output=True, text=True)
    assert done.returncode == 2
    assert "name a directory with files to work on, `dispy demo DIRECTORY`" in done.stderr


def test_a_node_that_runs_is_used_and_shown_with_what_it_did(
    demo, start_node, directory: Path
) -> None:
    node = start_node("--name=desk", "--cpus=1")
    done = demo(f"--nodes={node.host}", directory)
    assert done.returncode == 0, done.stderr
    assert "local node" not in done.stderr
    (row,) = (line for line in done.stdout.splitlines() if "desk" in line)
    assert row.split()[:4] == ["desk", f"({node.host})", "1", "4"]  # one job to get ready


@pytest.mark.parametrize("moment", ["started a local node", "waiting for", "jobs "])
def test_ctrl_c_ends_it_at_once_with_130(nothing_left, tmp_path: Path, moment: str) -> None:
    for number in range(100):
        (tmp_path / str(number)).write_bytes(os.urandom(1_000_000))
    options = ["--nodes=127.0.77.77"] if "waiting" in moment else []
    process = subprocess.Popen(
        own_command("demo", *options, str(tmp_path)), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = ""
    while moment not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, said + rest
    assert "Traceback" not in rest
    assert time.monotonic() - begin < END_SECONDS  # it gave up waiting for its local node
