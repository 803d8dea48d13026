"""Cancelling a job: at once while it waits, by its own decision or by force when it runs."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispy import DispyJob, JobCluster

DEADLINE = 30.0  # seconds; for machines that are busy with something else


def act(source: str) -> object:
    names: dict = {}
    exec(source, names)
    return names.get("result")


@pytest.fixture(scope="module", params=["worker", "job"])
def cluster(shared_node: Any, request: pytest.FixtureRequest) -> Iterator[JobCluster]:
    opened = JobCluster(act, nodes=[shared_node.host], isolation=request.param)
    for job in [opened.submit("result = 1") for _ in range(200)]:
        assert job.wait(DEADLINE)
    yield opened
    opened.close(timeout=0, terminate=True)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


@pytest.fixture
def begun(tmp_path: Path) -> Callable[..., Callable[[], bool]]:
    """Return a test for whether the job has come so far, and the source that says so."""

    def make(name: str = "begun") -> tuple[str, Callable[[], bool]]:
        path = tmp_path / name
        return f"open({str(path)!r}, 'w').close()", path.exists

    return make


def start(cluster: JobCluster, source: str, begun: Any, name: str = "begun") -> DispyJob:
    """Submit a job; return when its code says that it has begun."""
    mark, has_begun = begun(name)
    job = cluster.submit(source.replace("BEGUN", mark))
    wait_until(has_begun, "the job to begin")
    return job


def test_a_queued_job_is_cancelled_at_once_and_a_second_cancel_is_refused(
    cluster: JobCluster, begun: Any
) -> None:
    running = [
        start(cluster, "BEGUN\nimport time; time.sleep(1000)", begun, str(n)) for n in range(2)
    ]
    queued = cluster.submit("result = 1")
    assert cluster.cancel(queued) == 0
    assert queued.wait(DEADLINE)
    assert (queued.status, queued.result) == (DispyJob.Cancelled, None)
    assert cluster.cancel(queued) == -1
    for job in running:
        assert cluster.cancel(job) == 0
        assert cluster.cancel(job) == -1
        assert job.wait(DEADLINE)
        assert cluster.cancel(job) == -1


def test_a_running_job_may_catch_the_interrupt_and_return(cluster: JobCluster, begun: Any) -> None:
    source = """
import time
try:
    BEGUN
    time.sleep(1000)
except KeyboardInterrupt:
    print("cleaned up")
    result = "the best so far"
"""
    job = start(cluster, source, begun)
    assert cluster.cancel(job) == 0
    assert job.wait(DEADLINE)
    assert (job.status, job.result) == (DispyJob.Finished, "the best so far")
    assert job.stdout == "cleaned up\n"


def test_a_running_job_that_does_not_catch_it_is_terminated(
    cluster: JobCluster, begun: Any
) -> None:
    job = start(cluster, "print('said')\nBEGUN\nimport time; time.sleep(1000)", begun)
    assert cluster.cancel(job) == 0
    assert job.wait(DEADLINE)
    assert (job.status, job.result) == (DispyJob.Terminated, None)
    assert job.exception.startswith("cancelled while it ran:\nTraceback")
    assert job.exception.endswith("KeyboardInterrupt\n")
    assert job.stdout == "said\n"


def test_what_a_cancelled_job_had_started_is_interrupted_too(
    cluster: JobCluster, begun: Any
) -> None:
    source = """
import subprocess
child = subprocess.Popen(["sleep", "1000"])
try:
    BEGUN
    child.wait()
except KeyboardInterrupt:
    child.wait()
    result = "ended"
"""
    job = start(cluster, source, begun)
    cluster.cancel(job)
    assert job() == "ended"


@pytest.mark.parametrize("many", [1, 2, 40])
def test_a_cancel_that_comes_at_any_moment_ends_its_job_and_no_other(
    cluster: JobCluster, many: int
) -> None:
    """Also before the worker has begun it, and while it is behind others in a packet."""
    short = "import time; time.sleep(0.0001); result = 1"
    for _ in range(20):
        others = [cluster.submit(short) for _ in range(many // 2)]
        job = cluster.submit("import time; time.sleep(1000)")
        others += [cluster.submit(short) for _ in range(many // 2)]
        assert cluster.cancel(job) == 0
        assert job.wait(5), "the interrupt was lost"
        assert job.status in (DispyJob.Cancelled, DispyJob.Terminated)
        assert "cancelled" in job.exception
        assert [other() for other in others] == [1] * len(others)


def test_a_cancel_that_overtakes_its_job_s_large_argument_is_not_lost(shared_node: Any) -> None:
    def wait(data: bytes) -> None:
        time.sleep(1000)

    cluster = JobCluster(wait, nodes=[shared_node.host])
    try:
        jobs = [cluster.submit(bytes(50_000_000)) for _ in range(2)]
        wait_until(lambda: all(job.status == DispyJob.Running for job in jobs), "both to be sent")
        for job in jobs:
            assert cluster.cancel(job) == 0
        for job in jobs:
            assert job.wait(5), "the cancel was lost"
    finally:
        cluster.close(timeout=0, terminate=True)


def test_force_is_used_on_jobs_that_do_not_listen(cluster: JobCluster, begun: Any) -> None:
    """SIGTERM after 6 seconds, SIGKILL after 8; both at once here, to save time."""
    ignores = """
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
BEGUN
time.sleep(1000)
"""
    in_c = """
import ctypes
mutex, c = ctypes.create_string_buffer(64), ctypes.PyDLL(None)
while True:
    try:
        BEGUN
        c.pthread_mutex_lock(mutex)
        c.pthread_mutex_lock(mutex)
    except KeyboardInterrupt:
        pass  # on a slow machine it comes before the lock
"""
    jobs = {
        "SIGKILL": start(cluster, ignores, begun, "ignores"),
        "SIGTERM": start(cluster, in_c, begun, "in C"),
    }
    for job in jobs.values():
        assert cluster.cancel(job) == 0
    for signal_name, job in jobs.items():
        assert job.wait(DEADLINE)
        assert (job.status, job.result) == (DispyJob.Terminated, None)
        assert f"cancelled; the worker process was killed by {signal_name}" in job.exception
    assert cluster.submit("result = 3")() == 3


def test_close_terminates_a_map_that_nobody_wants_any_more(shared_node: Any, begun: Any) -> None:
    mark, has_begun = begun()
    cluster = JobCluster(act, nodes=[shared_node.host])
    results = cluster.map([f"{mark}\nimport time; time.sleep(1000)"] * 10)
    wait_until(has_begun, "the first item to begin")
    assert cluster.close(timeout=0, terminate=True) is True
    with pytest.raises(Exception, match="its cluster was closed"):
        next(results)


@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_a_new_workers_first_job_hears_of_its_cancel_as_soon_as_it_can(
    shared_node: Any, isolation: str
) -> None:
    for _ in range(5):
        with JobCluster(act, nodes=[shared_node.host], isolation=isolation) as fresh:
            job = fresh.submit("while True: pass")
            wait_until(lambda job=job: job.status == DispyJob.Running, "the job to be sent")
            fresh.cancel(job)
            assert job.wait(DEADLINE)
            assert "KeyboardInterrupt" in job.exception, "no force was needed"
