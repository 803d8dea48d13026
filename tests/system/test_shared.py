"""Programs that share nodes by a scheduler: what they get, and what if links or processes end."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from system.conftest import DEADLINE, Gate, Program, hold
from system.schedulers import Open, wait_until_running

from dispy import DispyJob, DispyNode
from dispy.system.interpreter import own_command


def double(number: int) -> int:
    return 2 * number


def fail(why: str) -> None:
    raise ValueError(why)


def test_jobs_run_on_all_nodes_and_all_that_they_give_comes_back(
    open_shared: Open, start_scheduler: Callable, start_node: Callable
) -> None:
    nodes = [start_node("--cpus=1"), start_node("--cpus=1")]
    scheduler = start_scheduler(*nodes)
    cluster = open_shared(scheduler, double)
    jobs = [cluster.submit(number) for number in range(2000)]
    assert [job.get(DEADLINE) for job in jobs] == [2 * number for number in range(2000)]
    assert {job.ip_addr for job in jobs} <= {node.host for node in nodes}
    assert all(job.status == DispyJob.Finished and job.start_time <= job.end_time for job in jobs)
    hosts, deadline = {node.host for node in nodes}, time.monotonic() + DEADLINE
    while {view.ip_addr for view in cluster.status().nodes} != hosts:  # one may come later
        assert time.monotonic() < deadline, cluster.status()
        time.sleep(0.01)
    assert list(cluster.map(range(500))) == [2 * number for number in range(500)]
    failing = open_shared(scheduler, fail)
    with pytest.raises(ValueError, match="as it should"):
        failing.submit("as it should").get(DEADLINE)
    assert cluster.close() is True
    assert scheduler.end() == 0
    assert "Traceback" not in scheduler.said


def test_callbacks_come_in_order_and_large_values_pass(
    open_shared: Open, start_scheduler: Callable, start_node: Callable
) -> None:
    def interim(size: int) -> bytes:
        dispy_provisional_result(size)  # type: ignore[name-defined]  # noqa: F821
        print("said")
        return bytes(size)

    told: list[Any] = []
    changed: list[Any] = []
    cluster = open_shared(
        start_scheduler(start_node()), interim, job_status=lambda job: told.append(job.status),
        cluster_status=lambda status, node, job: changed.append(status),
    )  # fmt: skip
    job = cluster.submit(3 << 20)
    assert len(job.get(DEADLINE)) == 3 << 20
    assert job.stdout == "said\n"
    assert cluster.wait(DEADLINE)
    assert told == [DispyJob.ProvisionalResult, DispyJob.Finished]
    assert DispyNode.Initialized in changed


def test_queued_and_running_jobs_are_cancelled(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    cluster = open_shared(start_scheduler(start_node("--cpus=1")), hold)
    running, waiting = cluster.submit(str(gate)), cluster.submit(str(gate))
    wait_until_running(running)
    assert "node" in running.why()
    assert cluster.cancel(waiting) == 0
    assert waiting.status == DispyJob.Cancelled
    assert cluster.cancel(running) == 0
    assert running.wait(DEADLINE)
    assert running.status == DispyJob.Terminated  # by its KeyboardInterrupt


def test_programs_share_the_nodes_and_one_that_dies_is_dropped_in_time(
    run_program: Callable[..., Program], start_scheduler: Callable, start_node: Callable
) -> None:
    source = """
import dispy, sys, time

def slow(seconds):
    import time
    time.sleep(seconds)
    return "done"

if __name__ == "__main__":
    cluster = dispy.SharedJobCluster(slow, scheduler_host=sys.argv[1])
    job = cluster.submit(0)
    print("said", job(), flush=True)
    if sys.argv[2] == "stay":
        jobs = [cluster.submit(1000) for _ in range(4)]
        print("stays", flush=True)
        jobs[0]()
    cluster.close()
"""
    node = start_node("--cpus=2")
    scheduler = start_scheduler(node, DISPY_ZOMBIE_INTERVAL="0.005")
    stays = run_program(source, scheduler.host, "stay")
    while "stays" not in stays.line():
        assert stays.process.poll() is None, stays.output
    stays.process.kill()
    scheduler.wait_for("is away")
    scheduler.wait_for("did not come back")
    # Both processors are free again.
    others = [run_program(source, scheduler.host, "go") for _ in range(2)]
    for other in others:
        assert other.end() == 0, other.output
        assert "said done" in other.output
    assert scheduler.end() == 0


def test_a_broken_link_loses_and_doubles_nothing(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, tmp_path: Path
) -> None:
    def note(path: str, number: int) -> int:

        with open(os.path.join(path, str(number)), "a") as file:
            file.write("x")
        return number

    scheduler = start_scheduler(start_node("--cpus=2"))
    cluster = open_shared(scheduler, note)
    runs = tmp_path / "runs"
    runs.mkdir()
    assert cluster.submit(str(runs), -1).get(DEADLINE) == -1
    remote = cluster._session.scheduler
    jobs = []
    for number in range(600):
        jobs.append(cluster.submit(str(runs), number))
        if number % 100 == 50:
            cluster._session.hub.call(remote._link.close if remote._link else int)
    assert [job.get(DEADLINE) for job in jobs] == list(range(600))
    assert {path.read_text() for path in runs.iterdir()} == {"x"}


def test_jobs_of_a_scheduler_without_memory_are_told_lost_and_new_ones_run(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    node = start_node("--cpus=1")
    scheduler = start_scheduler(node, data="none")
    cluster = open_shared(scheduler, hold)
    lost = cluster.submit(str(gate))
    wait_until_running(lost)
    scheduler.process.kill()
    scheduler.process.communicate()
    scheduler.start()
    assert lost.wait(DEADLINE)
    assert lost.status == DispyJob.Abandoned
    assert "was restarted" in lost.exception
    gate.open(10)  # the lost one still runs, for a scheduler that is no more
    assert cluster.submit(str(gate), "later").get(DEADLINE) == "later"


def test_who_finds_no_scheduler_is_told_where_it_looked(
    run_program: Callable[..., Program],
) -> None:
    source = """
import dispy

def compute():
    pass

if __name__ == "__main__":
    cluster = dispy.SharedJobCluster(compute, scheduler_host="127.0.0.77")
    cluster.submit()()
"""
    program = run_program(source)
    while "is `dispy scheduler` running there?" not in program.line():
        assert program.process.poll() is None, program.output
    assert "127.0.0.77, port 51349: no answer: Connection refused" in program.output
    program.process.send_signal(signal.SIGINT)
    assert program.end() != 0
    assert "dispy node" not in program.output  # which is no help here


def test_a_scheduler_for_others_wants_a_secret() -> None:
    ran = subprocess.run(
        own_command("scheduler", "--host=0.0.0.0"), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert "--cluster_secret_file" in ran.stderr


def test_a_client_without_the_secret_is_refused(
    start_scheduler: Callable, start_node: Callable, run_program: Callable[..., Program],
    tmp_path: Path,
) -> None:  # fmt: skip
    files = {}
    for name in ("ours", "theirs"):
        files[name] = tmp_path / name
        files[name].touch(mode=0o600)
        files[name].write_text(f"{name} is not to be guessed by anybody\n")
    node = start_node(f"--secret-file={files['ours']}")
    scheduler = start_scheduler(node, DISPY_SECRET_FILE=str(files["ours"]))
    source = """
import dispy, sys

def compute(number):
    return number

if __name__ == "__main__":
    print(dispy.SharedJobCluster(compute, scheduler_host=sys.argv[1]).submit(7)(), flush=True)
"""
    good = run_program(source, scheduler.host, DISPY_SECRET_FILE=str(files["ours"]))
    assert good.end() == 0, good.output
    assert "7" in good.output.splitlines()
    bad = run_program(source, scheduler.host, DISPY_SECRET_FILE=str(files["theirs"]))
    while "it has not the secret that this side has" not in bad.line():
        assert bad.process.poll() is None, bad.output
    bad.process.kill()


def test_an_exclusive_cluster_waits_for_others_and_they_for_it(
    open_shared: Open, start_scheduler: Callable, start_node: Callable, gate: Gate
) -> None:
    scheduler = start_scheduler(start_node("--cpus=2"))
    cluster = open_shared(scheduler, hold)
    first = cluster.submit(str(gate), "first")
    wait_until_running(first)
    alone = open_shared(scheduler, double, exclusive=True)
    job = alone.submit(4)
    assert not job.wait(0.5)
    assert "exclusively" in job.why()
    gate.open()
    assert first.get(DEADLINE) == "first"
    cluster.close()
    assert job.get(DEADLINE) == 8
    later = open_shared(scheduler, double)
    waiting = later.submit(5)
    assert not waiting.wait(0.5)
    assert "exclusively" in waiting.why()
    alone.close()
    assert waiting.get(DEADLINE) == 10


def test_a_scheduler_without_memory_that_is_ended_frees_its_nodes(
    open_shared: Open,
    open_cluster: Callable,
    start_scheduler: Callable,
    start_node: Callable,
    gate: Gate,
) -> None:
    node = start_node("--cpus=1")
    scheduler = start_scheduler(node, data="none")
    cluster = open_shared(scheduler, hold)
    wait_until_running(cluster.submit(str(gate)))
    assert scheduler.end() == 0
    # Its only processor is free, although nobody has opened the gate.
    assert open_cluster(double, nodes=[node.host]).submit(3).get(DEADLINE) == 6


@pytest.mark.parametrize(
    "options",
    [
        {
            "ip_addr": "127.0.0.1", "port": 51347, "scheduler_node": "HOST",
            "scheduler_port": 51349, "ext_ip_addr": "10.0.0.1", "poll_interval": 5,
            "secret": "", "recover_file": "recover",
        },
        {
            "host": "127.0.0.1", "dispy_port": 51347, "client_port": 51350,
            "scheduler_host": "HOST", "ext_host": "10.0.0.1", "poll_interval": 5,
            "keyfile": None, "certfile": None, "exclusive": True,
            "pulse_interval": 1, "ping_interval": 1, "local_node": True,
        },
    ],
    ids=["dispy 4.6", "dispy 4.15"],
)  # fmt: skip
def test_it_takes_what_each_generation_of_dispy_gives_it(
    start_scheduler: Callable,
    start_node: Callable,
    open_shared: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    scheduler = start_scheduler(start_node())
    options = {
        name: scheduler.host if value == "HOST" else value for name, value in options.items()
    }
    if "scheduler_node" in options:
        options["scheduler_host"] = None
    cluster = open_shared(scheduler, double, None, [], print, None, reentrant=True, **options)
    assert cluster.submit(2).get(DEADLINE) == 4
    assert (cluster.scheduler_ip_addr, cluster.scheduler_port) == (scheduler.host, 51349)
    assert not (tmp_path / "recover").exists()
