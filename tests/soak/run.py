"""A node and a program under traffic, and what they keep of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parent.parent.parent
HOST = f"127.3.{os.getpid() % 250}.{os.getpid() // 250 % 250 + 1}"
DEADLINE = 60.0  # seconds
REST_SECONDS = 4.0  # that both have to come to rest before they are counted first
ZOMBIE_MINUTES = 0.05  # what a killed program left goes soon

# Rows that may come while each of these fills up, which is bounded.
BOUNDED = {
    "rows: _Record.taken": 100_000,
    "rows: _Record.clusters": 1000,
    "rows: RemoteNode.files_answered": 1000,
    "rows: Owner.early_cancels": 1000,
    "rows: LargeArguments._seen": 256,
    "rows: SegmentPool._free": 64,
    "rows: _Segment objects": 64,
    "objects": 5000,  # as these fill up
    "descriptors": 8,  # of segments
}
SLACK = 3  # of anything that is counted: what is there at the moment
KIB = 4096  # that memory may grow by between two counts (one segment is kept more), besides...
KIB_FOR_JOBS = 0.5  # ...this for each thousand jobs

KILLED_PROGRAM = """
import os, signal, sys, time
import dispy
def hang():
    import time
    time.sleep(1000)
cluster = dispy.JobCluster(hang, nodes=[sys.argv[1]], recover_file=False)
job = cluster.submit()
while job.status != dispy.DispyJob.Running:
    time.sleep(0.01)
os.kill(os.getpid(), int(sys.argv[2]))
"""

Figures = Mapping[str, int]


class Soak:
    """Starts and ends both processes; everything of theirs is below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rounds = self.jobs = 0
        self.began = time.monotonic()
        for name in ("node", "program"):
            (directory / name).mkdir()

    def __enter__(self) -> "Soak":
        self.figures = self.directory / "figures"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DISPY_PASS_ENV": "PYTHONPATH"}
        self.node = subprocess.Popen(
            [
                sys.executable, "-m", "tests.soak.node", str(self.figures), f"--host={HOST}",
                f"--dest_path_prefix={self.directory / 'node'}", "--cpus=2",
                f"--zombie_interval={ZOMBIE_MINUTES}",
            ],
            stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip
        assert self.node.stderr is not None
        while "serves" not in (line := self.node.stderr.readline()):
            assert line, "the node did not start"
        self.said = (self.directory / "node said").open("w")
        self.pump = subprocess.Popen(["cat"], stdin=self.node.stderr, stdout=self.said)
        self.program = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.program", HOST],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
            cwd=self.directory / "program",
        )  # fmt: skip
        self.environment = environment
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.end()
        for process in (self.program, self.node):
            process.kill()
            process.wait()
        self.pump.wait(DEADLINE)
        self.said.close()
        if error is not None:
            print((self.directory / "node said").read_text()[-5000:], file=sys.stderr)

    def end(self) -> None:
        """End both as their users would."""
        if self.node.returncode is None:
            assert self.program.stdin is not None
            self.program.stdin.close()
            assert self.program.wait(DEADLINE) == 0
            self.node.terminate()
            assert self.node.wait(DEADLINE) == 0

    # -- traffic

    def play(self, rounds: int = 0, seconds: float = 0.0) -> None:
        """Have so many rounds, or as many as there is time for."""
        until, last = time.monotonic() + seconds, self.rounds + rounds
        while self.rounds < last or time.monotonic() < until:
            self.rounds += 1
            assert self.ask(f"round {self.rounds}") == "done"
            self.jobs += 24_000
            if self.rounds % 4 == 1:
                number = signal.SIGKILL if self.rounds % 8 == 1 else signal.SIGTERM
                self.come_and_die(number)

    def come_and_die(self, number: int) -> None:
        """Another program comes, has a job that runs, and dies."""
        command = [sys.executable, "-c", KILLED_PROGRAM, HOST, str(int(number))]
        program = subprocess.run(
            command, env=self.environment, cwd=self.directory / "program", timeout=DEADLINE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert program.returncode == -number

    def ask(self, what: str) -> object:
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.write(f"{what}\n")
        self.program.stdin.flush()
        answer = self.program.stdout.readline()
        assert answer, "the program has ended"
        return json.loads(answer)

    # -- what is kept

    def count(self, first: Figures | None = None) -> dict[str, int]:
        """Return what both have, once they are at rest: the least of several looks.

        first: an earlier count; it may take longer until there is as little again.
        """
        least: dict[str, int] = {}
        until = time.monotonic() + (REST_SECONDS if first is None else DEADLINE)
        while time.monotonic() < until:
            time.sleep(REST_SECONDS / 8)
            for name, number in self.look().items():
                least[name] = min(number, least.get(name, number))
            if first is not None and not self.grown(first, least):
                break
        return least

    def look(self) -> dict[str, int]:
        of_program = self.ask("count")
        assert isinstance(of_program, dict)
        self.figures.unlink(missing_ok=True)
        self.node.send_signal(signal.SIGUSR2)
        deadline = time.monotonic() + DEADLINE
        while not self.figures.exists():
            assert time.monotonic() < deadline, "the node does not say what it keeps"
            time.sleep(0.02)
        of_node = json.loads(self.figures.read_text())
        family = psutil.Process(self.node.pid).children(recursive=True)
        figures = {f"program: {name}": number for name, number in of_program.items()}
        figures.update({f"node: {name}": number for name, number in of_node.items()})
        figures["processes of the node"] = len(family)
        for name in ("node", "program"):
            figures[f"files of the {name}"] = sum(1 for _ in (self.directory / name).rglob("*"))
        return figures

    def grown_since(self, first: Figures) -> list[str]:
        """Count again; return a line for each figure that has grown by more than it may."""
        self.last = self.count(first)
        return self.grown(first, self.last)

    def grown(self, first: Figures, last: Figures) -> list[str]:
        """Compare two counts."""
        grown = []
        for name, number in sorted(last.items()):
            before, most = first.get(name, 0), self.most(name)
            if number > before + most:
                grown.append(f"{name}: {before} -> {number}, at most {most:.0f} more")
        return grown

    def most(self, name: str) -> float:
        """Return by how much a figure may grow."""
        if "KiB" in name:
            return KIB + KIB_FOR_JOBS * self.jobs / 1000
        return BOUNDED.get(name.split(": ", 1)[-1], SLACK)

    def report(self, first: Figures) -> str:
        """Tell in lines what there was at both counts."""
        seconds = time.monotonic() - self.began
        lines = [f"{self.rounds} rounds, some {self.jobs:,} jobs, {seconds:.0f} s"]
        for name, number in sorted(self.last.items()):
            if "rows" not in name or number > first.get(name, 0):
                lines.append(f"{name:50} {first.get(name, 0):>10,} {number:>10,}")
        return "\n".join(lines)
