"""A scheduler, simulated nodes and simulated programs: processes that end with a block of code."""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from dispy.system.interpreter import own_command
from tests.bench.simulated_nodes import address_of

ROOT = Path(__file__).parents[2]
HOST = "127.9.0.1"  # of the scheduler
NODE_PORT = 51348


def processor_seconds(pid: int) -> float:
    """Return what a process took of a processor, the kernel's work for it included."""
    spent = psutil.Process(pid).cpu_times()
    return float(spent.user + spent.system)


class Simulated:
    """A process of ours that answers each line by one."""

    def __init__(self, stack: ExitStack, module: str, *arguments: str, **environment: str) -> None:
        command = [sys.executable, "-m", f"tests.bench.{module}", *arguments]
        self._process = stack.enter_context(
            subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, **environment},
            )
        )  # fmt: skip
        stack.callback(self._end)

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()

    @property
    def processor_seconds(self) -> float:
        """Seconds that it took of a processor."""
        return processor_seconds(self._process.pid)

    def line(self) -> str:
        """Return what it says next; raises RuntimeError where it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} has ended")
        return line

    def ask(self, line: str) -> dict[str, Any]:
        """Have it do one step, and return what it says of that."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.line())
        return answer


class Nodes:
    """All simulated nodes, in some processes."""

    def __init__(
        self, stack: ExitStack, count: int, processes: int = 1, first: int = 0, **environment: str
    ) -> None:
        """first: the number of the first one, which says where they listen."""
        self._numbers = range(first, first + count)
        each = -(-count // processes)
        parts = [self._numbers[at : at + each] for at in range(0, count, each)]
        self._parts = [
            Simulated(stack, "simulated_nodes", str(part.start), str(len(part)), **environment)
            for part in parts
        ]
        for part in self._parts:
            part.line()

    @property
    def names(self) -> str:
        """As `--nodes` has them."""
        return ",".join(f"{address_of(number)}:{NODE_PORT}" for number in self._numbers)

    @property
    def processor_seconds(self) -> float:
        """Seconds that all of them took of a processor."""
        return sum(part.processor_seconds for part in self._parts)

    def tell(self, what: str) -> int:
        """Return a sum over all: `settled`, `jobs_run` or `batches`."""
        return sum(part.ask("tell")[what] for part in self._parts)


class RunningScheduler:
    """A `dispy scheduler` with these nodes; ends with its block."""

    def __init__(self, stack: ExitStack, nodes: str, host: str = HOST, **environment: str) -> None:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        (Path(directory) / "dispy").mkdir()
        # They are too many for a command line.
        (Path(directory) / "dispy" / "config.toml").write_text(f'[scheduler]\nnodes = "{nodes}"\n')
        self._log = Path(directory) / "log"
        log = stack.enter_context(self._log.open("w"))
        self._process = stack.enter_context(
            subprocess.Popen(
                own_command("scheduler", f"--host={host}", f"--data={directory}/data"), stderr=log,
                env={**os.environ, "XDG_CONFIG_HOME": directory, "DISPY_BROADCAST": "0",
                     **environment},
            )
        )  # fmt: skip
        stack.callback(self._end)
        self.began = time.monotonic()
        while not self.said("serves"):
            assert self._process.poll() is None, self._log.read_text()
            time.sleep(0.02)

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        text = self._log.read_text()
        if "Traceback" in text:
            print(text[text.index("Traceback") :], file=sys.stderr)

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()

    def said(self, words: str) -> bool:
        """Say whether it has logged some words."""
        return words in self._log.read_text()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def private_bytes(self) -> int:
        """Memory that is its alone."""
        with open(f"/proc/{self.pid}/smaps_rollup") as file:
            return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private"))

    @property
    def processor_seconds(self) -> float:
        """Seconds that it took of a processor."""
        return processor_seconds(self.pid)
