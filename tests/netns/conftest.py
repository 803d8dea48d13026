"""What tests of several machines use; the machines are those of `netns.machines`."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from netns.machines import DEADLINE, Machine, connect, why_not


@pytest.fixture
def machines() -> Iterator[Callable[..., list[Machine]]]:
    """Make machines that share one network, 10.77.0.0/24: 10.77.0.1, 10.77.0.2 and so on."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    made: list[Machine] = []

    yield lambda count: connect(count, made)
    for machine in reversed(made):
        machine.end()


FIND = """
import dispy, json, sys, time

def where():
    import time
    time.sleep(0.02)
    return dispy_node_ip_addr, dispy_node_name

arguments, count = json.loads(sys.argv[1]), int(sys.argv[2])

if __name__ == "__main__":
    cluster = dispy.JobCluster(where, **arguments)
    ran, deadline = set(), time.monotonic() + 20
    while len(ran) < count and time.monotonic() < deadline:
        jobs = [cluster.submit() for _ in range(8)]
        if not cluster.wait(0.5 if not ran else 20):
            for job in jobs:
                cluster.cancel(job)
            cluster.wait()
        now = {job.result[0] for job in jobs if job.status == dispy.DispyJob.Finished}
        if now - ran:
            print("ran on", *sorted(now), flush=True)
            tasks = cluster._session.discovery._tasks
            while not all(task.dead for task in tasks.values()):
                time.sleep(0.01)
            print("searched", flush=True)
        ran |= now
    session, until = cluster._session, sys.argv[3]
    while True:
        record = "\\n".join(session.hub.call(session.search_lines, cluster))
        if until in record or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    time.sleep(float(sys.argv[4]))
    print(record)
    print("used", *sorted(ran))
"""


class Client:
    """A program that looks for `count` nodes, then until the record of its search has a text.

    It then goes on for `pause` seconds, in which something must not happen.
    """

    def __init__(
        self, machine: Machine, path: Path, count: int, until: str = "", pause: float = 0.0,
        insecure: str = "", **arguments: Any
    ) -> None:  # fmt: skip
        path.write_text(FIND)
        self.process = machine.start(
            sys.executable, str(path), json.dumps(arguments), str(count), until, str(pause),
            DISPY_INSECURE=insecure,
        )  # fmt: skip
        self.output = ""

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.output
        self.output += line
        return line

    def used(self) -> list[str]:
        """Return the addresses of the nodes that ran its jobs, once it has ended."""
        rest, _ = self.process.communicate(timeout=2 * DEADLINE)
        self.output += rest
        assert self.process.returncode == 0, self.output
        (line,) = [line for line in self.output.splitlines() if line.startswith("used")]
        return line.split()[1:]


@pytest.fixture
def run_client(tmp_path: Path) -> Callable[..., Client]:
    """Run a program that looks for nodes; it ends with its machine at the latest."""

    def run(machine: Machine, count: int, **arguments: Any) -> Client:
        return Client(machine, tmp_path / "find.py", count, **arguments)

    return run
