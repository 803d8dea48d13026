"""What `dispy bench` measures, one function a measurement; `tests/bench` measures others with them.

Each returns one figure of one round; whoever calls repeats and compares.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from dispy import DispyJob, JobCluster
from dispy.cli.jobs import sleep
from dispy.model.errors import DispyError
from dispy.system.interpreter import is_frozen

BURST = 1000  # calls of `submit` in a row, from rest
HELD_SECONDS = 3600.0  # that jobs take which are cancelled long before
FRESH_SECONDS = 120.0  # that a fresh program may take

FIRST_RESULT = """
import json, sys, dispy

def compute(n):
    return n

if __name__ == "__main__":
    cluster = dispy.JobCluster(compute, json.loads(sys.argv[1]), loglevel=30)
    print(cluster.submit(7)(), flush=True)
"""
IMPORT = """
from time import perf_counter
begin = perf_counter()
import dispy
dispy.JobCluster
print(perf_counter() - begin)
"""
QUEUED = """
import json, sys
from dispy.cli.measurements import queued_bytes
print(queued_bytes(json.loads(sys.argv[1]), int(sys.argv[2])))
"""


class NotMeasured(DispyError):
    """Something cannot be measured here; the text says why."""


@dataclass(frozen=True)
class Contender:
    """Whatever runs calls of one function elsewhere: a cluster, or a pool of another library."""

    submit: Callable[[Any], Any]  # begins one call, returns what stands for it
    collect: Callable[[Sequence[Any]], list[Any]]  # waits for those, returns their results
    map: Callable[[Iterable[Any]], Iterator[Any]]
    processors: int


def contender_of(cluster: JobCluster) -> Contender:
    """Return a cluster as a contender; waits for its first result, and so for its nodes."""
    cluster.submit(0)()

    def collect(jobs: Sequence[DispyJob]) -> list[Any]:
        cluster.wait()
        return [job() for job in jobs]

    return Contender(cluster.submit, collect, cluster.map, processors(cluster))


def processors(cluster: JobCluster) -> int:
    """Return how many processors a cluster's nodes offer it now."""
    return sum(node.cpus for node in cluster.status().nodes)


def jobs_per_second(contender: Contender, count: int) -> float:
    """Submit small jobs one by one and collect their results."""
    begin = perf_counter()
    jobs = [contender.submit(number) for number in range(count)]
    results = contender.collect(jobs)
    seconds = perf_counter() - begin
    _check(results == list(range(count)))
    return count / seconds


def calls_per_second(contender: Contender, count: int) -> float:
    """Map over a range."""
    begin = perf_counter()
    total = sum(contender.map(range(count)))
    seconds = perf_counter() - begin
    _check(total == count * (count - 1) // 2)
    return count / seconds


def round_trips(contender: Contender, count: int) -> tuple[float, float]:
    """Return median and ninth decile, in seconds, of one job at a time."""
    trips = []
    for number in range(count):
        begin = perf_counter()
        (result,) = contender.collect([contender.submit(number)])
        trips.append(perf_counter() - begin)
        _check(result == number)
    return median(trips), quantiles(trips, n=10)[-1]


def submit_seconds(contender: Contender, bursts: int) -> float:
    """Return the seconds that `submit` of a small job keeps its caller."""
    times = []
    for _ in range(bursts):
        begin = perf_counter()
        jobs = [contender.submit(number) for number in range(BURST)]
        times.append((perf_counter() - begin) / BURST)
        contender.collect(jobs)
    return median(times)


def bytes_per_second(contender: Contender, value: Any, size: int) -> float:
    """Send a value of `size` bytes there and get it back, counted both ways."""
    begin = perf_counter()
    (result,) = contender.collect([contender.submit(value)])
    seconds = perf_counter() - begin
    _check(len(result) == len(value))
    return 2 * size / seconds


def efficiency(contender: Contender, seconds: float, each: int) -> float:
    """Return which part of the processors' time was used, with `each` jobs that sleep for one."""
    count = each * contender.processors
    begin = perf_counter()
    contender.collect([contender.submit(seconds) for _ in range(count)])
    return count * seconds / (contender.processors * (perf_counter() - begin))


def cpu_seconds() -> float:
    """Return the processor time of this process and all its descendants, so far.

    Raises NotMeasured where it has none: the nodes are not its own then.
    """
    import psutil

    this = psutil.Process()
    processes = [this, *this.children(recursive=True)]
    if len(processes) == 1:
        raise NotMeasured("the nodes are not this program's own")
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def queued_bytes(nodes: Sequence[str] | None, count: int) -> float:
    """Return the memory that this process takes for each queued job beyond its arguments.

    Long jobs hold all processors meanwhile. Only a fresh process has no memory to use again.
    """
    import psutil

    this = psutil.Process()
    cluster = JobCluster(sleep, nodes, loglevel=30)
    try:
        holders = [cluster.submit(HELD_SECONDS)]
        while holders[0].status != DispyJob.Running:
            holders[0].finish.wait(0.01)
        holders += [cluster.submit(HELD_SECONDS) for _ in range(processors(cluster) - 1)]
        jobs = [cluster.submit(0.0) for _ in range(BURST)]
        jobs[-1].why()  # asked on the hub, and so after all that was submitted before
        gc.collect()
        before = this.memory_info().rss
        jobs += [cluster.submit(0.0) for _ in range(count)]
        jobs[-1].why()
        taken = (this.memory_info().rss - before) / count
    finally:
        cluster.close(timeout=0, terminate=True)
    our_list = 8  # bytes of each entry in `jobs`
    return float(taken - sys.getsizeof((0.0,)) - our_list)


def queued_bytes_afresh(nodes: Sequence[str] | None, count: int) -> float:
    """As `queued_bytes`, in a process of its own."""
    return float(_run_fresh(QUEUED, json.dumps(nodes), str(count))[0])


def first_result_seconds(nodes: Sequence[str] | None) -> float:
    """Return the seconds from the start of a program to its first result."""
    return _run_fresh(FIRST_RESULT, json.dumps(nodes))[1]


def import_seconds() -> float:
    """Return the seconds that `import dispy` and looking up JobCluster take."""
    return float(_run_fresh(IMPORT)[0])


def with_this_dispy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which `import dispy` finds this very installation."""
    above = str(Path(__file__).resolve().parent.parent.parent)
    path = os.pathsep.join(filter(None, [above, environment.get("PYTHONPATH")]))
    return {**environment, "PYTHONPATH": path}


def _run_fresh(source: str, *arguments: str) -> tuple[str, float]:
    """Run a program in an interpreter of its own; return its line, and when it came.

    Raises NotMeasured in the single executable, and where the program fails.
    """
    if is_frozen():
        raise NotMeasured("needs a Python to start, which this executable is not")
    begin = perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", source, *arguments],
        stdout=subprocess.PIPE, text=True, env=with_this_dispy(os.environ),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            seconds = perf_counter() - begin
            process.wait(FRESH_SECONDS)
        finally:
            process.kill()
    if not line:
        raise NotMeasured(f"a fresh program ended with status {process.returncode}")
    return line, seconds


def _check(right: bool) -> None:
    if not right:
        raise DispyError("the results are wrong, so that their speed means nothing")
