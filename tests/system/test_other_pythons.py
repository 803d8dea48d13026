"""Code of every kind runs on nodes with another Python as it runs at home, or it is told why not.

The client is `kinds_of_code.py`, run by each Python in turn; nodes of all Pythons are in one
cluster with it.
"""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from other_pythons import OWN, ROOT, VERSIONS, interpreter, others
from system.conftest import DEADLINE, Gate, RunningNode, left_in_the_end, ours

from dispy import DispyJob, JobCluster
from dispy.model.errors import DispyError

HERE = Path(__file__).parent
PROGRAM = HERE / "kinds_of_code.py"


@pytest.fixture(scope="module")
def nodes(
    own_session: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, RunningNode]]:
    """A node of one processor for each Python that is there; all must end without a trace."""
    before, started = ours(), {}
    for place, version in enumerate(sorted([OWN, *others()]), 1):
        directory = tmp_path_factory.mktemp("node")
        host = f"127.2.{os.getpid() % 250}.{os.getpid() // 250 % 250 + place}"
        started[version] = RunningNode(
            directory, host, 51348, "--cpus=1", f"--name=node-{version}",
            python=interpreter(version), PYTHONPATH=str(HERE),
        )  # fmt: skip
    yield started
    for node in started.values():
        assert node.end() == 0, node.said
        assert "Traceback" not in node.said
    assert not left_in_the_end(lambda: ours() - before), "processes were left behind"


def run_kinds(python: str, nodes: dict[str, RunningNode], **environment: str) -> list[str]:
    """Run the program of all kinds; return what it prints."""
    ended = subprocess.run(
        [python, str(PROGRAM), *(node.host for node in nodes.values())],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_kind_of_code_runs_on_every_python(version: str, nodes) -> None:
    told = run_kinds(interpreter(version), nodes)
    assert sorted(told) == [f"{version} to {there}: all as here" for there in sorted(nodes)]


def test_every_kind_of_computation_runs_on_every_python(nodes) -> None:
    told = run_kinds(sys.executable, nodes, COMPUTATIONS="1")
    assert len(told) == 8
    assert [line.partition(": ")[2] for line in told] == ["all as here"] * 8


def made_by_exec(name: str, text: str) -> object:
    """Return what the text defines, which no file has."""
    names: dict = {}
    exec(text, names)
    return names[name]


@pytest.fixture
def foreign(nodes) -> RunningNode:
    """A node that runs another Python."""
    return next(node for version, node in nodes.items() if version != OWN)


def version_of(node: RunningNode, nodes: dict[str, RunningNode]) -> str:
    return next(version for version, each in nodes.items() if each is node)


def test_without_source_other_nodes_refuse_and_those_with_our_python_go_on(
    open_cluster, nodes
) -> None:
    tell = made_by_exec("tell", "def tell(n):\n import sys\n return sys.version_info[1], n")
    hosts = [node.host for node in nodes.values()]
    cluster = open_cluster(tell, nodes=hosts, local_node=False)
    jobs = [cluster.submit(n) for n in range(20)]
    for n, job in enumerate(jobs):
        assert job.wait(DEADLINE), job.why()
        assert job.result == (sys.version_info[1], n)


def test_without_source_the_object_and_both_versions_are_named(
    open_cluster, foreign, nodes
) -> None:
    tell = made_by_exec("tell", "def tell(n): return n")

    def compute(n):
        return tell(n)

    cluster = open_cluster(compute, nodes=[foreign.host], local_node=False)
    job = cluster.submit(1)
    deadline = time.monotonic() + DEADLINE
    while "cannot run" not in (why := job.why()):
        assert time.monotonic() < deadline, why
        time.sleep(0.01)
    there = version_of(foreign, nodes)
    for said in ("'tell'", "no source text", f"cpython {there}", f"cpython {OWN}"):
        assert said in why


def test_an_argument_without_source_ends_the_job_with_its_name_and_both_versions(
    open_cluster, foreign, nodes
) -> None:
    def call(function):
        return function(1)

    cluster = open_cluster(call, nodes=[foreign.host], local_node=False)
    job = cluster.submit(made_by_exec("argument", "def argument(n): return n"))
    assert job.wait(DEADLINE), job.why()
    assert (job.status, job.result) == (DispyJob.Terminated, None)
    with pytest.raises(DispyError, match="a call of call cannot be sent") as raised:
        job.get()
    there = version_of(foreign, nodes)
    for said in ("'argument'", "no source text", f"cpython {there}", f"cpython {OWN}"):
        assert said in str(raised.value)


def test_a_result_without_source_ends_the_job_with_its_name_and_both_versions(
    open_cluster, foreign, nodes
) -> None:
    def make(n):
        names = {}
        exec("def result(n): return n", names)
        return names["result"]

    cluster = open_cluster(make, nodes=[foreign.host], local_node=False)
    job = cluster.submit(1)
    assert job.wait(DEADLINE), job.why()
    there = version_of(foreign, nodes)
    assert job.status == DispyJob.Terminated
    for said in ("'result'", "no source text", f"cpython {there}", f"cpython {OWN}"):
        assert said in job.exception
    items = cluster.map([1, 2])
    for _ in range(2):
        with pytest.raises(DispyError, match="no source text"):
            next(items)


def test_all_nodes_get_the_state_of_the_moment_when_it_was_packed(
    open_cluster, gate: Gate, nodes, tmp_path: Path
) -> None:
    other = next(version for version in nodes if version != OWN)
    hosts = [f"127.3.{os.getpid() % 250}.{place}" for place in (1, 2)]
    state = {"n": 1}

    def read(sent, function, gate=None):
        if gate:
            with open(gate) as file:
                file.read(1)
        return state["n"], sent, function()

    with contextlib.ExitStack() as running:

        def start(host: str, version: str) -> None:
            node = RunningNode(tmp_path, host, 51348, "--cpus=1", python=interpreter(version))
            running.callback(node.end)

        start(hosts[0], OWN)
        cluster = open_cluster(read, nodes=hosts, local_node=False, ping_interval=1)
        sent = [1]
        holding = cluster.submit(sent, lambda: state["n"], str(gate))
        waiting = cluster.submit(sent, lambda: state["n"])  # nobody knows of the other node yet
        state["n"] = 2
        sent.append(2)
        start(hosts[1], other)
        assert waiting.wait(DEADLINE), waiting.why()
        assert (waiting.result, waiting.ip_addr) == ((1, [1], 1), hosts[1])
        gate.open()
        assert holding.wait(DEADLINE), holding.why()
        assert (holding.result, holding.ip_addr) == ((1, [1], 1), hosts[0])


def test_a_program_runs_on_another_python(open_cluster, foreign, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(sys.version_info[1], *sys.argv[1:])\n")
    cluster: JobCluster = open_cluster(str(script), nodes=[foreign.host], local_node=False)
    job = cluster.submit("dispy", 1)
    assert job.wait(DEADLINE), job.why()
    assert job.result == 0
    minor, *rest = job.stdout.split()
    assert int(minor) != sys.version_info[1]
    assert rest == [b"dispy", b"1"]
