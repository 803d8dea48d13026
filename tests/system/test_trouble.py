"""A machine in trouble: what is affected is told why, and goes on when the trouble is over."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from system.conftest import hold
from system.trouble import fill, group, on_small_disk, seen_by

from dispy import DispyJob, JobCluster

Open = Callable[..., JobCluster]
DEADLINE = 60.0
CALM = 0.05  # seconds between looks at what will come


def until(what: str, look: Callable[[], object]) -> None:
    """Wait until `look` gives something true."""
    deadline = time.monotonic() + DEADLINE
    while not look():
        assert time.monotonic() < deadline, f"waited {DEADLINE:g} s for {what}"
        time.sleep(CALM)


def echo(value: object) -> object:
    return value


def results(jobs: list[DispyJob]) -> list[object]:
    """Return what the jobs returned; all of them must end in time."""
    deadline = time.monotonic() + DEADLINE
    for job in jobs:
        assert job.wait(timeout=max(0, deadline - time.monotonic())), job.why()
        assert job.status == DispyJob.Finished, job.exception
    return [job.result for job in jobs]


def test_a_node_with_few_descriptors_has_its_workers_take_turns(
    open_cluster: Open, start_node: Callable[..., Any]
) -> None:
    node = start_node("--cpus=4", under=["prlimit", "--nofile=40:40"])
    clusters = [open_cluster(echo, nodes=[node.host]) for _ in range(4)]
    jobs = [cluster.submit(number) for number in range(4) for cluster in clusters]
    assert results(jobs) == [number for number in range(4) for _ in clusters]
    for cluster in clusters:
        cluster.close()
    assert results([open_cluster(echo, nodes=[node.host]).submit("later")]) == ["later"]
    assert node.process.poll() is None
    assert node.end() == 0
    assert "Too many open files (raise `ulimit -n` of the node)" in node.said
    assert "Traceback" not in node.said


def test_jobs_wait_while_the_machine_has_no_more_processes(
    open_cluster: Open, start_node: Callable[..., Any], tmp_path: Path, gate: Any
) -> None:
    groups = tmp_path / "groups"
    groups.mkdir()
    with group("pids", groups) as confined:
        node = start_node("--cpus=3", under=confined.under)
        used, forked = (
            open_cluster(hold, nodes=[node.host], isolation=isolation)
            for isolation in ("worker", "job")
        )
        gate.open(2)  # each gets one worker
        assert results([used.submit(str(gate)), forked.submit(str(gate))]) == [None, None]
        confined.limit(pids_max=1)
        jobs = [c.submit(str(gate), number) for number in range(2) for c in (used, forked)]
        for job in jobs[2:]:  # no worker can be forked for these
            until("a word of it", lambda job=job: "there are too many processes" in job.why())
        until("a failed fork", lambda: int(confined.read("pids.events").split()[1]) > 1)
        assert not any(job.done for job in jobs)
        (confined.path / "pids.max").write_text("max")
        gate.open(4)
        assert results(jobs) == [0, 0, 1, 1]
        used.close()
        forked.close()
        assert node.end() == 0
        assert "Traceback" not in node.said


def write(path: str, size: int) -> int:
    with open(path, "wb") as file:
        return file.write(bytes(size))


def test_a_full_disk_fails_what_needs_it_and_nothing_else(
    open_cluster: Open, start_node: Callable[..., Any], tmp_path: Path
) -> None:
    directory, large = tmp_path / "disk", tmp_path / "large"
    directory.mkdir()
    large.write_bytes(bytes(300_000))
    node = start_node("--cpus=2", directory=directory, under=on_small_disk(directory, "2m"))
    cluster = open_cluster(write, nodes=[node.host])
    assert results([cluster.submit("before", 10)]) == [10]
    filling = fill(seen_by(node.process.pid, directory))
    # A job writes itself; it brings a file; a cluster brings one; one is sent; a value is put.
    writing = cluster.submit("output", 100_000)
    assert writing() is None
    assert "No space left on device" in writing.exception
    bringing = cluster.submit("output", 1, dispy_job_depends=[str(large)])
    assert bringing() is None
    assert "large" in bringing.exception
    assert "no room" in bringing.exception
    assert cluster.send_file(str(large), node.host) == -1
    needy = open_cluster(echo, nodes=[node.host], depends=[str(large)])
    waiting = needy.submit(1)
    until("a word of it", lambda: "no room" in waiting.why())
    other = open_cluster(echo, nodes=[node.host])
    assert results([other.submit(number) for number in range(20)]) == list(range(20))
    filling.unlink()
    assert results([cluster.submit("output", 1, dispy_job_depends=[str(large)])]) == [1]
    assert needy.allocate_node(node.host) == 0  # of what was refused it is not taken for granted
    assert results([waiting, needy.submit(2)]) == [1, 2]
    for opened in (cluster, needy, other):
        opened.close()
    assert node.end() == 0
    assert "Traceback" not in node.said


def hold_and_tell(gate: str, mark: str) -> None:
    os.mkdir(mark)
    hold(gate)


def test_a_clock_that_jumps_ends_nothing_and_spoils_no_measure(
    open_cluster: Open, start_node: Callable[..., Any], gate: Any, tmp_path: Path
) -> None:
    library = next(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed (package faketime)")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    # Of the node and its jobs alone: a Python with several threads crawls under this library.
    faked = {
        "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    passed = ",".join([*os.environ.get("DISPY_PASS_ENV", "").split(","), *faked])
    node = start_node("--cpus=2", **faked, DISPY_PASS_ENV=passed)
    cluster = open_cluster(hold_and_tell, nodes=[node.host], pulse_interval=1)
    for hours in (+5, -7):
        marks = [tmp_path / f"{hours}-{number}" for number in range(2)]
        jobs = [cluster.submit(str(gate), str(mark)) for mark in marks]
        until("the jobs to begin", lambda marks=marks: all(mark.is_dir() for mark in marks))
        clock.write_text(f"{hours * 3600:+d}")
        gate.open(2)
        assert results(jobs) == [None, None]
        for job in jobs:
            assert 0 <= job.end_time - job.start_time < DEADLINE, (job.start_time, job.end_time)
    gate.open(1)
    last = cluster.submit(str(gate), str(tmp_path / "last"))
    assert results([last]) == [None]
    assert abs(last.start_time - time.time()) > 3600, "the clock was set"
    cluster.close()
    assert node.end() == 0
    assert "is away" not in node.said
    assert "Traceback" not in node.said


def measure(text: bytes) -> int:
    return len(text)


def test_what_a_node_has_no_memory_for_fails_alone(
    open_cluster: Open, start_node: Callable[..., Any]
) -> None:
    node = start_node("--cpus=1", under=["prlimit", "--as=300000000"])
    cluster = open_cluster(measure, nodes=[node.host])
    assert results([cluster.submit(b"x")]) == [1]
    large, *small = [cluster.submit(bytes(size)) for size in (250_000_000, *range(10))]
    assert results(small) == list(range(10))
    assert large() is None
    assert "could get no memory for 250 MB of arguments" in large.exception
    assert results([cluster.submit(bytes(5_000_000))]) == [5_000_000]
    cluster.close()
    assert node.end() == 0
    assert "Traceback" not in node.said
    assert " is away" not in node.said
