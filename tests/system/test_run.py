"""`dispy run`: a program on the nodes, once for each set of arguments."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dispy.system.interpreter import own_command

DEADLINE = 60.0  # seconds; for machines that are busy with something else


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "work.sh"
    path.write_text('#!/bin/sh\necho "$#:$1"\ncat\necho oops >&2\nexit "${2:-0}"\n')
    path.chmod(0o755)
    return path


def dispy_run(node: Any, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = own_command("run", f"--nodes={node.host}", *arguments)
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=DEADLINE)


def test_runs_come_in_order_and_split_as_a_shell_splits(shared_node: Any, script: Path) -> None:
    calls = ["-a", "'a b'", "-a", "c 0", "-a", "d"]
    done = dispy_run(shared_node, *calls, str(script))
    assert (done.returncode, done.stdout) == (0, "1:a b\n2:c\n1:d\n"), done.stderr
    assert done.stderr.count("oops\n") == 3
    assert "dispy run: 3 runs, 0 failed; on " in done.stderr


def test_without_arguments_the_program_runs_once(shared_node: Any, script: Path) -> None:
    done = dispy_run(shared_node, "--quiet", str(script))
    assert (done.returncode, done.stdout, done.stderr) == (0, "0:\n", "oops\n")


def test_a_failed_run_is_named_and_shows_in_the_exit_status(shared_node: Any, script: Path) -> None:
    done = dispy_run(shared_node, "-a", "x 3", "-a", "y", str(script))
    assert (done.returncode, done.stdout) == (1, "2:x\n1:y\n")
    assert "dispy run: x 3: exit status 3\n" in done.stderr


def test_arguments_come_from_lines_and_each_run_gets_its_input(
    shared_node: Any, script: Path, tmp_path: Path
) -> None:
    (tmp_path / "input").write_text("read\n")
    given = f"--stdin={tmp_path / 'input'}"
    done = dispy_run(
        shared_node, "--quiet", given, "--arguments-from=-", str(script), stdin="1\n\n2\n"
    )
    assert (done.returncode, done.stdout) == (0, "1:1\nread\n1:2\nread\n"), done.stderr


def test_files_that_the_program_needs_lie_beside_it(shared_node: Any, tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(f"{name} came\n")
    needs = [f"--depends={tmp_path / name}" for name in ("one.txt", "two.txt")]
    done = dispy_run(shared_node, "--quiet", *needs, "-a", "one.txt two.txt", "cat")
    assert (done.returncode, done.stdout) == (0, "one.txt came\ntwo.txt came\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["no-such-program"], "no program 'no-such-program'"),
        (["-a", "'open", "true"], "arguments: No closing quotation"),
        (["--stdin=/no/such/file", "true"], "--stdin: cannot read '/no/such/file'"),
        ([], "Usage:"),
    ],
)
def test_wrong_use_has_a_sentence_and_status_2(
    shared_node: Any, arguments: list[str], complaint: str
) -> None:
    done = dispy_run(shared_node, *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
