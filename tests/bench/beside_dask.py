"""A shared scheduler beside Dask's, in one run, in turns: `python -m tests.bench.beside_dask`.

Usage:
  beside_dask [--rounds=<n>] [--jobs=<n>] [--queued=<n>] [--workers=<n>]

Options:
  --rounds=<n>   how often to measure each, in turns; medians are compared [default: 3]
  --jobs=<n>     short jobs in each measurement; Dask gets a tenth of them [default: 20000]
  --queued=<n>   jobs that wait, with 1 KB of arguments each [default: 20000]
  --workers=<n>  processes that run jobs, of each [default: 2]

Needs Dask's `distributed` (`pip install dispy[bench]`). Each has a scheduler, workers and a program
in processes of this machine; dispy's scheduler has its journal. A ratio above 1 says that
dispy is so many times better. Memory is what the scheduler's process has for itself and grew by;
processor time is that process's alone.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
from docopt import docopt

from dispy import SharedJobCluster
from dispy.cli.jobs import give_back
from dispy.cli.progress import Progress, table
from dispy.system.interpreter import own_command

HOST, NODE, NOBODY = "127.9.1.1", "127.9.1.2", "127.9.1.3"
ARGUMENT = 1000  # bytes
QUIET_SECONDS = 2.0  # before memory is measured
START_SECONDS = 30.0


@contextmanager
def process(
    command: list[str], words: str, **environment: str
) -> Iterator[tuple[psutil.Process, str]]:
    """Run a program that says these words, a pattern, once it serves; give it, and what matched."""
    with tempfile.NamedTemporaryFile("w+") as log:
        started = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, "DISPY_BROADCAST": "0", **environment},
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while (found := re.search(words, Path(log.name).read_text())) is None:
                said = Path(log.name).read_text()
                assert time.monotonic() < deadline, f"{command} does not serve: {said}"
                assert started.poll() is None, f"{command} ended: {said}"
                time.sleep(0.05)
            yield psutil.Process(started.pid), found.group()
        finally:
            started.terminate()
            with suppress(subprocess.TimeoutExpired):
                started.wait(10)
            started.kill()


class Contender:
    """A scheduler, and a program of it; `run` and `queue` take a number of jobs."""

    def __init__(
        self, scheduler: psutil.Process, run: Callable[[int], None], queue: Callable[[int], None]
    ) -> None:
        self._scheduler, self._run, self._queue = scheduler, run, queue

    def _spent(self) -> float:
        times = self._scheduler.cpu_times()
        return float(times.user + times.system)

    def jobs(self, count: int) -> tuple[float, float]:
        """Return jobs a second, and the scheduler's microseconds of processor for each."""
        before, began = self._spent(), time.monotonic()
        self._run(count)
        took = time.monotonic() - began
        return count / took, (self._spent() - before) / count * 1e6

    def queued_bytes(self, count: int) -> float:
        """Return the scheduler's memory for each job that waits."""
        time.sleep(QUIET_SECONDS)
        before = self._scheduler.memory_full_info().uss
        self._queue(count)
        time.sleep(QUIET_SECONDS)
        return float(self._scheduler.memory_full_info().uss - before) / count


@contextmanager
def dispy_shared(workers: int) -> Iterator[Contender]:
    """Offer a `dispy scheduler`; without workers its only node does not exist."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        if workers:
            node = own_command(
                "node",
                f"--cpus={workers}",
                f"--host={NODE}",
                f"--dest_path_prefix={directory}/node",
            )
            stack.enter_context(process(node, "serves"))
        nodes = NODE if workers else NOBODY
        command = own_command(
            "scheduler", f"--host={HOST}", f"--nodes={nodes}", f"--data={directory}/data"
        )
        scheduler, _ = stack.enter_context(process(command, "serves"))
        cluster = SharedJobCluster(give_back, scheduler_host=HOST, loglevel=50)
        stack.callback(cluster.close, timeout=0, terminate=True)

        def run(count: int) -> None:
            for job in [cluster.submit(number) for number in range(count)]:
                job()

        def queue(count: int) -> None:
            for _ in range(count):
                cluster.submit(os.urandom(ARGUMENT))
            cluster._session.settle()

        yield Contender(scheduler, run, queue)


@contextmanager
def dask(workers: int) -> Iterator[Contender]:
    """Offer Dask's scheduler."""
    import distributed

    with ExitStack() as stack:
        module = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        command = [*module, f"--host={HOST}", "--port=0", "--no-dashboard"]
        scheduler, address = stack.enter_context(process(command, rf"tcp://{HOST}:\d+"))
        for _ in range(workers):
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            command = [
                sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads=1",
                "--no-dashboard", "--no-nanny", f"--local-directory={directory}",
            ]  # fmt: skip
            stack.enter_context(process(command, "Starting established connection"))
        client = stack.enter_context(distributed.Client(address))

        def run(count: int) -> None:
            client.gather(client.map(give_back, range(count), pure=False))

        kept = []

        def queue(count: int) -> None:
            for _ in range(count):
                kept.append(client.submit(give_back, os.urandom(ARGUMENT), pure=False))
            # Its answer comes after all that was said before.
            deadline = time.monotonic() + START_SECONDS
            while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) < count:
                assert time.monotonic() < deadline, "Dask has not taken all tasks"
                time.sleep(0.1)

        yield Contender(scheduler, run, queue)


def main() -> None:
    """Measure in turns and print the table."""
    options = docopt(__doc__)
    jobs, queued, workers = (int(options[f"--{each}"]) for each in ("jobs", "queued", "workers"))
    counts = {"dispy": jobs, "Dask": max(1, jobs // 10)}
    progress, found = Progress(), {name: ([], [], []) for name in counts}
    for number in range(int(options["--rounds"])):
        for name, offer in (("dispy", dispy_shared), ("Dask", dask)):
            progress.show(f"round {number + 1}: {name}")
            rates, costs, memories = found[name]
            with offer(workers) as contender:
                contender.jobs(counts[name] // 10)  # not counted: all is started and learnt in it
                rate, cost = contender.jobs(counts[name])
                rates.append(rate)
                costs.append(cost)
            with offer(0) as contender:
                memories.append(contender.queued_bytes(queued))
    progress.clear()
    rows = []
    for at, (what, unit, more) in enumerate((
        (f"short jobs, {workers} workers", "jobs/s", True),
        ("processor of the scheduler, a job", "us", False),
        ("memory of the scheduler, a queued job", "bytes", False),
    )):  # fmt: skip
        ours, theirs = (statistics.median(found[name][at]) for name in ("dispy", "Dask"))
        ratio = ours / theirs if more else theirs / ours
        rows.append((what, unit, f"{ours:,.0f}", f"{theirs:,.0f}", f"{ratio:.1f}"))
    print("\n".join(table(("what", "unit", "dispy", "Dask", "ratio"), rows, left=(0, 1))))


if __name__ == "__main__":
    main()
