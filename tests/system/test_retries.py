"""Workers that die under their jobs: what these become, and how often they are tried."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispy import DispyJob, JobCluster

Open = Callable[..., JobCluster]


def die(times: int, log: str) -> int:
    """Kill the own process in the first so many runs."""
    attempt = int(os.environ["DISPY_ATTEMPT"])
    with open(log, "a") as file:
        print(attempt, file=file)
    if attempt <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


def fail_on(name: str) -> str:
    if dispy_node_name == name:  # type: ignore[name-defined]  # noqa: F821
        raise OSError("no space left on this node")
    time.sleep(0.005)
    return dispy_node_name  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_a_job_whose_process_died_runs_again_and_can_see_it(
    open_cluster: Open, shared_node: Any, tmp_path: Path, isolation: str
) -> None:
    cluster = open_cluster(die, nodes=[shared_node.host], retries=2, isolation=isolation)
    jobs = [cluster.submit(times, str(tmp_path / str(times))) for times in range(4)]
    assert [job() for job in jobs] == [1, 2, 3, None]
    assert [(tmp_path / str(times)).read_text().split() for times in range(4)] == [
        ["1"], ["1", "2"], ["1", "2", "3"], ["1", "2", "3"],
    ]  # fmt: skip
    assert jobs[3].status == DispyJob.Terminated
    assert jobs[3].exception.startswith("it was begun 3 times:\n")
    assert jobs[3].exception.count("was killed by SIGKILL") == 3


def test_without_a_word_about_it_no_job_runs_twice(
    open_cluster: Open, shared_node: Any, tmp_path: Path
) -> None:
    cluster = open_cluster(die, nodes=[shared_node.host])
    job = cluster.submit(1, str(tmp_path / "log"))
    patient = cluster.submit(1, str(tmp_path / "other"), dispy_job_retries=1)
    assert (job(), patient()) == (None, 2)
    assert (tmp_path / "log").read_text() == "1\n"
    assert "begun" not in job.exception


def test_a_cancelled_job_and_one_that_reached_a_limit_do_not_run_again(
    open_cluster: Open, shared_node: Any, gate: Any
) -> None:
    def hold(path: str) -> str:
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open(path) as file:
            return file.read()

    cluster = open_cluster(hold, nodes=[shared_node.host], retries=5, timeout=0.3, grace=0.1)
    job = cluster.submit(str(gate))
    assert job() is None
    assert "reached its limit" in job.exception
    assert "begun" not in job.exception


def test_a_node_that_fails_all_its_jobs_is_set_aside_and_brought_back(
    open_cluster: Open, start_node: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = start_node("--name=good", "--cpus=1"), start_node("--name=bad", "--cpus=1")
    cluster = open_cluster(fail_on, nodes=[good.host, bad.host])
    deadline = time.monotonic() + 30
    while "gets no more of these jobs" not in caplog.text:
        assert time.monotonic() < deadline, "it was never set aside"
        for job in [cluster.submit("bad") for _ in range(40)]:
            job()
    assert "node bad gets no more" in caplog.text
    assert "no space left" in caplog.text
    assert {job() for job in [cluster.submit("bad") for _ in range(20)]} == {"good"}
    assert cluster.allocate_node(bad.host) == 0
    deadline = time.monotonic() + 30
    while {job() for job in [cluster.submit("nobody") for _ in range(20)]} != {"good", "bad"}:
        assert time.monotonic() < deadline, "it was not brought back"
