"""How jobs' processes die, and what their owner is told of it."""

import ctypes
import functools
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from system.conftest import Gate, hold
from system.trouble import group

from dispy import DispyJob, JobCluster

Open = Callable[..., JobCluster]


def die(how: str, lines: int = 1) -> None:
    print("began", flush=True)
    for line in range(lines):
        print("said", line, file=sys.stderr)
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "abort":
        os.abort()
    elif how == "exit":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, how))


@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_how_a_job_died_and_what_it_wrote_is_told(
    open_cluster: Open, shared_node: Any, isolation: str
) -> None:
    cluster = open_cluster(die, nodes=[shared_node.host], isolation=isolation)
    words = {
        "segfault": "was killed by SIGSEGV", "abort": "was killed by SIGABRT",
        "exit": "exited with status 3", "SIGKILL": "was killed by SIGKILL",
        "SIGXCPU": "was killed by SIGXCPU, because it took more processor time than it may have",
    }  # fmt: skip
    jobs = {how: cluster.submit(how) for how in words}
    for how, job in jobs.items():
        assert job() is None
        *before, last = job.exception.splitlines()
        assert last.startswith(f"the worker process {words[how]}"), how
        assert before[:2] == ["the last that it wrote to stderr:", "  said 0"]
        assert (job.status, job.stdout) == (DispyJob.Terminated, "began\n")
        assert job.stderr.startswith("said 0\n")
    assert "string_at" in jobs["segfault"].exception
    assert ", line" in jobs["abort"].exception
    for how in ("segfault", "abort"):  # of the stack it tells what is the user's
        assert " in die" in jobs[how].exception.splitlines()[-2]
    loud = cluster.submit("exit", 5000)
    assert loud() is None
    lines = loud.exception.splitlines()
    assert lines[1:-1] == [f"  said {line}" for line in range(4990, 5000)]
    assert loud.stderr.count("said") == 5000


def take(size: int) -> int:
    if size < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return len(b"x" * size)


def test_that_memory_ran_out_is_told_by_the_kernels_word(
    open_cluster: Open, start_node: Callable[..., Any], tmp_path: Path
) -> None:
    groups = tmp_path / "groups"
    groups.mkdir()
    with group("memory", groups) as confined:
        node = start_node("--cpus=1", under=confined.under)
        clusters = [
            open_cluster(take, nodes=[node.host], isolation=isolation)
            for isolation in ("worker", "job")
        ]
        assert [cluster.submit(1)() for cluster in clusters] == [1, 1]
        used = int(confined.read("memory.usage_in_bytes"))
        confined.limit(memory_limit_in_bytes=used + 50_000_000)
        for cluster in clusters:
            greedy, modest = cluster.submit(400_000_000), cluster.submit(1)
            assert (greedy(), modest()) == (None, 1)
            assert "SIGKILL by the kernel, because memory ran out" in greedy.exception
            assert f"(its control group /{confined.path.name} may have" in greedy.exception
            killed = cluster.submit(-1)  # of that the kernel knows nothing
            assert killed() is None
            assert "SIGKILL, while" in killed.exception
            cluster.close()
        assert node.end() == 0


def act(number: int, how: str, log: str) -> int:
    with open(log, "a") as file:
        file.write(f"{number}\n")
    if how:
        die(how)
    return number


POISON = {100: "segfault", 140: "SIGKILL", 180: "abort", 220: "exit"}


@pytest.mark.parametrize("options", [{}, {"reentrant": True}])
def test_a_deadly_job_harms_no_other_and_is_stopped(
    open_cluster: Open, start_node: Callable[..., Any], tmp_path: Path, options: dict[str, Any]
) -> None:
    nodes = [start_node(f"--name=node{number}", "--cpus=1") for number in range(2)]
    cluster = open_cluster(act, nodes=[node.host for node in nodes], **options)
    log = tmp_path / "log"
    jobs = [cluster.submit(number, POISON.get(number, ""), str(log)) for number in range(300)]
    runs = 3 if options else 1
    for number, job in enumerate(jobs):
        if number not in POISON:
            assert job() == number, job.exception
            continue
        assert job() is None
        assert job.status == DispyJob.Terminated
        assert job.exception.count("while it ran this job on node node") == runs
    ran = Counter(map(int, log.read_text().split()))
    assert ran == {number: runs if number in POISON else 1 for number in range(300)}


def set_up(log: str) -> None:
    with open(log, "a") as file:
        file.write("set up\n")


def end_nursery(gate: str | None, begun: str = "") -> int:
    """Wait at the gate, and say so in a file; without a gate, end the nursery after that."""
    if gate is None:
        while begun and not os.path.exists(begun):
            time.sleep(0.01)
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()
    if begun:
        open(begun, "w").close()
    return hold(str(gate), os.getpid())


def test_a_nursery_that_was_killed_comes_again_with_its_setup(
    open_cluster: Open, shared_node: Any, gate: Gate, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    cluster = open_cluster(
        end_nursery, nodes=[shared_node.host], setup=functools.partial(set_up, str(log)),
        isolation="worker",
    )  # fmt: skip
    begun = str(tmp_path / "begun")
    holding = cluster.submit(str(gate), begun)
    deadly = cluster.submit(None, begun)
    assert (holding(), deadly()) == (None, None)
    for job in (holding, deadly):
        assert "killed" in job.exception
        assert job.status == DispyJob.Terminated
    gate.open(4)
    assert all(cluster.submit(str(gate))() for _ in range(4))
    assert log.read_text() == "set up\n" * 2


def test_a_nursery_that_dies_again_and_again_is_given_up_with_the_reason(
    open_cluster: Open, start_node: Callable[..., Any]
) -> None:
    node = start_node("--cpus=1")
    cluster = open_cluster(end_nursery, nodes=[node.host])
    jobs = [cluster.submit(None) for _ in range(8)]
    assert [job() for job in jobs] == [None] * 8
    assert "cannot run it any more: its nursery" in jobs[-1].exception
    assert "was killed by SIGKILL, as did those before it" in jobs[-1].exception
