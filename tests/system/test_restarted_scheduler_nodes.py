"""What a scheduler that was killed finds at its nodes when it is started again."""

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from system.conftest import DEADLINE, Gate
from system.schedulers import Open, wait_until_running

from dispy import DispyJob


def set_up(log: str, go_on: str) -> int:
    """Write a line; at the second time, wait for a file."""
    with open(log, "a") as file:
        file.write("set up\n")
    with open(log) as file:
        is_again = len(file.readlines()) > 1
    while is_again and not os.path.exists(go_on):
        time.sleep(0.02)
    return 0


def end_nursery(gate: str | None) -> str:
    """Wait at the gate, then kill the nursery; without one, do nothing."""
    if gate is not None:
        descriptor = os.open(gate, os.O_RDONLY)
        os.read(descriptor, 1)
        os.close(descriptor)
        os.kill(os.getppid(), signal.SIGKILL)
    return "ran"


def test_jobs_go_to_a_node_whose_nursery_was_being_replaced(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate, tmp_path: Path
) -> None:
    log, go_on = tmp_path / "log", tmp_path / "go on"
    scheduler = start_scheduler(start_node("--cpus=1"))
    setup = functools.partial(set_up, str(log), str(go_on))
    cluster = open_shared(scheduler, end_nursery, setup=setup, isolation="worker")
    ending = cluster.submit(str(gate))
    wait_until_running(ending)
    scheduler.kill()
    gate.open()
    deadline = time.monotonic() + DEADLINE
    while log.read_text().count("set up") < 2:
        assert time.monotonic() < deadline, "it was not replaced"
        time.sleep(0.02)
    scheduler.start()
    assert ending.wait(DEADLINE), "the scheduler speaks with the node"
    go_on.touch()
    assert cluster.submit(None).get(DEADLINE) == "ran"


def test_a_node_that_was_restarted_meanwhile_takes_the_place_of_the_one_before(
    open_shared: Open, start_scheduler: Callable, start_node: Callable
) -> None:
    node = start_node("--cpus=1")
    scheduler = start_scheduler(node)
    cluster = open_shared(scheduler, end_nursery)
    assert cluster.submit(None).get(DEADLINE) == "ran"
    scheduler.kill()
    node.process.kill()
    node.process.communicate()
    scheduler.start()
    scheduler.wait_for("connected")  # the program, which believes in the node before
    start_node("--cpus=1", host=node.host)
    assert cluster.submit(None).get(DEADLINE) == "ran"  # by the new one
    job = cluster.submit_node(node.host, None)
    assert job is not None
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Finished, job.exception
