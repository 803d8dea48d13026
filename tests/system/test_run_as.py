"""`dispy node --run-as`: jobs are another user's, who can do nothing to the node."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from system.conftest import DEADLINE, RunningNode, left_in_the_end, ours
from system.other_users import (
    NOBODY,
    needs_root,
    open_directory,  # noqa: F401
    python_for_all,
)

from dispy import DispyJob, JobCluster
from dispy.system.interpreter import own_command

pytestmark = [
    needs_root,
    pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can do it"),
]
Open = Callable[..., JobCluster]
Start = Callable[..., RunningNode]


@pytest.fixture(scope="module")
def node(own_session: None) -> Iterator[RunningNode]:
    """A node of root's whose jobs run as nobody."""
    python, environment = python_for_all()
    directory = Path(tempfile.mkdtemp(prefix="dispy-test-"))
    directory.chmod(0o755)
    before = ours()
    host = f"127.1.{os.getpid() % 250}.7"
    running = RunningNode(
        directory, host, 51348, "--cpus=2", "--run-as=nobody", python=python, **environment
    )
    yield running
    assert running.end() == 0, running.said
    assert "Traceback" not in running.said
    assert not left_in_the_end(lambda: ours() - before), "processes were left behind"
    (lock,) = directory.iterdir()  # and no files
    lock.unlink()
    directory.rmdir()


def self_told() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_a_job_is_that_user_in_all_respects_and_cannot_go_back(
    node: RunningNode, open_cluster: Open, isolation: str
) -> None:
    def look() -> Any:
        import os
        import resource

        back = []
        for way in (os.setuid, os.seteuid, os.setgid, lambda _: os.setgroups([0])):
            try:
                way(0)
            except PermissionError:
                back.append("refused")
        about = [os.environ.get(name) for name in ("HOME", "USER", "LOGNAME")]
        hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        return self_told(), back, about, hard, os.stat(os.getcwd()).st_uid

    cluster = open_cluster(look, nodes=[node.host], isolation=isolation, depends=[self_told])
    told, back, about, hard, owner = cluster.submit()()
    assert told["Uid"].split() == told["Gid"].split() == [str(NOBODY)] * 4
    assert told["Groups"].split() == [str(NOBODY)]
    assert {told["CapPrm"], told["CapEff"], told["CapAmb"]} == {"0" * 16}
    assert told["NoNewPrivs"] == "1"
    assert back == ["refused"] * 4
    assert about == ["/nonexistent", "nobody", "nobody"]
    assert hard >= 4096
    assert owner == NOBODY


def test_programs_setup_and_cleanup_run_as_that_user_too(
    node: RunningNode, open_cluster: Open, tmp_path: Path
) -> None:
    program = tmp_path / "who"
    program.write_text("#!/bin/sh\nid -u; echo made > here; ls\n")
    program.chmod(0o755)
    job = open_cluster(str(program), nodes=[node.host]).submit()
    assert job() == 0, job.stderr
    assert job.stdout.split() == [str(NOBODY).encode(), b"here", b"who"]

    def setup() -> int:
        global user
        import os

        user = os.getuid()
        with open("from-setup", "w") as file:
            file.write("x")
        return 0

    def look() -> Any:
        import os

        return user, os.listdir("."), os.stat("from-setup").st_uid  # type: ignore[name-defined]

    cluster = open_cluster(look, nodes=[node.host], setup=setup)
    assert cluster.submit()() == (NOBODY, ["from-setup"], NOBODY)


def test_files_that_come_are_that_users_and_stay_so(
    node: RunningNode, open_cluster: Open, tmp_path: Path
) -> None:
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    (tmp_path / "tree" / "inner" / "data").write_text("data")
    (tmp_path / "tree" / "inner" / "data").chmod(0o640)

    def change() -> Any:
        import os

        with open("tree/inner/data", "a") as file:
            file.write(", more")
        with open("tree/new", "w") as file:
            file.write("new")
        return [os.stat(path).st_uid for path in (".", "tree", "tree/inner", "tree/inner/data")]

    options: dict[str, Any] = {"nodes": [node.host], "dest_path": "a/b", "cleanup": False}
    cluster = open_cluster(change, depends=[str(tmp_path / "tree")], **options)
    assert cluster.submit()() == [NOBODY] * 4
    cluster.close()
    (kept,) = node.directory.glob("dispy-node-*/clients/*/a/b")
    assert (kept / "tree" / "inner" / "data").read_text() == "data, more"
    assert [path.stat().st_uid for path in (kept.parent, kept)] == [NOBODY] * 2
    assert [stat.S_IMODE(path.stat().st_mode) for path in (kept.parent, kept)] == [0o700] * 2

    def read() -> str:
        with open("tree/new") as file:
            return file.read()

    again = open_cluster(read, **{**options, "cleanup": True})
    assert again.submit()() == "new"
    again.close()
    subprocess.run(["rm", "-r", str(kept.parent.parent.parent)], check=True)


def test_a_job_reads_the_store_but_lists_and_changes_nothing_of_the_nodes(
    node: RunningNode, open_cluster: Open
) -> None:
    def pry(root: str) -> Any:
        import os

        refused = []
        for what in (
            lambda: os.listdir(root),
            lambda: os.listdir(os.path.join(root, "store")),
            lambda: os.open(os.path.join(root, "store", "new"), os.O_CREAT),
            lambda: os.rename(os.path.join(root, "store"), os.path.join(root, "mine")),
            lambda: os.mkdir(os.path.join(root, "mine")),
            lambda: os.rename(root, root + "-mine"),
            lambda: os.rename(os.getcwd(), os.getcwd() + "-mine"),
        ):
            try:
                what()
            except PermissionError:
                refused.append(True)
        return refused

    (root,) = node.directory.glob("dispy-node-*[0-9]")
    cluster = open_cluster(pry, nodes=[node.host])
    assert cluster.submit(str(root))() == [True] * 7
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (root, root / "store")}
    assert modes == {0o711}

    def give_back(values: Any) -> Any:
        return values

    big = bytes(8 * 1024 * 1024)
    sums = open_cluster(give_back, nodes=[node.host])
    jobs = [sums.submit(big) for _ in range(2)]
    assert [job() for job in jobs] == [big, big], [job.exception for job in jobs]


ATTACK = """
import sys
import dispy
def attack(node, secret):
    import ctypes, os, signal, socket, subprocess
    refused = []
    def try_to(what, action):
        try:
            action()
        except PermissionError:
            refused.append(what)
    try_to("secret", lambda: open(secret).read())
    for name in ("environ", "maps", "mem"):
        try_to(name, lambda: open(f"/proc/{node}/{name}").read(1))
    try_to("fd", lambda: os.listdir(f"/proc/{node}/fd"))
    try_to("cwd", lambda: os.readlink(f"/proc/{node}/cwd"))
    for number in (0, signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
        try_to(f"signal {int(number)}", lambda: os.kill(node, number))
    try_to("nice", lambda: os.setpriority(os.PRIO_PROCESS, node, 19))
    if ctypes.CDLL(None).ptrace(16, node, None, None) == -1:  # PTRACE_ATTACH
        refused.append("ptrace")
    for command in (["su", "-c", "true"], ["passwd", "-S"]):
        assert subprocess.run(command, capture_output=True).returncode != 0
    seen = [name for name in os.environ if name.startswith(("DISPY_SECRET", "MY_OWN"))]
    return os.getuid(), refused, seen
cluster = dispy.JobCluster(attack, nodes=[sys.argv[1]])
print(cluster.submit(int(sys.argv[2]), sys.argv[3])())
cluster.close()
"""


def test_a_job_can_do_nothing_to_a_node_of_root(
    start_node: Start, run_program: Any, tmp_path: Path, open_directory: Path  # noqa: F811
) -> None:  # fmt: skip
    python, environment = python_for_all()
    secret = open_directory / "secret"
    secret.write_text("a secret of this test\n")
    secret.chmod(0o600)
    node = start_node(
        f"--secret-file={secret}", "--suid=4711", "--sgid=4712", directory=open_directory,
        python=python, MY_OWN="mine", **environment,
    )  # fmt: skip
    assert "jobs run as 4711 (user 4711, group 4712, in groups 4712)" in node.said
    program = run_program(
        ATTACK, node.host, str(node.process.pid), str(secret), DISPY_SECRET_FILE=str(secret)
    )
    assert program.end() == 0, program.output
    tried = ["secret", "environ", "maps", "mem", "fd", "cwd"]
    tried += ["signal 0", "signal 15", "signal 9", "signal 19", "nice", "ptrace"]
    assert str((4711, tried, [])) in program.output
    assert node.process.poll() is None


def test_a_cancelled_job_and_what_it_started_end(
    node: RunningNode, open_cluster: Open, open_directory: Path  # noqa: F811
) -> None:  # fmt: skip
    open_directory.chmod(0o1777)

    def start(mark: str) -> None:
        import os
        import subprocess
        import time

        child = subprocess.Popen(["sleep", "1000"])
        with open(f"{mark}.new", "w") as file:
            file.write(f"{os.getpid()} {child.pid}")
        os.rename(f"{mark}.new", mark)
        time.sleep(1000)

    mark = open_directory / "mark"
    cluster = open_cluster(start, nodes=[node.host])
    job = cluster.submit(str(mark))
    deadline = time.monotonic() + DEADLINE
    while not mark.exists():
        assert time.monotonic() < deadline, job.why()
        time.sleep(0.01)
    pids = [int(pid) for pid in mark.read_text().split()]
    assert os.stat(f"/proc/{pids[1]}").st_uid == NOBODY
    assert cluster.cancel(job) == 0
    assert job.finish.wait(timeout=DEADLINE)
    assert job.status == DispyJob.Terminated, job.exception
    while os.path.exists(f"/proc/{pids[1]}"):
        assert time.monotonic() < deadline, "its child lives"
        time.sleep(0.01)


def test_a_nursery_that_names_another_process_has_no_signal_sent_to_it(
    node: RunningNode, open_cluster: Open, open_directory: Path  # noqa: F811
) -> None:  # fmt: skip
    open_directory.chmod(0o1777)
    victim = subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True)
    pid, forked = victim.pid, 53

    def lie() -> int:
        import gc

        (channel,) = [each for each in gc.get_objects() if type(each).__name__ == "Channel"]
        tell = channel.send
        channel.send = lambda kind, body: tell(kind, [body[0], pid] if kind == forked else body)
        return 0

    def mark(path: str) -> None:
        import os
        import time

        os.close(os.open(path, os.O_CREAT))
        time.sleep(1000)

    with victim:
        cluster = open_cluster(mark, nodes=[node.host], setup=lie, isolation="worker")
        job = cluster.submit(str(open_directory / "mark"))
        deadline = time.monotonic() + DEADLINE
        while not (open_directory / "mark").exists():
            assert time.monotonic() < deadline, job.why()
            time.sleep(0.01)
        cluster.cancel(job)
        cluster.close(timeout=0, terminate=True)
        assert job.finish.wait(timeout=DEADLINE)
        assert victim.stdin is not None
        victim.stdin.close()
        assert victim.wait(timeout=DEADLINE) == 0, "it ended by itself"


def test_jobs_write_to_the_nodes_log_without_holding_it(
    start_node: Start, open_cluster: Open, open_directory: Path  # noqa: F811
) -> None:  # fmt: skip
    def look() -> list[str]:
        import os

        dispynode_logger.info("said by a job")  # type: ignore[name-defined]  # noqa: F821
        found = []
        for name in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{name}"))
            except FileNotFoundError:  # that of the listing itself
                continue
        return found

    python, environment = python_for_all()
    node = start_node("--run-as=nobody", directory=open_directory, python=python, **environment)
    log = [os.readlink(f"/proc/{node.process.pid}/fd/{number}") for number in range(3)]
    cluster = open_cluster(look, nodes=[node.host])
    held = cluster.submit()()
    cluster.close()
    assert not (set(log) - {"/dev/null"}) & set(held)
    assert node.end() == 0
    assert "dispynode - said by a job" in node.said


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bubblewrap here")
def test_in_a_sandbox_too_jobs_are_that_users_and_can_be_cancelled(
    start_node: Start, open_cluster: Open, open_directory: Path, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    (tmp_path / "data").write_text("data")

    def look(wait: bool) -> Any:
        import os
        import time

        if wait:
            with open("mark", "w"):
                time.sleep(1000)
        with open("data") as file:
            return os.getuid(), os.getpid() < 100, file.read(), bytes(1 << 20)

    python, environment = python_for_all()
    node = start_node(
        "--run-as=nobody", "--sandbox", directory=open_directory, python=python,
        DISPY_SECRET_FILE="none", **environment,
    )  # fmt: skip
    cluster = open_cluster(
        look, nodes=[node.host], depends=[str(tmp_path / "data")], isolation="worker"
    )
    assert cluster.submit(False)() == (NOBODY, True, "data", bytes(1 << 20))
    job = cluster.submit(True)
    deadline = time.monotonic() + DEADLINE
    while not list(open_directory.glob("dispy-node-*/*/*/mark")):
        assert time.monotonic() < deadline, job.why()
        time.sleep(0.01)
    assert cluster.cancel(job) == 0
    assert job.finish.wait(timeout=DEADLINE)
    assert "KeyboardInterrupt" in job.exception
    cluster.close()
    assert node.end() == 0


# -- what is refused at the start


def start_and_fail(*options: str, become: tuple[str, ...] = (), **environment: str) -> str:
    python, more = python_for_all()
    _, *command = own_command("node", "--host=127.9.8.7", *options)
    ended = subprocess.run(
        [*become, python, *command], capture_output=True, text=True, timeout=DEADLINE,
        env={**os.environ, **more, **environment},
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    return ended.stderr


def test_a_node_of_another_user_than_root_says_that_it_cannot() -> None:
    nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    said = start_and_fail(become=nobody, DISPY_RUN_AS="man", HOME="/nonexistent")
    assert "only a node that root has started can run jobs as another user" in said


def test_what_that_user_cannot_reach_is_named(open_directory: Path) -> None:  # noqa: F811
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    said = start_and_fail("--run-as=nobody", f"--dest_path_prefix={closed / 'in'}")
    assert f"they must enter {closed}, which is closed to that user" in said


def test_a_place_that_jobs_could_exchange_is_refused(open_directory: Path) -> None:  # noqa: F811
    os.chown(open_directory, NOBODY, NOBODY)
    said = start_and_fail("--run-as=nobody", f"--dest_path_prefix={open_directory}")
    assert f"nobody, as whom jobs run, may exchange what lies in {open_directory}" in said
    os.chown(open_directory, 0, 0)
    (open_directory / "dispy-node-127.9.8.7-51348").mkdir()
    os.chown(open_directory / "dispy-node-127.9.8.7-51348", 1, 1)
    said = start_and_fail("--run-as=nobody", f"--dest_path_prefix={open_directory}")
    assert "dispy-node-127.9.8.7-51348 belongs to another user" in said
