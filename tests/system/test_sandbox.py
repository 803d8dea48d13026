"""`dispy node --sandbox`: what jobs see, what works all the same, when it does not start."""

import contextlib
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from system.conftest import (
    DEADLINE,
    Gate,
    RunningNode,
    hold,
    node_without_a_trace,
    own_command,
)
from system.other_users import (  # noqa: F401
    NOBODY,
    as_nobody,
    needs_root,
    open_directory,
    python_for_all,
)

from dispy import DispyJob

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not there")


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that jobs in the sandbox may write to, for their gates."""
    return tmp_path_factory.mktemp("doors")


@pytest.fixture(scope="module")
def sandboxed(tmp_path_factory: pytest.TempPathFactory, doors: Path) -> Iterator[RunningNode]:
    """One node for the whole module whose jobs run in sandboxes."""
    directory = tmp_path_factory.mktemp("node")
    with node_without_a_trace(
        directory, "--sandbox", DISPY_SANDBOX_WRITABLE=str(doors), TMPDIR=str(doors.parent)
    ) as node:
        yield node


@pytest.fixture
def open_inside(sandboxed: RunningNode, open_cluster: Any) -> Callable[..., Any]:
    """Open clusters on that node."""

    def open_one(*arguments: Any, **options: Any) -> Any:
        return open_cluster(*arguments, nodes=[sandboxed.host], **options)

    return open_one


@pytest.fixture
def gate(doors: Path, request: pytest.FixtureRequest) -> Iterator[Gate]:
    """A gate that jobs in the sandbox can reach."""
    made = Gate(doors / str(abs(hash(request.node.name))))
    yield made
    made.open(1000)
    made.close()


def act(source: str, *arguments: Any) -> object:
    names: dict = {"arguments": arguments}
    exec(source, names)
    return names.get("result")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


def started(job: DispyJob) -> None:
    wait_until(lambda: job.status != DispyJob.Created, "the job to start")


# -- what jobs see


PROCESSES = """
import os
pids = filter(str.isdigit, os.listdir("/proc"))
result = [open(f"/proc/{pid}/cmdline").read() for pid in pids]
"""


def test_a_job_sees_no_process_but_those_of_its_computation(open_inside, gate) -> None:
    other = open_inside(hold).submit(str(gate))
    started(other)
    found = open_inside(act).submit(PROCESSES).get()
    assert len(found) <= 4, "bubblewrap's own, the nursery and its workers"
    assert all("bwrap" in command or "worker" in command for command in found)


SEES = """
import os
result = []
for path in arguments:
    try:
        os.stat(path)
        result.append(path)
    except OSError:
        pass
"""


def test_a_job_sees_neither_homes_nor_secrets_nor_other_computations(
    open_inside, sandboxed, gate, tmp_path: Path
) -> None:
    started(open_inside(hold).submit(str(gate)))
    theirs = [*sandboxed.directory.glob("dispy-node-*/????????????/*")]
    assert theirs, "that of hold"
    secret = tmp_path / "secret"
    secret.write_text("a secret of this test\n")
    outside = [
        *theirs,
        secret,
        Path(__file__),
        Path.home() / ".bashrc",
        "/etc/shadow",
        "/run",
        "/var/log",
    ]
    inside = open_inside(act)
    assert inside.submit(SEES, *map(str, outside)).get() == []
    assert inside.submit("import os; result = len(os.listdir('..'))").get() == 1


WRITES = """
import os
result = {}
for path in arguments:
    try:
        os.close(os.open(path, os.O_WRONLY | (0 if os.path.exists(path) else os.O_CREAT)))
        result[path] = "written"
    except OSError as error:
        result[path] = error.strerror
"""


def test_a_job_changes_neither_the_system_nor_dispy_nor_the_store(open_inside) -> None:
    import dispy

    cluster = open_inside(act)
    store = str(
        Path(cluster.submit("import os; result = os.getcwd()").get()).parent.parent / "store"
    )
    read_only = [
        "/usr/new", "/etc/passwd", "/new", "/dev/new", dispy.__file__, sys.executable,
        f"{store}/new", "/proc/sys/kernel/core_pattern", "/sys/new",
    ]  # fmt: skip
    found = cluster.submit(WRITES, *read_only, "/tmp/new", "/dev/shm/new", "new").get()
    assert {found.pop(path) for path in ("/tmp/new", "/dev/shm/new", "new")} == {"written"}
    assert "written" not in found.values(), found
    assert found["/proc/sys/kernel/core_pattern"] == "Read-only file system"
    listed = cluster.submit("import os; result = os.listdir(arguments[0])", store)
    with pytest.raises(PermissionError):
        listed.get()


def test_a_job_reaches_no_socket_of_its_machine(open_inside, doors: Path) -> None:
    source = """
import socket
result = []
for address in arguments:
    with socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX) as client:
        try:
            client.connect(address)
            result.append(address)
        except OSError:
            pass
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
"""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        abstract.bind(f"\0dispy-test-{os.getpid()}")
        abstract.listen()
        addresses = server.getsockname(), abstract.getsockname().decode()
        assert open_inside(act).submit(source, *addresses).get() == []


RIGHTS = """
import os
with open("/proc/self/status") as file:
    status = dict(line.rstrip("\\n").split(":\t", 1) for line in file if ":\t" in line)
places = []
for name in os.listdir("/proc/self/fd"):
    if os.path.lexists(f"/proc/self/fd/{name}"):
        places.append(os.readlink(f"/proc/self/fd/{name}"))
result = status["CapEff"], status["CapBnd"], status["NoNewPrivs"], places, dict(os.environ)
"""


@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_a_job_has_no_rights_nor_a_file_of_outside(open_inside, sandboxed, isolation) -> None:
    effective, bound, gains_none, places, environment = (
        open_inside(act, isolation=isolation).submit(RIGHTS).get()
    )
    assert int(effective, 16) == int(bound, 16) == 0
    assert gains_none == "1"
    known = ("/proc/", "/dev/null", "socket:", "pipe:", "anon_inode:", "/memfd:")
    assert not [place for place in places if not place.startswith(known)]
    assert os.readlink(f"/proc/{sandboxed.process.pid}/fd/2") not in places, "the node's log"
    assert "TMPDIR" not in environment


def test_a_job_makes_no_namespaces_of_its_own(open_inside) -> None:
    source = "import subprocess; result = subprocess.run(['unshare', '--user', 'true']).returncode"
    assert open_inside(act).submit(source).get() != 0


# -- what works all the same


def test_files_modules_setup_and_values_are_there(open_inside, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "module_of_test.py").write_text("WORD = 'module'")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "data.txt").write_text("data")
    source = """
import module_of_test
result = module_of_test.WORD, open("data.txt").read(), open("prepared").read(), len(arguments[0])
"""

    def setup() -> None:
        with open("prepared", "w") as file:
            file.write("setup")

    import module_of_test

    cluster = open_inside(act, setup=setup, depends=[module_of_test, str(tmp_path / "data.txt")])
    large = cluster.put(bytes(3_000_000))
    assert cluster.submit(source, large).get() == ("module", "data", "setup", 3_000_000)


def in_processes(count: int) -> list[int]:
    with multiprocessing.Pool(2) as pool, multiprocessing.Manager() as manager:
        manager.list([1])
        return pool.map(abs, range(-count, 0))


@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_jobs_may_use_multiprocessing(open_inside, isolation) -> None:
    assert open_inside(in_processes, isolation=isolation).submit(3).get() == [3, 2, 1]


@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_a_running_job_is_cancelled(open_inside, gate, doors: Path, isolation) -> None:
    cluster = open_inside(act, isolation=isolation)
    mark = doors / f"runs-{isolation}"
    job = cluster.submit(
        "open(arguments[0], 'w').close(); open(arguments[1]).read()", str(mark), str(gate)
    )
    wait_until(mark.exists, "the job to begin")
    cluster.cancel(job)
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Terminated
    assert cluster.submit("result = 'free'").get() == "free"


HUNGRY = """
import subprocess, sys
child = [sys.executable, "-c", "kept = b'x' * 80_000_000; input()"]
for started in [subprocess.Popen(child, stdin=subprocess.PIPE) for _ in range(2)]:
    started.wait()
"""


@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_limits_hold(open_inside, gate, isolation) -> None:
    cluster = open_inside(act, isolation=isolation)
    endless = cluster.submit("while True: pass", dispy_job_timeout=0.2)
    hungry = cluster.submit(HUNGRY, dispy_job_memory=100_000_000)
    for job, limit in ((endless, "timeout"), (hungry, "memory")):
        assert job.wait(DEADLINE)
        assert (job.status, limit in job.exception) == (DispyJob.Terminated, True), job.exception


def test_a_program_runs_and_is_interrupted(open_inside, doors: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho said; echo > $1; exec sleep 1000\n")
    program.chmod(0o755)
    mark = doors / "begun"
    cluster = open_inside(str(program))
    job = cluster.submit(str(mark))
    wait_until(mark.exists, "the program to begin")
    cluster.cancel(job)
    assert job.wait(DEADLINE)
    assert (job.status, job.result, job.stdout) == (DispyJob.Terminated, -2, b"said\n")


def test_a_nursery_that_a_job_has_killed_is_replaced(open_inside) -> None:
    cluster = open_inside(act, reentrant=True)
    killed = cluster.submit("import os; os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)")
    assert killed.wait(DEADLINE)
    assert cluster.submit("result = 'goes on'").get() == "goes on"


# -- its end


STAYS = """
import os, signal
if not os.fork():
    os.setsid()
    if not os.fork():
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 3)
        while True:
            signal.pause()
    os._exit(0)
open(arguments[0], "w").close()
while True:
    signal.pause()
"""


def test_nothing_is_left_of_a_node_that_is_killed_with_its_nurseries_stopped(
    start_node, open_cluster, doors: Path, tmp_path: Path
) -> None:
    node = start_node("--sandbox", DISPY_SANDBOX_WRITABLE=str(doors))
    mark = doors / "stays"
    open_cluster(act, nodes=[node.host]).submit(STAYS, str(mark))
    wait_until(mark.exists, "the job to begin")
    for process in psutil.Process(node.process.pid).children(recursive=True):
        if process.name() != "bwrap":
            with contextlib.suppress(psutil.Error):
                process.suspend()  # they cannot help
    node.process.kill()


# -- when it does not start


def refusal(tmp_path: Path, *before: str, **environment: str) -> str:
    """Return what a node says that does not start."""
    command = own_command("node", "--sandbox", "--port=0", f"--dest_path_prefix={tmp_path}/files")
    tried = subprocess.run(
        [*before, *command], env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=DEADLINE,
    )  # fmt: skip
    assert tried.returncode == 2, tried.stderr
    assert "Traceback" not in tried.stderr
    return tried.stderr


def test_without_bubblewrap_the_node_does_not_start(tmp_path: Path) -> None:
    said = refusal(tmp_path, PATH=str(tmp_path))
    assert "--sandbox: a sandbox takes bubblewrap" in said
    assert "apt-get install bubblewrap" in said


def test_where_user_namespaces_are_forbidden_the_node_does_not_start(tmp_path: Path) -> None:
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    before = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]
    if subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("this machine does not let us forbid them")
    said = refusal(tmp_path, *before)
    assert "this machine does not let us make the sandbox: bwrap:" in said
    assert "sysctl -w user.max_user_namespaces" in said
    assert not [*tmp_path.glob("files/dispy-node-*/*")]


def test_what_would_show_the_secret_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "own" / "secret"
    secret.parent.mkdir()
    secret.write_text("a secret of this test\n")
    secret.chmod(0o600)
    said = refusal(tmp_path, DISPY_SECRET_FILE=str(secret), DISPY_SANDBOX_PATHS=str(secret.parent))
    assert f"the sandbox would show {secret} to jobs" in said


def test_gaining_privileges_and_a_sandbox_exclude_each_other(tmp_path: Path) -> None:
    assert "leave out DISPY_NEW_PRIVILEGES" in refusal(tmp_path, DISPY_NEW_PRIVILEGES="1")


# -- as whom it runs


@needs_root
@pytest.mark.parametrize("way", ["a node of that user", "--run-as"])
def test_another_user_needs_no_rights_for_it(
    start_node, open_cluster, open_directory: Path, way  # noqa: F811
) -> None:  # fmt: skip
    python, environment = python_for_all()
    place = open_directory / "files"
    place.mkdir()
    options, run = ["--sandbox"], python
    if way == "--run-as":
        options.append("--run-as=nobody")
    else:
        os.chown(place, NOBODY, NOBODY)
        run, environment = as_nobody(open_directory, python), {**environment, "HOME": "/nowhere"}
    node = start_node(*options, directory=place, python=run, **environment)
    cluster = open_cluster(act, nodes=[node.host], insecure=True)
    large = cluster.put(bytes(3_000_000))
    source = "import os; open('new', 'w').close(); result = os.getuid(), len(arguments[0])"
    assert cluster.submit(source, large).get() == (NOBODY, 3_000_000)
    endless = cluster.submit("while True: pass", dispy_job_timeout=0.2)
    assert endless.wait(DEADLINE)
    assert endless.status == DispyJob.Terminated


# -- what an operator may add


def test_an_operator_may_share_the_network_and_show_files(
    start_node, open_cluster, tmp_path: Path
) -> None:
    shown = tmp_path.parent / f"{tmp_path.name}-shown"
    shown.mkdir()
    (shown / "model").write_text("weights")
    node = start_node(
        "--sandbox", DISPY_SANDBOX_NETWORK="yes", DISPY_SANDBOX_PATHS=f"{shown}/mod*:/dev/kms[g]"
    )
    source = """
import os, socket
socket.create_connection(arguments[0]).close()
result = open(arguments[1]).read(), os.access(arguments[1], os.W_OK), os.path.exists("/dev/kmsg")
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        job = open_cluster(act, nodes=[node.host]).submit(
            source, server.getsockname(), f"{shown}/model"
        )
        assert job() == ("weights", False, True)
