"""Compare dispy with the standard library's pools in one run, in turns: `python -m tests.bench`.

Usage:
  bench [--rounds=<n>] [--quick] [--only=<rows>]

Options:
  --rounds=<n>   how often to measure each, in turns; medians are compared [default: 5]
  --quick        fewer jobs: does it work at all
  --only=<rows>  only these rows, with commas between them

A ratio above 1 says that dispy is so many times better. "fork" is not a pool but what limits one:
os.fork, exit and wait in a loop, in a bare interpreter on each processor. Run it where nothing
else runs.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from docopt import docopt

from dispy import JobCluster
from dispy.cli import measurements
from dispy.cli.jobs import give_back, sleep
from dispy.cli.measurements import Contender
from dispy.cli.progress import Progress, table
from tests.bench import others

MIB = 1024 * 1024
EXECUTOR_FIRST = """
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    with ProcessPoolExecutor() as pool:
        print(pool.submit(abs, -7).result(), flush=True)
"""
EXECUTOR_QUEUED = """
import os, sys
from tests.bench.others import executor_queued_bytes
print(executor_queued_bytes(int(sys.argv[1]), int(sys.argv[2])), flush=True)
os._exit(0)
"""
Measure = Callable[[Contender], float]


@contextmanager
def dispy_cluster(
    function: Callable[..., Any], processors: int, isolation: str = "worker"
) -> Iterator[Contender]:
    """Offer a cluster on a node of our own."""
    with JobCluster(function, loglevel=30, isolation=isolation) as cluster:
        yield measurements.contender_of(cluster)


NAMES = {"dispy": dispy_cluster, "executor": others.executor, "pool": others.pool}


class Rows:
    """What is compared: for each row a title, a unit, and a measurement of each contender."""

    def __init__(self, stack: ExitStack, processors: int, quick: bool) -> None:
        self._stack, self._processors = stack, processors
        self._scale = 10 if quick else 1
        self._opened: dict[tuple[str, Any], Contender] = {}

    def _of(self, measure: Measure, function: Callable[..., Any] = give_back) -> Any:
        """Return the measurement of every contender, which are opened when first measured."""

        def run(name: str) -> float:
            key = (name, function)
            if key not in self._opened:
                made = NAMES[name](function, self._processors)
                self._opened[key] = self._stack.enter_context(made)
            return measure(self._opened[key])

        return {name: lambda name=name: run(name) for name in NAMES}

    def all(self) -> dict[str, tuple[str, str, bool, dict[str, Callable[[], float]]]]:
        """Return title, unit, whether more is better, and measurements, by the row's key."""
        count, block = self._count, b"\xa5" * (64 * MIB // self._scale)
        rows = {
            "jobs": ("jobs one by one", "jobs/s", True, self._of(
                lambda c: measurements.jobs_per_second(c, count(20_000)))),
            "forks": ("a process for each job", "jobs/s", True, {
                "dispy": lambda: measurements.jobs_per_second(self._apart(), count(5_000)),
                "fork": lambda: others.forks_per_second(self._processors, count(2_500)),
            }),
            "map": ("map over a range", "calls/s", True, self._of(
                lambda c: measurements.calls_per_second(c, count(1_000_000)))),
            "trip": ("round trip, median", "ms", False, self._of(
                lambda c: measurements.round_trips(c, count(1000))[0] * 1e3)),
            "submit": ("submit", "us", False, self._of(
                lambda c: measurements.submit_seconds(c, count(20)) * 1e6)),
            "bytes": ("64 MiB there and back", "MB/s", True, self._of(
                lambda c: measurements.bytes_per_second(c, block, len(block)) / 1e6)),
            "10ms": ("10 ms jobs, efficiency", "", True, self._of(
                lambda c: measurements.efficiency(c, 0.01, count(200)), sleep)),
            "memory": ("a queued job", "bytes", False, {
                "dispy": lambda: measurements.queued_bytes_afresh(None, count(100_000)),
                "executor": lambda: float(self._fresh(
                    EXECUTOR_QUEUED, str(self._processors), str(count(100_000)))[0]),
            }),
            "first": ("start to first result", "s", False, {
                "dispy": lambda: measurements.first_result_seconds(None),
                "executor": lambda: self._fresh(EXECUTOR_FIRST)[1],
            }),
        }  # fmt: skip
        try:
            import numpy
        except ImportError:
            print("NumPy is not installed; its row is left out", file=sys.stderr)
            return rows
        array = numpy.full(len(block) // 8, 1.5)
        rows["numpy"] = ("the same, NumPy", "MB/s", True, self._of(
            lambda c: measurements.bytes_per_second(c, array, array.nbytes) / 1e6))  # fmt: skip
        return rows

    def _apart(self) -> Contender:
        key = ("isolation", "job")
        if key not in self._opened:
            made = dispy_cluster(give_back, self._processors, isolation="job")
            self._opened[key] = self._stack.enter_context(made)
        return self._opened[key]

    def _count(self, full: int) -> int:
        return full // self._scale

    def _fresh(self, source: str, *arguments: str) -> tuple[str, float]:
        begin = time.perf_counter()
        command = [sys.executable, "-c", source, *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            return process.stdout.readline(), time.perf_counter() - begin


def main() -> None:
    """Measure in turns and print the table."""
    options = docopt(__doc__)
    processors = len(os.sched_getaffinity(0))
    progress = Progress()
    lines = []
    with ExitStack() as stack:
        rows = Rows(stack, processors, options["--quick"]).all()
        for key in (options["--only"] or ",".join(rows)).split(","):
            title, unit, more_is_better, contenders = rows[key]
            for measure in contenders.values():
                measure()  # not counted: workers and memory are made in it
            values: dict[str, list[float]] = {name: [] for name in contenders}
            for number in range(int(options["--rounds"])):
                progress.show(f"{title}: round {number + 1}")
                for name, measure in contenders.items():
                    values[name].append(measure())
            medians = {name: statistics.median(found) for name, found in values.items()}
            lines.append(_line(key, title, unit, more_is_better, medians))
    progress.clear()
    print("\n".join(table(HEADER, lines, left=(0, 1, 2))))


HEADER = (
    "row", "what", "unit", "dispy", "executor", "ratio", "Pool", "ratio", "fork", "ratio",
)  # fmt: skip


def _line(
    key: str, title: str, unit: str, more: bool, medians: dict[str, float]
) -> tuple[str, ...]:
    ours = medians["dispy"]
    cells = [_short(ours)]
    for name in ("executor", "pool", "fork"):
        if name in medians:
            theirs = medians[name]
            cells += [_short(theirs), f"{ours / theirs if more else theirs / ours:.2f}"]
        else:
            cells += ["-", ""]
    return key, title, unit, *cells


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
