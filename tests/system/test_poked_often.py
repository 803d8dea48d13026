"""A worker that is poked while it answers a poke loses nothing."""

import os
import signal
import threading
from collections.abc import Callable

from system.conftest import DEADLINE

from dispy import DispyJob, JobCluster

Open = Callable[..., JobCluster]


def work(data: bytes, number: int) -> tuple:
    import os

    total = 0
    for each in range(20_000):
        total += each & 1
    return os.getpid(), number, len(data), data[-1]


def test_pokes_during_a_poke_lose_no_job(open_cluster: Open, start_node) -> None:
    cluster = open_cluster(work, nodes=[start_node("--cpus=1").host])
    worker = cluster.submit(b"x", 0).get(DEADLINE)[0]
    over = threading.Event()

    def poke() -> None:
        while not over.is_set():
            os.kill(worker, signal.SIGURG)

    thread = threading.Thread(target=poke)
    thread.start()
    try:
        jobs = [cluster.submit(bytes([n]) * 500_000, n) for n in range(1, 250)]
        results = [(job.wait(DEADLINE), job.status, job.exception, job.result) for job in jobs]
    finally:
        over.set()
        thread.join()
    expected = [(True, DispyJob.Finished, None, (worker, n, 500_000, n)) for n in range(1, 250)]
    assert results == expected
