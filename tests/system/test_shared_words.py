"""What people are told of clusters at a shared scheduler, in the programs that these belong to."""

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from system.conftest import DEADLINE, Gate, Program, hold
from system.schedulers import Open, wait_until_running

from dispy import SharedJobCluster


def failing() -> int:
    print("no table here")
    raise ValueError("no such table")


def double(n: int) -> int:
    return 2 * n


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def test_what_nodes_say_of_a_cluster_is_in_its_programs_log_and_in_no_others(
    open_shared: Open,
    start_scheduler: Callable,
    start_node: Callable,
    run_program: Callable[..., Program],
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = """
import dispy, sys

def double(n):
    return 2 * n

if __name__ == "__main__":
    with dispy.SharedJobCluster(double, scheduler_host=sys.argv[1]) as cluster:
        print(cluster.submit(1)(), flush=True)
        sys.stdin.readline()
        print(cluster.submit(2)(), flush=True)
"""
    scheduler = start_scheduler(start_node("--name=bare"))
    other = run_program(source, scheduler.host)
    while "2" not in other.line().split():
        assert other.process.poll() is None, other.output
    cluster = open_shared(scheduler, double, setup=failing)
    cluster.submit(1)
    wait_for(lambda: "cannot run" in caplog.text, "the node's word")
    (said,) = [record for record in caplog.records if "cannot run" in record.getMessage()]
    assert (said.name, said.levelno) == ("dispy.scheduler", logging.ERROR)
    assert "node bare cannot run 'double'" in said.getMessage()
    assert "ValueError: no such table" in said.getMessage()
    assert "setup of double on node bare wrote to stdout:\nno table here" in caplog.text
    assert "ValueError: no such table" in cluster.status().nodes[0].error
    other.say("go on")
    assert other.end() == 0, other.output
    assert "4" in other.output.split()
    assert "no such table" not in other.output
    scheduler.end()
    assert "node bare cannot run 'double'" in scheduler.said


def test_who_waits_is_told_by_the_scheduler_why(
    open_shared: Open,
    start_scheduler: Callable,
    start_node: Callable,
    gate: Gate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduler = start_scheduler(start_node("--cpus=1"))
    first = open_shared(scheduler, hold)
    running = first.submit(str(gate))
    wait_until_running(running)
    waiting = SharedJobCluster(double, scheduler_host=scheduler.host, exclusive=True)
    job = waiting.submit(3)
    wait_for(lambda: "exclusively" in caplog.text, "the reason")
    assert "jobs of double (1) have waited for" in caplog.text
    gate.open()
    assert running.wait(DEADLINE)
    first.close()
    assert job.get(DEADLINE) == 6
    wait_for(lambda: "jobs of double go on" in caplog.text, "the end of it")
    waiting.close()


def test_the_loss_of_a_node_is_told_to_those_who_used_it(
    open_shared: Open,
    start_scheduler: Callable,
    start_node: Callable,
    caplog: pytest.LogCaptureFixture,
) -> None:
    node = start_node("--name=leaving")
    cluster = open_shared(start_scheduler(node), double)
    assert cluster.submit(1).get(DEADLINE) == 2
    assert node.end() == 0
    words = f"node leaving ({node.host}) is lost: node leaving was ended by its operator"
    wait_for(lambda: words in caplog.text, "the loss")


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs a mount namespace of its own"
)
def test_jobs_that_a_node_holds_back_are_told_of_and_go_on(
    open_shared: Open,
    start_scheduler: Callable,
    start_node: Callable,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = tmp_path / "meminfo"

    def available(kilobytes: int) -> None:
        sizes = {"MemTotal": 4_000_000, "MemFree": 100_000, "MemAvailable": kilobytes,
                 "Buffers": 0, "Cached": 0, "SwapTotal": 0, "SwapFree": 0}  # fmt: skip
        memory.write_text("".join(f"{name}: {size:7} kB\n" for name, size in sizes.items()))

    available(150_000)
    mount = f'mount --bind {memory} /proc/meminfo && exec "$@"'
    node = start_node("--name=short", under=["unshare", "--mount", "sh", "-c", mount, "sh"])
    cluster = open_shared(start_scheduler(node), double)
    job = cluster.submit(4)
    wait_for(lambda: "its machine is short of memory: 154 MB" in caplog.text, "that")
    assert "jobs of double (1) have waited" in caplog.text
    available(3_000_000)
    assert job.get(DEADLINE) == 8
