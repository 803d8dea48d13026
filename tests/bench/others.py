"""The standard library's pools, as contenders of `dispy.cli.measurements`."""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import psutil

from dispy.cli.jobs import sleep
from dispy.cli.measurements import BURST, Contender

MAP_CHUNKS = 4  # for each processor: what multiprocessing.Pool does by itself


@contextmanager
def executor(function: Callable[..., Any], processors: int) -> Iterator[Contender]:
    """Offer concurrent.futures.ProcessPoolExecutor, with its workers started."""
    with ProcessPoolExecutor(processors) as pool:
        list(pool.map(abs, range(processors)))

        def collect(futures: Sequence[Any]) -> list[Any]:
            return [future.result() for future in futures]

        def call_all(items: Any) -> Iterator[Any]:
            size = max(1, len(items) // (MAP_CHUNKS * processors))
            return pool.map(function, items, chunksize=size)

        yield Contender(lambda item: pool.submit(function, item), collect, call_all, processors)
        pool.shutdown(cancel_futures=True)


@contextmanager
def pool(function: Callable[..., Any], processors: int) -> Iterator[Contender]:
    """Offer multiprocessing.Pool."""
    with multiprocessing.Pool(processors) as workers:

        def collect(results: Sequence[Any]) -> list[Any]:
            return [result.get() for result in results]

        def call_all(items: Any) -> Iterator[Any]:
            return iter(workers.map(function, items))

        def submit(item: Any) -> Any:
            return workers.apply_async(function, (item,))

        yield Contender(submit, collect, call_all, processors)


def executor_queued_bytes(processors: int, count: int) -> float:
    """As `measurements.queued_bytes`; run it in a fresh process, which it ends by force."""
    pool = ProcessPoolExecutor(processors)
    queued_ahead = 1  # by ProcessPoolExecutor itself, beyond its processes
    futures = [pool.submit(sleep, 3600.0) for _ in range(processors + queued_ahead)]
    futures += [pool.submit(sleep, 0.0) for _ in range(BURST)]
    this = psutil.Process()
    before = this.memory_info().rss
    futures += [pool.submit(sleep, 0.0) for _ in range(count)]
    taken = (this.memory_info().rss - before) / count
    for child in this.children(recursive=True):
        child.kill()
    return taken - sys.getsizeof((0.0,)) - 8  # the arguments and our list, as there


FORKS = """
import os, sys, time
begin, count = time.perf_counter(), int(sys.argv[1])
for _ in range(count):
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
print(count / (time.perf_counter() - begin))
"""


def forks_per_second(processors: int, count: int) -> float:
    """Return how many times a second bare interpreters, one a processor, fork, exit and wait."""
    command = [sys.executable, "-I", "-S", "-c", FORKS, str(count)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processors)
    ]
    return sum(float(each.communicate()[0]) for each in running)
