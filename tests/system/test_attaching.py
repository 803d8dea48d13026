"""Programs that leave their cluster to a shared scheduler, and others that attach to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from system.conftest import DEADLINE, Gate, Program, hold
from system.schedulers import RunningScheduler, wait_until_running

from dispy import DispyError, DispyJob, SharedJobCluster

SUBMITS = """
import dispy, os, sys

def hold(gate, value):
    import os
    descriptor = os.open(gate, os.O_RDONLY)
    os.read(descriptor, 1)
    os.close(descriptor)
    print("said", value)
    if value == 3:
        raise ValueError("three is bad")
    return value

if __name__ == "__main__":
    host, gate, end = sys.argv[1:4]
    cluster = dispy.SharedJobCluster(hold, scheduler_host=host, name="sweep", key="the key")
    jobs = []
    for value in range(5):
        job = cluster.submit(gate, value)
        job.id = ("value", value)
        jobs.append(job)
    if end == "collects":
        print("first", jobs[0](), flush=True)
        for job in jobs[:4]:
            job.finish.wait()
        print("received", flush=True)
        print("last", jobs[-1](), flush=True)
    if end == "detaches":
        assert cluster.detach()
        assert jobs[-1].status == dispy.DispyJob.Abandoned, jobs[-1]
        print("left", flush=True)
"""


@pytest.fixture
def attach(own_session: None) -> Any:
    """Attach to clusters; they are closed, by force, when the test has ended."""
    attached: list[SharedJobCluster] = []

    def attach_one(scheduler: RunningScheduler, key: str = "the key", **options: Any) -> Any:
        cluster = SharedJobCluster.attach("sweep", key, scheduler_host=scheduler.host, **options)
        attached.append(cluster)
        return cluster

    yield attach_one
    for cluster in attached:
        cluster.close(timeout=0, terminate=True)


def wait_for(program: Program, words: str) -> None:
    while words not in program.line():
        assert program.process.poll() is None, program.output


@pytest.mark.parametrize("end", ["detaches", "ends"])
def test_another_program_collects_what_one_has_left_by_name_and_key(
    end: str, run_program: Callable[..., Program], start_scheduler: Callable,
    start_node: Callable, gate: Gate, attach: Callable,
) -> None:  # fmt: skip
    scheduler = start_scheduler(start_node("--cpus=2"))
    program = run_program(SUBMITS, scheduler.host, str(gate), end)
    assert program.end() == 0, program.output
    told: list[Any] = []
    cluster = attach(scheduler, callback=lambda job: told.append(job.id))
    jobs = {job.id: job for job in cluster.jobs}
    assert list(jobs) == [("value", value) for value in range(5)]
    gate.open(5)
    assert [jobs["value", value].get(DEADLINE) for value in (0, 1, 2, 4)] == [0, 1, 2, 4]
    with pytest.raises(ValueError, match="three is bad"):
        jobs["value", 3].get(DEADLINE)
    assert jobs["value", 1].stdout == "said 1\n"
    assert cluster.wait(DEADLINE)
    assert sorted(told) == list(jobs)
    gate.open()
    assert cluster.submit(str(gate), 7).get(DEADLINE) == 7
    assert cluster.close() is True
    with pytest.raises(DispyError, match="no cluster of this name with this key"):
        attach(scheduler)


@pytest.mark.parametrize("restarts", [False, True])
def test_what_one_that_is_killed_has_received_and_not_asked_for_is_not_lost(
    restarts: bool, run_program: Callable[..., Program], start_scheduler: Callable,
    start_node: Callable, gate: Gate, attach: Callable,
) -> None:  # fmt: skip
    scheduler = start_scheduler(start_node("--cpus=1"))
    program = run_program(SUBMITS, scheduler.host, str(gate), "collects")
    gate.open(4)
    wait_for(program, "first 0")
    wait_for(program, "received")
    program.process.kill()
    scheduler.wait_for("is away")
    if restarts:
        scheduler.kill()
        scheduler.start()
    cluster = attach(scheduler)
    jobs = {job.id: job for job in cluster.jobs}
    assert list(jobs) == [("value", value) for value in range(1, 5)]
    assert [jobs["value", value].get(DEADLINE) for value in (1, 2)] == [1, 2]
    with pytest.raises(ValueError, match="three is bad"):
        jobs["value", 3].get(DEADLINE)
    gate.open()
    assert jobs["value", 4].get(DEADLINE) == 4


def test_what_is_left_outlives_a_restart_and_what_was_asked_for_is_not_told_again(
    open_shared: Callable, start_scheduler: Callable, start_node: Callable, gate: Gate,
    attach: Callable,
) -> None:  # fmt: skip
    scheduler = start_scheduler(start_node("--cpus=1"))
    cluster = open_shared(scheduler, hold, name="sweep", key="the key")
    jobs = [cluster.submit(str(gate), value) for value in range(3)]
    jobs[2].id = "two"
    later = cluster.submit_job_id({"a": 1}, str(gate), 3)
    gate.open(3)
    assert jobs[2].wait(DEADLINE)
    assert jobs[1].get(DEADLINE) == 1
    assert cluster.detach()
    assert later.status == DispyJob.Abandoned
    assert "attach to it" in later.exception
    assert jobs[0].result == 0  # what it has is not taken from it, and is told to others too
    scheduler.kill()
    scheduler.start()
    cluster = attach(scheduler)
    assert [job.id for job in cluster.jobs] == [jobs[0].id, "two", {"a": 1}]
    gate.open(1)
    assert [job.get(DEADLINE) for job in cluster.jobs] == [0, 2, 3]
    gate.open(1)
    assert cluster.submit(str(gate), 4).get(DEADLINE) == 4
    gate.open(1)
    assert cluster.submit_job_id("five", str(gate), 5).wait(DEADLINE)
    assert cluster.detach()
    with pytest.raises(AttributeError, match="is closed"):
        cluster.submit(str(gate), 1)
    scheduler.kill()
    scheduler.start()
    (job,) = attach(scheduler).jobs
    assert (job.id, job.get(DEADLINE)) == ("five", 5)


ATTACHES = """
import dispy, sys

if __name__ == "__main__":
    cluster = dispy.SharedJobCluster.attach("sweep", "the key", scheduler_host=sys.argv[1])
    print("attached", len(cluster.jobs), flush=True)
    print("has", [job.get() for job in cluster.jobs], flush=True)
    sys.stdin.readline()
    cluster.close()
"""


def test_who_attaches_takes_over_and_the_one_before_is_told(
    run_program: Callable[..., Program], open_shared: Callable, start_scheduler: Callable,
    start_node: Callable, gate: Gate,
) -> None:  # fmt: skip
    scheduler = start_scheduler(start_node("--cpus=1"))
    told: list[DispyJob] = []
    cluster = open_shared(scheduler, hold, name="sweep", key="the key", callback=told.append)
    jobs = [cluster.submit(str(gate), value) for value in range(3)]
    wait_until_running(jobs[0])
    second = run_program(ATTACHES, scheduler.host)
    wait_for(second, "attached 3")
    assert jobs[2].wait(DEADLINE)
    assert cluster.wait(DEADLINE)
    assert [job.status for job in told] == [DispyJob.Abandoned] * 3
    assert "another program" in jobs[2].exception
    with pytest.raises(AttributeError, match="is closed"):
        cluster.submit(str(gate), 1)
    assert cluster.close() is None
    gate.open(3)
    wait_for(second, "has [0, 1, 2]")
    second.say("")
    assert second.end() == 0, second.output


def test_one_that_comes_back_to_a_cluster_that_was_taken_is_told(
    open_shared: Callable, start_scheduler: Callable, start_node: Callable, gate: Gate,
    attach: Callable,
) -> None:  # fmt: skip
    scheduler = start_scheduler(start_node("--cpus=1"))
    cluster = open_shared(scheduler, hold, name="sweep", key="the key")
    job = cluster.submit(str(gate), 1)
    wait_until_running(job)
    remote, hub = cluster._session.scheduler, cluster._session.hub
    address, remote.address = remote.address, ("127.0.0.1", 1)
    hub.call(remote._link.close)
    scheduler.wait_for("is away")
    attached = attach(scheduler)
    remote.address = address
    assert job.wait(DEADLINE)
    assert "another program" in job.exception
    gate.open()
    assert attached.jobs[0].get(DEADLINE) == 1


def test_a_wrong_key_is_refused_without_a_word_of_what_is_wrong_and_only_so_often(
    start_scheduler: Callable, start_node: Callable, attach: Callable,
    run_program: Callable[..., Program], gate: Gate, tmp_path: Path,
) -> None:  # fmt: skip
    scheduler = start_scheduler(start_node("--cpus=1"))
    assert run_program(SUBMITS, scheduler.host, str(gate), "detaches").end() == 0
    said: list[str] = []
    for name, key in (("sweep", "another key"), ("sweeps", "the key")):
        with pytest.raises(DispyError) as refused:
            SharedJobCluster.attach(name, key, scheduler_host=scheduler.host)
        said.append(str(refused.value))
    assert len(set(said)) == 1
    assert "one of them is wrong" in said[0]
    while "too many attempts" not in said[-1]:
        with pytest.raises(DispyError) as refused:
            attach(scheduler, "another key")
        assert len(said) < 100
        said.append(str(refused.value))
    kept = [path.read_bytes() for path in tmp_path.glob("scheduler-0/**/*") if path.is_file()]
    assert any(b"sweep" in each or b"hold" in each for each in kept)
    assert not any(b"the key" in each for each in kept)


def test_a_cluster_is_kept_as_long_as_its_program_says(
    open_shared: Callable, start_scheduler: Callable, start_node: Callable, attach: Callable,
) -> None:  # fmt: skip
    scheduler = start_scheduler(start_node("--cpus=1"), DISPY_ZOMBIE_INTERVAL="0.005")
    kept = open_shared(scheduler, hold, name="sweep", key="the key")
    dropped = open_shared(scheduler, hold, name="short", key="the key")
    assert kept.detach(keep=3600)
    assert dropped.detach()
    scheduler.wait_for("did not come back")
    with pytest.raises(DispyError, match="one of them is wrong"):
        SharedJobCluster.attach("short", "the key", scheduler_host=scheduler.host)
    scheduler.kill()
    scheduler.start()
    assert attach(scheduler).jobs == []


def test_arguments_that_cannot_be_are_named(
    open_shared: Callable, start_scheduler: Callable
) -> None:
    scheduler = start_scheduler()
    with pytest.raises(DispyError, match="has a name too"):
        open_shared(scheduler, hold, key=True)
    with pytest.raises(DispyError, match="cannot guess"):
        open_shared(scheduler, hold, name="sweep", key=7)
    cluster = open_shared(scheduler, hold, name="sweep")
    with pytest.raises(DispyError, match="has no key"):
        cluster.detach()
    random = open_shared(scheduler, hold, name="sweep", key=True)
    assert len(random.key) == 32
    with pytest.raises(DispyError, match="does not answer"):
        SharedJobCluster.attach("sweep", "key", scheduler_host="127.0.0.77")


LEAVES_FILES = """
import dispy, os, sys

def read(name):
    with open(name) as file:
        return len(file.read())

if __name__ == "__main__":
    for name in ("for_all", "for_one"):
        with open(name, "w") as file:
            file.truncate(40_000_000)
    cluster = dispy.SharedJobCluster(
        read, scheduler_host=sys.argv[1], name="sweep", key="the key", depends=["for_all"])
    cluster.submit("for_all")
    cluster.submit("for_one", dispy_job_depends=["for_one"])
    if sys.argv[2] == "detaches":
        assert cluster.detach()
        os.remove("for_all")
        os.remove("for_one")
"""


@pytest.mark.parametrize("end", ["detaches", "ends"])
def test_who_leaves_a_cluster_waits_until_its_files_are_with_the_scheduler(
    run_program: Callable[..., Program], attach: Any, start_scheduler: Callable,
    start_node: Callable, end: str,
) -> None:  # fmt: skip
    scheduler = start_scheduler(start_node("--cpus=1"))
    program = run_program(LEAVES_FILES, scheduler.host, end)
    assert program.end() == 0, program.output
    cluster = attach(scheduler)
    assert [job.get(DEADLINE) for job in cluster.jobs] == [40_000_000] * 2
