"""Processes that measure for `dispy bench --secret`, each its own contender.

A program proves itself by one secret or none, and so each contender is a process. It reads
lines, `what number`, and answers each with one figure.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import Any

from dispy.cli.measurements import NotMeasured, with_this_dispy

PROGRAM = "from dispy.cli.companions import run_program as run"
ALONE = "from dispy.cli.bare_tls import run_alone as run"
_RUN = "; import sys; run(*sys.argv[1:])"
GREET_SECONDS = 30.0  # that one link may take, and the end of a process

Measurement = Callable[[str, int], float]


class Companion:
    """Runs one of the programs above; a context manager."""

    def __init__(
        self, program: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", program + _RUN, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=with_this_dispy(environment),
        )

    def ask(self, what: str, number: int) -> float:
        """Return what it measured; raises NotMeasured where it failed."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(f"{what} {number}\n")
            stdin.flush()
            return float(json.loads(stdout.readline()))
        except (OSError, ValueError):
            raise NotMeasured(
                f"a process that measures ended with status {self._process.wait()}"
            ) from None

    def __enter__(self) -> "Companion":
        return self

    def __exit__(self, *how: Any) -> None:
        try:
            self._process.communicate(timeout=GREET_SECONDS)  # the end of its lines is its own
        finally:
            self._process.kill()


def answer(measurement: Measurement) -> None:
    """Measure what lines ask for, until there are no more."""
    for line in sys.stdin:
        what, number = line.split()
        print(json.dumps(measurement(what, int(number))), flush=True)


def run_program(host: str, port: str) -> None:
    """Be a user's program with a cluster on one node."""
    from dispy import JobCluster, NodeAllocate
    from dispy.cli.jobs import give_back
    from dispy.cli.measurements import bytes_per_second, contender_of, jobs_per_second

    with JobCluster(give_back, [NodeAllocate(host, int(port))], loglevel=30) as cluster:
        contender = contender_of(cluster)

        def measurement(what: str, number: int) -> float:
            if what == "jobs":
                return jobs_per_second(contender, number)
            if what == "bulk":
                return bytes_per_second(contender, b"\xa5" * number, number)
            return median(link_seconds(host, int(port)) for _ in range(number))

        answer(measurement)


def link_seconds(host: str, port: int) -> float:
    """Return the seconds from dialling a node to its first word on the new link."""
    from dispy.cli.greeting import greet
    from dispy.client.settings import client_credentials

    credentials = client_credentials()
    begin = perf_counter()
    greet(host, port, GREET_SECONDS, credentials)
    return perf_counter() - begin
