"""What a program writes down in case it dies, and when nothing of that is left."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from system.conftest import Program, RunningNode

from dispy.client.recovery_file import InUse, RecoveryFile
from dispy.model.errors import DispyError

PROGRAM = """
import os, sys

def double(n):
    return 2 * n

if __name__ == "__main__":
    import dispy
    nodes, *options = sys.argv[1:]
    options = dict(option.split("=") for option in options)
    cluster = dispy.JobCluster(double, nodes=nodes.split(",") if nodes else None, **options)
    print("result", cluster.submit(3)(), flush=True)
    sys.stdin.readline()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "0"])
    cluster.close()
    print("closed", flush=True)
    sys.stdin.readline()
"""
Run = Callable[..., Program]
Start = Callable[..., RunningNode]


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if not path.name.startswith("program"))


@pytest.mark.parametrize("secret", ["", "a secret of this test"])
def test_it_is_there_while_a_cluster_uses_nodes_of_others_and_has_no_secret(
    run_program: Run, start_node: Start, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory,
    secret: str,
) -> None:  # fmt: skip
    options = [f"--secret={secret}"] if secret else []
    node = start_node(*options, directory=tmp_path_factory.mktemp("node"))
    ran = run_program(PROGRAM, node.host, *([f"secret={secret}"] if secret else []))
    while "result 6" not in ran.line():
        assert ran.process.poll() is None, ran.output
    (path,) = files(tmp_path)
    assert re.fullmatch(r"_dispy_\d{14}", path.name)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InUse):
        RecoveryFile.open(str(path))
    text = path.read_text()
    assert node.host in text
    assert str(tmp_path) in text
    assert ("PRIVATE KEY" in text) == bool(secret)
    assert not secret or secret not in text
    ran.say("")
    while "closed" not in ran.line():
        assert ran.process.poll() is None, ran.output
    ran.say("")
    assert ran.end() == 0, ran.output
    assert files(tmp_path) == []


def test_a_program_with_a_local_node_alone_leaves_none(run_program: Run, tmp_path: Path) -> None:
    ran = run_program(PROGRAM, "", f"recover_file={tmp_path}/mine")
    while "result 6" not in ran.line():
        assert ran.process.poll() is None, ran.output
    assert files(tmp_path) == []
    ran.process.kill()


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        (["recover_file=mine"], {}, "mine"),
        ([], {"DISPY_RECOVER_FILE": "theirs"}, "theirs"),
        ([], {"DISPY_RECOVER_FILE": "none"}, None),
    ],
)
def test_a_program_decides_where_it_is(
    run_program: Run, shared_node: RunningNode, tmp_path: Path, options: list[str],
    environment: dict[str, str], expected: str | None,
) -> None:  # fmt: skip
    ran = run_program(PROGRAM, shared_node.host, *options, **environment)
    while "result 6" not in ran.line():
        assert ran.process.poll() is None, ran.output
    assert [path.name for path in files(tmp_path)] == ([expected] if expected else [])
    ran.process.kill()
    ran.process.wait()
    if expected:  # the next one keeps it, under another name
        again = run_program(PROGRAM, shared_node.host, *options, **environment)
        again.say("")
        again.say("")
        assert again.end() == 0, again.output
        assert f"it is kept as {tmp_path / expected}.1" in again.output
        assert [path.name for path in files(tmp_path)] == [f"{expected}.1"]


def test_one_that_cannot_be_made_is_told_if_it_was_named_and_warned_of_if_not(
    run_program: Run, shared_node: RunningNode
) -> None:
    ran = run_program(PROGRAM, shared_node.host, "recover_file=/no/where")
    assert ran.end() == 1
    assert "DispyError: recover_file: cannot create /no/where: No such file" in ran.output
    elsewhere = PROGRAM.replace("import dispy\n", "import dispy\n    os.chdir('/proc/self')\n")
    ran = run_program(elsewhere, shared_node.host)
    ran.say("")
    ran.say("")
    assert ran.end() == 0, ran.output
    assert len(re.findall(r"_dispy_\d+ cannot be written .*cannot be recovered", ran.output)) == 1


def test_the_first_cluster_decides_and_false_means_none(
    run_program: Run, shared_node: RunningNode, tmp_path: Path
) -> None:
    program = PROGRAM.replace("**options)", "recover_file=False)").replace(
        "cluster.close()", "dispy.JobCluster(double, nodes=[nodes], recover_file='other')"
    )
    ran = run_program(program, shared_node.host)
    ran.say("")
    while "closed" not in ran.line():
        assert ran.process.poll() is None, ran.output
    assert "names another recovery file than the first one" in ran.output
    assert files(tmp_path) == []
    ran.say("")
    assert ran.end() == 0, ran.output


def test_a_cluster_is_not_made_where_its_file_is_something_else(tmp_path: Path) -> None:
    from dispy.client.recording import Recording

    (tmp_path / "notes").write_text("mine")
    with pytest.raises(DispyError, match="notes cannot be used: others can read"):
        Recording(None).choose(str(tmp_path / "notes"))  # type: ignore[arg-type]
    assert (tmp_path / "notes").read_text() == "mine"
