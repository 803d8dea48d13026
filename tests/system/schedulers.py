"""Shared schedulers as processes of their own."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence

from system.conftest import DEADLINE

from dispy import DispyJob, SharedJobCluster
from dispy.system.interpreter import own_command


class RunningScheduler:
    """A `dispy scheduler` process for nodes at these addresses."""

    def __init__(
        self,
        host: str,
        data: str,
        *nodes: str,
        options: Sequence[str] = (),
        under: Sequence[str] = (),
        **environment: str,
    ) -> None:
        """data: its data directory. under: a command that runs it in other circumstances."""
        self.host = host
        command = own_command(
            "scheduler",
            f"--host={host}",
            f"--nodes={','.join(nodes)}",
            f"--data={data}",
            *options,
        )
        self._command = [*under, *command]
        self._environment = {**os.environ, **environment}
        self.said = ""
        self.start()

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self.process = subprocess.Popen(
            self._command, stderr=subprocess.PIPE, text=True, env=self._environment
        )
        self.wait_for("serves")

    def wait_for(self, words: str) -> None:
        """Read what it says until there is a line with these words."""
        assert self.process.stderr is not None
        line = ""
        while words not in line:
            line = self.process.stderr.readline()
            assert line, f"the scheduler ended: {self.said}"
            self.said += line

    def read_on(self) -> None:
        """Read all that it says until its end: who says much never waits for a reader."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line

    def kill(self) -> None:
        """Kill it, as a machine out of memory would."""
        self.process.kill()
        self.said += self.process.communicate(timeout=DEADLINE)[1]

    def operate(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run one of the commands of operators; return what came of it."""
        command = own_command(arguments[0], f"--host={self.host}", *arguments[1:])
        return subprocess.run(
            command, capture_output=True, text=True, env=self._environment, timeout=DEADLINE
        )

    def end(self) -> int:
        """End it as an operator would; return its exit status."""
        self.process.terminate()
        self.said += self.process.communicate(timeout=DEADLINE)[1]
        return self.process.returncode


Open = Callable[..., SharedJobCluster]


def wait_until_running(job: DispyJob) -> None:
    """Return when a job runs."""
    deadline = time.monotonic() + DEADLINE
    while job.status != DispyJob.Running:
        assert time.monotonic() < deadline, job.why()
        time.sleep(0.01)
