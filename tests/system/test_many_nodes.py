"""Many nodes and programs of one scheduler, simulated: that nothing is lost; speeds are not tested.

The wire is the true one; see `tests/bench/many_nodes.py`, which measures.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from system.conftest import DEADLINE

from tests.bench.simulated import Nodes, RunningScheduler, Simulated

ROOT = Path(__file__).parents[2]
COUNT = 200
PLAIN = {"DISPY_SECRET_FILE": "none"}


@pytest.fixture
def stack(nothing_left: None) -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def host(number: int) -> str:
    return f"127.9.{os.getpid() % 250}.{number}"


def some_nodes(stack: ExitStack, **environment: str) -> Nodes:
    first = os.getpid() % 1000 * COUNT
    return Nodes(stack, COUNT, 2, first=first, **{**PLAIN, **environment})


def wait_until_all_are_there(nodes: Nodes) -> None:
    deadline = time.monotonic() + DEADLINE
    while (settled := nodes.tell("settled")) < COUNT:
        assert time.monotonic() < deadline, f"{settled} of {COUNT} nodes are connected"
        time.sleep(0.05)


def test_each_job_of_many_programs_runs_once_on_some_of_many_nodes(stack: ExitStack) -> None:
    nodes = some_nodes(stack)
    scheduler = RunningScheduler(stack, nodes.names, host(1), **PLAIN)
    wait_until_all_are_there(nodes)
    crowd = Simulated(
        stack, "simulated_clients", host(1), "--clients=20", "--rules", "--jobs=100", **PLAIN
    )
    alone = Simulated(
        stack, "simulated_clients", host(1), f"--nodes={COUNT}", "--jobs=5000", **PLAIN
    )
    for step in ("connect", "open", "run", "run", "close"):
        crowd.ask(step)  # each result is compared with what its job was given
        alone.ask(step)
    assert nodes.tell("jobs_run") == 2 * (20 * 100 + 5000)
    assert nodes.tell("batches") < 2 * (20 * 100 + 5000), "short jobs go in packets"
    assert not scheduler.said("Traceback")


def test_nodes_come_back_when_a_scheduler_with_a_secret_is_killed(
    stack: ExitStack, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text(os.urandom(32).hex())
    environment = {"DISPY_SECRET_FILE": str(secret)}
    nodes = some_nodes(stack, **environment)
    first = RunningScheduler(stack, nodes.names, host(2), **environment)
    wait_until_all_are_there(nodes)
    first.kill()
    deadline = time.monotonic() + DEADLINE
    while nodes.tell("settled"):
        assert time.monotonic() < deadline, "nodes have not noticed"
        time.sleep(0.05)
    second = RunningScheduler(stack, nodes.names, host(2), **environment)
    wait_until_all_are_there(nodes)
    client = Simulated(
        stack, "simulated_clients", host(2), f"--nodes={COUNT}", "--jobs=1000", **environment
    )
    for step in ("connect", "open", "run", "close"):
        client.ask(step)
    assert nodes.tell("jobs_run") == 1000
    assert not second.said("Traceback")


def test_the_measurements_say_what_has_a_limit(nothing_left: None) -> None:
    command = [
        sys.executable, "-m", "tests.bench.many_nodes", "--only=idle", "--nodes=20",
        "--seconds=1", f"--host={host(3)}",
        f"--first={os.getpid() % 1000 * COUNT}",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert "Traceback" not in done.stderr, done.stderr
    assert "memory of an idle node" in done.stdout
    assert "at most 60" in done.stdout
    assert done.returncode == int("MISSED" in done.stdout), "its status says whether all are kept"
