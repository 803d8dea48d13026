"""What jobs see of their node, and what they may gain: always, without any option."""

import contextlib
import os
import sys
from pathlib import Path

import pytest
from system.conftest import MARK
from system.other_users import as_nobody, needs_root, open_directory, python_for_all  # noqa: F401

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can do it")


def variables() -> dict[str, str]:
    return dict(os.environ)


def status_of_process() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def core_limit() -> int:
    import resource

    return resource.getrlimit(resource.RLIMIT_CORE)[0]


def descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself is gone
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def test_jobs_of_a_node_see_the_stated_variables_and_no_others(start_node, open_cluster) -> None:
    node = start_node(
        AWS_SECRET_ACCESS_KEY="key", SSH_AUTH_SOCK="/agent", DISPY_SECRET_FILE="none",
        OMP_SCHEDULE="static", LC_TIME="C", MINE_A="1", MINE_B="2",
        DISPY_PASS_ENV=f"{MARK}, MINE_*, DISPY_*",
    )  # fmt: skip
    seen = open_cluster(variables, nodes=[node.host]).submit()()
    assert {"PATH", "OMP_SCHEDULE", "LC_TIME", "MINE_A", "MINE_B"} <= seen.keys()
    assert not {"AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "DISPY_SECRET_FILE"} & seen.keys()


def test_a_star_passes_all_variables_but_those_of_dispys_secrets(start_node, open_cluster) -> None:
    node = start_node(SSH_AUTH_SOCK="/agent", DISPY_SECRET_FILE="none", DISPY_PASS_ENV="*")
    seen = open_cluster(variables, nodes=[node.host]).submit()()
    assert "SSH_AUTH_SOCK" in seen
    assert "DISPY_SECRET_FILE" not in seen


LOCAL = """
import dispy
def seen():
    import os
    return [name in os.environ for name in ("AWS_PROFILE", "DISPY_SECRET_FILE")]
cluster = dispy.JobCluster(seen)
print(cluster.submit()())
"""


def test_jobs_of_a_programs_own_node_see_its_variables_but_not_its_secret(run_program) -> None:
    program = run_program(LOCAL, AWS_PROFILE="a", DISPY_SECRET_FILE="none")
    assert program.end() == 0, program.output
    assert "[True, False]" in program.output


@LINUX
def test_jobs_gain_no_privileges_and_leave_no_core_file(shared_node, open_cluster) -> None:
    cluster = open_cluster(status_of_process, nodes=[shared_node.host])
    assert cluster.submit()()["NoNewPrivs"] == "1"
    assert open_cluster(core_limit, nodes=[shared_node.host]).submit()() == 0


@LINUX
def test_an_operator_may_let_programs_gain_privileges(start_node, open_cluster) -> None:
    node = start_node(DISPY_NEW_PRIVILEGES="yes")
    cluster = open_cluster(status_of_process, nodes=[node.host])
    assert cluster.submit()()["NoNewPrivs"] == "0"


@LINUX
def test_a_program_inherits_its_three_streams_alone(shared_node, open_cluster) -> None:
    cluster = open_cluster("/bin/ls", nodes=[shared_node.host])
    job = cluster.submit("/proc/self/fd")
    assert job() == 0, job.stderr
    assert job.stdout.split() == [b"0", b"1", b"2", b"3"], "3 is that of the listing"


@LINUX
@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_a_function_has_no_descriptor_of_the_nodes_own(
    shared_node, open_cluster, isolation
) -> None:
    cluster = open_cluster(descriptors, nodes=[shared_node.host], isolation=isolation)
    found = cluster.submit()()
    log = os.readlink(f"/proc/{shared_node.process.pid}/fd/2")
    others = [
        target
        for target in found.values()
        if not target.startswith(("socket:", "/memfd:dispy-", "anon_inode:[pidfd]"))
        and target not in (log, "/dev/null", os.readlink(f"/proc/{shared_node.process.pid}/fd/1"))
    ]
    assert others == []
    sockets = [target for target in found.values() if target.startswith("socket:")]
    theirs = {
        os.readlink(f"/proc/{shared_node.process.pid}/fd/{name}")
        for name in os.listdir(f"/proc/{shared_node.process.pid}/fd")
        if os.path.lexists(f"/proc/{shared_node.process.pid}/fd/{name}")
    }
    assert not theirs & set(sockets), "its own ends of socket pairs, at most"
    assert len(sockets) <= (1 if isolation == "worker" else 3)


PRY = """
import sys
import dispy
def pry(pid):
    import ctypes, os
    refused = []
    for name in ("environ", "maps", "mem", "fd"):
        try:
            (os.listdir if name == "fd" else lambda path: open(path).read(1))(f"/proc/{pid}/{name}")
        except PermissionError:
            refused.append(name)
    if ctypes.CDLL(None).ptrace(16, pid, None, None) == -1:  # PTRACE_ATTACH
        refused.append("ptrace")
    return os.getuid(), refused
cluster = dispy.JobCluster(pry, nodes=[sys.argv[1]])
print(cluster.submit(int(sys.argv[2]))())
cluster.close()
"""


@LINUX
@needs_root
def test_a_job_of_the_same_user_cannot_look_into_a_node_that_has_a_secret(
    start_node, run_program, tmp_path: Path, open_directory: Path  # noqa: F811
) -> None:  # fmt: skip
    python, environment = python_for_all()
    secret = tmp_path / "secret"
    secret.write_text("a secret of this test\n")
    secret.chmod(0o600)
    own = open_directory / "secret"
    own.write_text(secret.read_text())
    own.chmod(0o600)
    os.chown(own, 65534, 65534)
    place = open_directory / "files"
    place.mkdir()
    os.chown(place, 65534, 65534)
    node = start_node(
        f"--secret-file={own}", directory=place, python=as_nobody(open_directory, python),
        HOME="/nonexistent", **environment,
    )  # fmt: skip
    program = run_program(PRY, node.host, str(node.process.pid), DISPY_SECRET_FILE=str(secret))
    assert program.end() == 0, program.output
    assert "(65534, ['environ', 'maps', 'mem', 'fd', 'ptrace'])" in program.output
