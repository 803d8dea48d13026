"""Jobs that need several processors get them, whoever else wants some."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from system.conftest import DEADLINE, Gate, hold

from dispy import DispyJob, JobCluster
from dispy.model.errors import DispyError

Open = Callable[..., JobCluster]


def wait_for(what: Callable[[], object], name: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, f"waited for {name}"
        time.sleep(0.005)


def span(path: str, name: str, gate: str) -> str:
    """Write down when a job begins and ends, and hold it in between."""
    with open(path, "a") as log:
        log.write(f"+{name}\n")
    descriptor = __import__("os").open(gate, 0)
    __import__("os").read(descriptor, 1)
    with open(path, "a") as log:
        log.write(f"-{name}\n")
    return name


def at_once(log: Path, widths: dict[str, int]) -> list[int]:
    """Return how many processors were in use after each beginning and end."""
    used, counts = 0, []
    for line in log.read_text().splitlines():
        used += widths[line[1:]] * (1 if line[0] == "+" else -1)
        counts.append(used)
    return counts


def test_a_wide_job_takes_its_turn_among_narrow_ones_and_never_too_many_processors(
    open_cluster: Open, start_node: Callable, gate: Gate, tmp_path: Path
) -> None:
    node, log = start_node("--cpus=3"), tmp_path / "log"
    narrow = open_cluster(span, nodes=[node.host])
    other = open_cluster(span, nodes=[node.host], cpus=3)
    gate.open()
    assert other.submit(str(tmp_path / "first"), "both are ready now", str(gate)).wait(DEADLINE)
    first = [narrow.submit(str(log), "narrow", str(gate)) for _ in range(3)]
    wait_for(lambda: all(job.status == DispyJob.Running for job in first), "the first three")
    wide = narrow.submit(str(log), "wide", str(gate), dispy_job_cpus=2)
    widest = other.submit(str(log), "widest", str(gate))
    later = [narrow.submit(str(log), "narrow", str(gate)) for _ in range(9)]
    jobs = [*first, wide, widest, *later]
    for _ in jobs:
        done = sum(job.done for job in jobs)
        gate.open()
        wait_for(lambda done=done: sum(job.done for job in jobs) > done, "the next end")
    assert {job() for job in jobs} == {"narrow", "wide", "widest"}
    counts = at_once(log, {"narrow": 1, "wide": 2, "widest": 3})
    assert max(counts) == 3
    lines = log.read_text().splitlines()
    before = [line for line in lines[: lines.index("+wide")] if line[0] == "-"]
    assert len(before) <= 2 * 3, "narrow jobs slipped past it"
    before = [line for line in lines[: lines.index("+widest")] if line[0] == "-"]
    assert len(before) <= 2 * 3, "narrow jobs slipped past it"


def test_a_job_wider_than_every_node_is_told_at_once_and_runs_when_there_is_one(
    run_program, start_node
) -> None:
    small = start_node("--cpus=2")
    large_host = small.host[: small.host.rindex(".")] + ".99"
    program = run_program(WIDER.format(hosts=[small.host, large_host]), DISPY_INSECURE="1")
    said = ""
    while "dispy_job_cpus=)" not in said:
        line = program.line()
        assert line, program.output
        said += line
    assert "1 job of work can run on no node: it needs 3 processors" in said
    while "have waited for 2 s" not in said:
        line = program.line()
        assert line, program.output
        said += line
    start_node("--cpus=4", host=large_host)
    assert program.end() == 0, program.output
    assert "narrow: 1 wide: 2" in program.output


WIDER = """
import dispy

def work(n):
    return n

cluster = dispy.JobCluster(work, nodes={hosts})
narrow = cluster.submit(1)()
wide = cluster.submit(2, dispy_job_cpus=3)
while "can run on no node" not in wide.why():
    pass
print(wide.why(), flush=True)
print("narrow:", narrow, "wide:", wide(), flush=True)
"""


def test_a_number_of_processors_that_cannot_be_one_is_refused(
    open_cluster: Open, start_node: Callable
) -> None:
    cluster = open_cluster(hold, nodes=[start_node().host])
    for wrong in (0, -1, "2", 2.0, True):
        with pytest.raises(DispyError, match="dispy_job_cpus is a number of processors"):
            cluster.submit("", dispy_job_cpus=wrong)
    with pytest.raises(DispyError, match="cpus"):
        JobCluster(hold, cpus=0)


def test_a_job_for_one_node_that_is_too_small_for_it_ends_with_the_reason(
    open_cluster: Open, start_node: Callable, gate: Gate
) -> None:
    node = start_node("--cpus=2")
    cluster = open_cluster(hold, nodes=[node.host])
    gate.open()
    assert cluster.submit(str(gate), 1)() == 1
    job = cluster.submit_node(node.host, str(gate), dispy_job_cpus=3)
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Cancelled
    assert "a job needs 3 processors, and it has 2" in job.exception
