"""A shared scheduler that is killed or ended, and started again: nothing is lost or done twice."""

import os
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from system.conftest import DEADLINE, Gate, hold
from system.schedulers import Open, wait_until_running

from dispy import DispyJob


def note_and_hold(path: str, gate: str, value: int) -> int:
    """Write down that the job has begun, and wait at a gate."""

    with open(path, "a") as file:
        file.write(f"{value}\n")
    descriptor = os.open(gate, os.O_RDONLY)
    os.read(descriptor, 1)
    os.close(descriptor)
    return value


def echo(value: bytes, gate: str = "") -> bytes:
    """Return what came, when a gate is opened."""
    import os

    if gate:
        descriptor = os.open(gate, os.O_RDONLY)
        os.read(descriptor, 1)
        os.close(descriptor)
    return value


def tell_and_hold(gate: str) -> str:
    """Send a value and wait at a gate, three times."""
    for number in range(3):
        dispy_provisional_result(number)  # noqa: F821
        descriptor = os.open(gate, os.O_RDONLY)
        os.read(descriptor, 1)
        os.close(descriptor)
    return "done"


def double(number: int) -> int:
    return 2 * number


def test_jobs_that_run_and_jobs_that_wait_outlive_a_scheduler_that_is_killed(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate, tmp_path: Path
) -> None:
    node = start_node("--cpus=1")
    scheduler = start_scheduler(node)
    cluster = open_shared(scheduler, note_and_hold)
    begun = tmp_path / "begun"
    jobs = [cluster.submit(str(begun), str(gate), each) for each in range(5)]
    wait_until_running(jobs[0])
    for _ in range(2):
        scheduler.kill()
        scheduler.start()
    gate.open(5)
    assert [job.get(DEADLINE) for job in jobs] == [0, 1, 2, 3, 4]
    assert begun.read_text().split() == ["0", "1", "2", "3", "4"]  # in order, each once


def test_what_ends_while_there_is_no_scheduler_is_delivered_once(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    ended: list[DispyJob] = []
    node = start_node("--cpus=1")
    scheduler = start_scheduler(node)
    cluster = open_shared(scheduler, hold, callback=ended.append)
    job = cluster.submit(str(gate), "kept")
    wait_until_running(job)
    scheduler.kill()
    gate.open()
    scheduler.start()
    assert job.get(DEADLINE) == "kept"
    gate.open()
    assert cluster.submit(str(gate), "later").get(DEADLINE) == "later"
    assert cluster.wait(DEADLINE)
    assert [each.status for each in ended] == [DispyJob.Finished] * 2


def test_provisional_values_are_told_once_though_the_scheduler_is_killed(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    told: queue.Queue[Any] = queue.Queue()
    scheduler = start_scheduler(start_node("--cpus=1"))
    cluster = open_shared(scheduler, tell_and_hold, callback=lambda job: told.put(job.result))
    job = cluster.submit(str(gate))
    for number in range(3):
        assert told.get(timeout=DEADLINE) == number
        scheduler.kill()  # before the node hears that it may forget the value
        scheduler.start()
        gate.open()
    assert told.get(timeout=DEADLINE) == "done"
    assert job.get(DEADLINE) == "done"


def test_nodes_and_programs_know_a_scheduler_again_by_its_key(
    open_shared: Open,
    start_scheduler: Callable,
    start_node: Callable,
    gate: Gate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a secret, who is who depends on keys, which each process makes for itself else."""
    secret = tmp_path / "secret"
    secret.write_text("of-nine-words-and-a-half\n")
    secret.chmod(0o600)
    monkeypatch.setenv("DISPY_SECRET_FILE", str(secret))
    node = start_node("--cpus=1")
    scheduler = start_scheduler(node)
    begun = tmp_path / "begun"
    cluster = open_shared(scheduler, note_and_hold)
    jobs = [cluster.submit(str(begun), str(gate), each) for each in range(3)]
    wait_until_running(jobs[0])
    assert scheduler.end() == 0
    scheduler.start()
    gate.open(3)
    assert [job.get(DEADLINE) for job in jobs] == [0, 1, 2]
    assert begun.read_text().split() == ["0", "1", "2"]


def test_a_job_that_may_not_run_again_is_abandoned_if_its_node_dies_with_the_scheduler(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    node = start_node("--cpus=1")
    scheduler = start_scheduler(node)
    single = open_shared(scheduler, hold, pulse_interval=1)
    lost, waiting = single.submit(str(gate), "lost"), single.submit(str(gate), "waiting")
    wait_until_running(lost)
    scheduler.kill()
    node.process.kill()
    node.process.communicate()
    scheduler.start()
    assert lost.wait(DEADLINE)
    assert lost.status == DispyJob.Abandoned
    assert "was lost" in lost.exception
    assert waiting.status == DispyJob.Created


def test_arguments_and_results_that_have_no_room_in_memory_pass_all_the_same(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    scheduler = start_scheduler(start_node("--cpus=1"), options=["--memory=1M"])
    cluster = open_shared(scheduler, echo)
    first = cluster.submit(b"", str(gate))
    wait_until_running(first)
    values = [bytes([each]) * 100_000 for each in range(60)]
    jobs = [cluster.submit(value) for value in values]
    gate.open()
    assert [job.get(DEADLINE) for job in jobs] == values


def test_many_jobs_outlive_kills_and_none_is_lost(
    open_shared: Open, start_scheduler: Callable, start_node: Callable
) -> None:
    scheduler = start_scheduler(start_node("--cpus=2"))
    cluster = open_shared(scheduler, double)
    jobs = [cluster.submit(each) for each in range(20_000)]
    for wanted in (100, 5_000, 10_000):
        assert jobs[wanted].wait(DEADLINE), jobs[wanted].why()
        scheduler.kill()
        scheduler.start()
    deadline = time.monotonic() + DEADLINE
    for number, job in enumerate(jobs):
        assert job.get(max(0.0, deadline - time.monotonic())) == 2 * number
