"""Several schedulers, and a program of its own, on the same node: fair shares, and no job twice."""

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from system.conftest import DEADLINE, Gate
from system.schedulers import Open

from dispy import DispyJob, JobCluster

OWNERS = ("first", "second", "own")
JOBS = 60


def run(directory: str, name: str, gate: str) -> str:
    """Write down that a job has begun, and that it ends when the gate lets it."""
    import os

    with open(os.path.join(directory, "begun", name), "a") as file:
        file.write("x")
    with open(gate, "rb", buffering=0) as held:
        held.read(1)
    with open(os.path.join(directory, "ended", name), "w"):
        return name


class Runs:
    """What jobs have written down."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("begun", "ended"):
            (directory / name).mkdir(parents=True)

    def submit(self, cluster: JobCluster, owner: str, gate: Gate) -> list[DispyJob]:
        names = [f"{owner}-{number}" for number in range(JOBS)]
        return [cluster.submit(str(self.directory), name, str(gate)) for name in names]

    def running(self) -> Counter[str]:
        """Count the jobs of each owner that run now."""
        ended = {path.name for path in (self.directory / "ended").iterdir()}
        begun = {path.name for path in (self.directory / "begun").iterdir()} - ended
        return Counter(name.partition("-")[0] for name in begun)

    def often(self) -> set[str]:
        """Return how often jobs have begun, as what they have written."""
        return {path.read_text() for path in (self.directory / "begun").iterdir()}


def wait_for(condition: Callable[[], bool], what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


def test_owners_on_one_node_have_equal_parts_of_it_and_no_job_runs_twice(
    open_shared: Open,
    open_cluster: Callable[..., JobCluster],
    start_scheduler: Callable,
    start_node: Callable,
    gate: Gate,
    tmp_path: Path,
) -> None:
    node, runs = start_node("--cpus=6"), Runs(tmp_path / "runs")
    schedulers = [start_scheduler(node), start_scheduler(node)]
    clusters = [
        open_shared(schedulers[0], run),
        open_shared(schedulers[1], run),
        open_cluster(run, nodes=[node.host]),
    ]
    jobs = runs.submit(clusters[0], OWNERS[0], gate)
    wait_for(lambda: runs.running() == {"first": 6}, runs.running)  # alone it has all
    for cluster, owner in zip(clusters[1:], OWNERS[1:], strict=True):
        jobs += runs.submit(cluster, owner, gate)

    def is_fair() -> bool:
        running = runs.running()
        if running == dict.fromkeys(OWNERS, 2):
            return True
        if sum(running.values()) == 6:
            gate.open()  # who has more than its part gives it up as its jobs end
        return False

    wait_for(is_fair, runs.running)
    for scheduler in schedulers[:1]:
        scheduler.kill()
        scheduler.start()
    # What it has there goes on, and so do the others.
    gate.open(2 * len(jobs))
    for job in jobs:
        assert job.wait(DEADLINE), job.why()
        assert job.status == DispyJob.Finished, job.exception
    assert len(list((runs.directory / "begun").iterdir())) == len(jobs)
    assert runs.often() == {"x"}


def test_a_scheduler_that_goes_leaves_the_whole_node_to_the_others(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate, tmp_path: Path
) -> None:
    node, runs = start_node("--cpus=4"), Runs(tmp_path / "runs")
    schedulers = [start_scheduler(node), start_scheduler(node)]
    clusters = [open_shared(scheduler, run) for scheduler in schedulers]
    for cluster, owner in zip(clusters, OWNERS, strict=False):
        runs.submit(cluster, owner, gate)

    def is_fair() -> bool:
        running = runs.running()
        if running == {"first": 2, "second": 2}:
            return True
        if sum(running.values()) == 4:
            gate.open()
        return False

    wait_for(is_fair, runs.running)
    clusters[0].close(timeout=0, terminate=True)
    wait_for(lambda: runs.running()["second"] == 4, runs.running)
