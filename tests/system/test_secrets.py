"""A secret keeps others out, reaches running nodes when it changes, and shows nowhere."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from dispy.cli.greeting import greet
from dispy.model.credentials import Credentials, Secret, new_secret, read_secrets
from dispy.model.ports import NODE_PORT
from dispy.net.secure import NotProven
from dispy.system.directories import write_private
from dispy.system.interpreter import own_command

TEXT = "correct-horse-battery-staple"
SECONDS = 20.0

LOOK_AROUND = """
import logging, sys
import dispy

def look_around():
    import os
    seen = [repr(dict(os.environ))]
    pid = os.getpid()
    while pid > 1:
        for name in ("environ", "cmdline"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    seen.append(file.read().decode(errors="replace"))
            except OSError:
                break
        with open(f"/proc/{pid}/stat") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
        if b"pytest" in seen[-1].encode():
            break
    return len(seen), "\\n".join(seen)

if __name__ == "__main__":
    with dispy.JobCluster(
        look_around, nodes=[sys.argv[1]], secret=SECRET, loglevel=logging.DEBUG
    ) as cluster:
        count, seen = cluster.submit()()
        assert count > 5, count
        assert SECRET not in seen, seen
        print(cluster, cluster.status(), vars(cluster))
        print("looked around")
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without a secret, and no broadcasts."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DISPY_BROADCAST", "0")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path / "home"


def secrets(*texts: str) -> Credentials:
    return Credentials(tuple(Secret(text, "a test") for text in texts))


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


@pytest.mark.parametrize("words", [[f"--secret={TEXT}"], ["-s", TEXT], [f"-s{TEXT}", "--debug"]])
def test_a_secret_on_a_nodes_command_line_is_hidden_and_warned_about(
    start_node: Callable[..., Any], words: list[str]
) -> None:
    node = start_node(*words)
    shown = command_line(node.process.pid)
    assert TEXT not in shown
    assert f"--host={node.host}" in shown, "the rest is still there for who looks"
    assert "--secret: other users of this machine could see it" in node.said
    greet(node.host, NODE_PORT, SECONDS, secrets(TEXT))


def test_a_secret_shows_in_no_log_environment_command_line_or_file(
    start_node: Callable[..., Any], run_program: Callable[..., Any]
) -> None:
    node = start_node(f"--secret={TEXT}", "--debug")
    program = run_program(LOOK_AROUND.replace("SECRET", repr(TEXT)), node.host)
    assert program.end() == 0, program.output
    assert "looked around" in program.output
    for process in [node.process.pid, *psutil.Process(node.process.pid).children(recursive=True)]:
        pid = getattr(process, "pid", process)
        for name in ("environ", "cmdline"):
            assert TEXT.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    files = [path for path in node.directory.rglob("*") if path.is_file()]
    holders = [path for path in files if TEXT.encode() in path.read_bytes()]
    assert [path.suffix for path in holders] == [".py"], "the program itself alone has it"
    with pytest.raises(NotProven):
        greet(node.host, NODE_PORT, SECONDS, secrets("another-one"))
    assert node.end() == 0
    assert "refused" in node.said
    said = program.output + node.said
    key = Secret(TEXT, "").key
    for shown in (TEXT, key.hex(), repr(key)):
        assert shown not in said


def test_a_secret_changes_without_a_restart_of_the_node(
    start_node: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "secrets"
    old = new_secret()
    write_private(str(path), f"{old}\n")
    node = start_node(f"--secret-file={path}")
    greet(node.host, NODE_PORT, SECONDS, secrets(old))

    def dispy_secret(*options: str) -> None:
        command = own_command("secret", f"--file={path}", *options)
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    dispy_secret("--add")
    new = read_secrets(path.read_text(), "")[0].text
    for text in (new, old):
        greet(node.host, NODE_PORT, SECONDS, secrets(text))
    dispy_secret("--retire")
    greet(node.host, NODE_PORT, SECONDS, secrets(new))
    with pytest.raises(NotProven):
        greet(node.host, NODE_PORT, SECONDS, secrets(old))


def test_a_program_runs_on_nodes_whose_secret_is_in_a_file_or_typed(
    start_node: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "secrets"
    write_private(str(path), f"{TEXT}\n")
    node = start_node(f"--secret-file={path}")
    for option in (f"--secret-file={path}", f"--secret={TEXT}"):
        command = own_command("run", f"--nodes={node.host}", option, "echo", "-a", "it works")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "it works\n"), done.stderr
        assert ("--secret: other users" in done.stderr) == (option == f"--secret={TEXT}")
        assert TEXT not in done.stderr


def doctor(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        own_command("doctor", *arguments),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
        env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout


def lines(output: str, *wanted: str) -> list[str]:
    return [line for line in output.splitlines() if all(word in line for word in wanted)]


def test_doctor_tells_which_secret_is_used_and_whether_a_node_proves_that_it_has_it(
    start_node: Callable[..., Any], tmp_path: Path
) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    write_private(str(ours), f"{TEXT}\n")
    write_private(str(other), "feeble\n")
    node = start_node(f"--secret-file={ours}")
    output = doctor(node.host, DISPY_SECRET_FILE=str(ours))
    fingerprint = Secret(TEXT, "").fingerprint
    assert lines(output, "ok ", f"credentials: secret {fingerprint} of {ours}, made up by a person")
    assert lines(output, "ok ", f"host {node.host}: its node has proven itself")
    assert TEXT not in output
    output = doctor(node.host, DISPY_SECRET_FILE=str(other))
    assert lines(output, "warning ", f"the secret of {other} is short enough to be guessed")
    assert lines(
        output, "problem ", f"host {node.host}: its node is refused: it has not the secret"
    )
    output = doctor(node.host)
    assert lines(output, "ok ", "credentials: none (")
    assert lines(output, "problem ", f"host {node.host}: its node asks for a secret")


def test_doctor_names_a_file_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "open"
    path.write_text(TEXT)
    path.chmod(0o644)
    (line,) = lines(doctor(DISPY_SECRET_FILE=str(path)), "problem ", "credentials:")
    assert f"chmod 600 {path}" in line


def test_a_weak_secret_is_warned_about_at_the_start_of_a_node_and_of_a_program(
    start_node: Callable[..., Any], run_program: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "secrets"
    write_private(str(path), "feeble\n")
    node = start_node(f"--secret-file={path}")
    warning = f"the secret of {path} is short enough to be guessed"
    assert node.said.count(warning) == 1
    program = run_program(
        f"import dispy\nprint(dispy.JobCluster(abs, nodes=[{node.host!r}]).submit(-1)())\n",
        DISPY_SECRET_FILE=str(path),
    )
    assert program.end() == 0, program.output
    assert program.output.count(warning) == 1
