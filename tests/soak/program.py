"""The client of a long run: `python -m tests.soak.program HOST`, told by lines what to do.

"round N" sends the N-th round of traffic, "count" prints its figures in a line of JSON. It is a
program as users write them, but for its links, which it breaks itself.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import dispy
from dispy.client import session

from .counts import count_all

SMALL = 4000  # jobs a round
CHUNKED = 20_000  # calls of a map a round
LARGE = 3 << 20  # bytes


def double(number):
    return 2 * number


def measure(argument):
    return len(argument), b"x" * 100_000


def in_steps(number):
    for step in range(3):
        dispy_provisional_result(step)  # noqa: F821
    return number


def write(name):
    with open(name, "w") as file:
        file.write("x" * 5000)
    dispy_send_file(name)  # noqa: F821
    return os.path.exists("sent_along")


def fail():
    raise ValueError("as it should")


def die_once():
    if os.environ.get("DISPY_ATTEMPT", "1") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def hang():
    while True:
        time.sleep(1)


class Traffic:
    """One long-lived cluster, and others that come and go."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.cluster = self.open(double)
        self.told = 0

    def open(self, function, **options) -> dispy.JobCluster:
        return dispy.JobCluster(function, nodes=[self.host], reentrant=True, **options)

    def round(self, number: int) -> None:
        jobs = [self.cluster.submit(n) for n in range(SMALL)]
        assert sum(self.cluster.map(range(CHUNKED))) == CHUNKED * (CHUNKED - 1)
        self.break_links()
        for at, job in enumerate(jobs):
            assert job.get(60) == 2 * at
        self.come_and_go()
        self.be_hard(number)

    def break_links(self) -> None:
        """As a network does, at any time."""

        def cut() -> None:
            for link in list(session._session.scheduler._links):
                link.close()

        session._session.hub.call(cut)

    def come_and_go(self) -> None:
        with self.open(measure) as cluster:
            jobs = [cluster.submit(os.urandom(LARGE)) for _ in range(4)]
            assert [job.get(60)[0] for job in jobs] == [LARGE] * 4
        Path("sent_along").write_text("y" * 3000)
        with self.open(write, depends=["sent_along"]) as cluster:
            assert all(job.get(60) for job in [cluster.submit(f"f{n}") for n in range(4)])
        with self.open(in_steps, callback=self.take) as cluster:
            for number in range(50):
                cluster.submit(number)
            cluster.wait()

    def take(self, job: dispy.DispyJob) -> None:
        self.told += 1

    def be_hard(self, number: int) -> None:
        """Failures, deaths, cancels, and a close by force."""
        isolation = "job" if number % 3 == 0 else "worker"
        with self.open(fail, isolation=isolation) as cluster:
            for job in [cluster.submit() for _ in range(20)]:
                assert job.wait(60)
                assert "as it should" in job.exception
        with self.open(die_once, retries=2) as cluster:
            assert [j.get(60) for j in [cluster.submit() for _ in range(2)]] == ["alive"] * 2
        cluster = self.open(hang)
        first, _ = [cluster.submit() for _ in range(2)]
        cluster.cancel(first)
        cluster.close(timeout=0, terminate=True)


def main() -> None:
    """Do what the lines on standard input say."""
    traffic = Traffic(sys.argv[1])
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "round":
            traffic.round(int(rest))
            print(json.dumps("done"), flush=True)
        elif word == "count":
            print(json.dumps(session._session.hub.call(count_all)), flush=True)
    traffic.cluster.close()


if __name__ == "__main__":
    main()
