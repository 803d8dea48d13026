"""The standard library's pools, as contenders of `dispy.cli.measurements`."""

import multiprocessing
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
