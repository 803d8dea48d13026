"""A shared scheduler that is killed or ended, and started again: nothing is lost or done twice."""

import os
import time
from collections.abc import Callable
from pathlib import Path

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
