"""Programs whose jobs log each of their executions, beside networks that are cut in some way."""

import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from netns.machines import DEADLINE, Machine

PROGRAM = """
import dispy, json, sys, time

def work(number, log, gate):
    import os
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{number} {dispy_node_name}\\n".encode())
    os.close(descriptor)
    gate = os.open(gate, os.O_RDONLY)
    os.read(gate, 1)
    os.close(gate)
    return number

if __name__ == "__main__":
    log, gate, number, arguments = *sys.argv[1:3], int(sys.argv[3]), json.loads(sys.argv[4])
    delivered, ready = [], []
    cluster = dispy.JobCluster(
        work, local_node=False, insecure=True, callback=delivered.append, **arguments,
        cluster_status=lambda status, node, job: ready.append(node)
        if status == dispy.DispyNode.Initialized else None,
    )
    while len(ready) < len(arguments["nodes"]):  # so that each gets its part
        time.sleep(0.02)
    jobs = [cluster.submit(each, log, gate) for each in range(number)]
    cluster.wait()
    cluster.close()
    for each, job in enumerate(jobs):
        count = delivered.count(job)
        print("job", json.dumps([each, job.status.name, job.result, count, str(job.exception)]))
    print("over", flush=True)
"""


class Ended:
    """What became of one job."""

    def __init__(self, line: str) -> None:
        self.number, self.status, self.result, self.delivered, self.exception = json.loads(line)


class Work:
    """A program on a machine that gives jobs to nodes; each waits until `open` lets it go on."""

    def __init__(
        self, machine: Machine, directory: Path, jobs: int, hosts: Path | None = None,
        **arguments: Any,
    ) -> None:  # fmt: skip
        """hosts: what is /etc/hosts for it. arguments: of its cluster."""
        path = directory / "work.py"
        path.write_text(PROGRAM)
        self.log, gate = directory / "executions", directory / "gate"
        self.log.touch()
        os.mkfifo(gate)
        self._gate = os.open(gate, os.O_RDWR)
        self.jobs = jobs
        own_hosts = f"mount --bind {hosts} /etc/hosts && " if hosts else ""
        self.process = machine.start(
            "unshare", "--mount", "sh", "-c", f'{own_hosts} exec "$@"', "work",
            sys.executable, str(path), str(self.log), str(gate), str(jobs), json.dumps(arguments),
        )  # fmt: skip
        self.said = Said(self.process)

    def started(self) -> Counter[int]:
        """Return how often each job was begun."""
        return Counter(int(line.split()[0]) for line in self.log.read_text().splitlines())

    def wait_for_starts(self, count: int) -> None:
        """Wait until so many executions have begun."""
        deadline = time.monotonic() + DEADLINE
        while sum(self.started().values()) < count:
            assert time.monotonic() < deadline, f"{self.started()}\n{self.said.read()}"
            time.sleep(0.02)

    def open(self, jobs: int = 1000) -> None:
        """Let so many jobs end, those that begin later too."""
        os.write(self._gate, b"x" * jobs)

    def ended(self) -> list[Ended]:
        """Return what became of each job, once the program is over."""
        self.said.wait_for("over")
        assert self.process.wait(DEADLINE) == 0
        os.close(self._gate)
        lines = [line[4:] for line in self.said.text.splitlines() if line.startswith("job ")]
        ends = [Ended(line) for line in lines]
        assert [end.number for end in ends] == list(range(self.jobs))
        assert {end.delivered for end in ends} == {1}, "an end was delivered twice, or never"
        return ends


class Said:
    """What a process says, as it comes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        self._descriptor = process.stdout.fileno()
        self.text = ""

    def read(self, seconds: float = 0.0) -> str:
        """Return all that it has said, after what comes within so long."""
        if select.select([self._descriptor], [], [], seconds)[0]:
            self.text += os.read(self._descriptor, 65536).decode()
        return self.text

    def wait_for(self, *words: str, times: int = 1) -> None:
        """Wait until it has said all of these so many times, in any order."""
        deadline = time.monotonic() + DEADLINE
        while any(self.text.count(each) < times for each in words):
            assert time.monotonic() < deadline, f"it did not say {words}, but:\n{self.text}"
            self.read(0.1)
