"""A node and a program under traffic, and what they keep of it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from .counted import DEADLINE, CountedNode, Figures, grown

HOST = f"127.3.{os.getpid() % 250}.{os.getpid() // 250 % 250 + 1}"
REST_SECONDS = 4.0  # that both have to come to rest before they are counted first
ZOMBIE_MINUTES = 0.05  # what a killed program left goes soon
SLACK = 3

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


class Soak:
    """Starts and ends both processes; everything of theirs is below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rounds = self.jobs = 0
        self.began = time.monotonic()
        (directory / "program").mkdir()

    def __enter__(self) -> "Soak":
        self.node = CountedNode(
            self.directory, HOST, "--cpus=2", f"--zombie_interval={ZOMBIE_MINUTES}"
        )
        self.program = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.program", HOST],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=self.node.environment, cwd=self.directory / "program",
        )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.end()
        self.program.kill()
        self.program.wait()
        self.node.kill()
        if error is not None:
            print(self.node.said[-5000:], file=sys.stderr)

    def end(self) -> None:
        """End both as their users would."""
        if self.program.returncode is None:
            assert self.program.stdin is not None
            self.program.stdin.close()
            assert self.program.wait(DEADLINE) == 0
        self.node.end()

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
            command, env=self.node.environment, cwd=self.directory / "program", timeout=DEADLINE,
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
        least = self.look()
        until = time.monotonic() + (REST_SECONDS if first is None else DEADLINE)
        while time.monotonic() < until:
            time.sleep(REST_SECONDS / 8)
            figures = self.look()  # of what there is none, there is no figure
            least = {name: min(number, figures.get(name, 0)) for name, number in least.items()}
            if first is not None and not grown(first, least, self.jobs, SLACK):
                break
        return least

    def look(self) -> dict[str, int]:
        of_program = self.ask("count")
        assert isinstance(of_program, dict)
        figures = {f"program: {name}": number for name, number in of_program.items()}
        files = (self.directory / "program").rglob("*")
        return {**figures, **self.node.look(), "files of the program": sum(1 for _ in files)}

    def grown_since(self, first: Figures) -> list[str]:
        """Count again; return a line for each figure that has grown by more than it may."""
        self.last = self.count(first)
        return grown(first, self.last, self.jobs, SLACK)

    def report(self, first: Figures) -> str:
        """Tell in lines what there was at both counts."""
        seconds = time.monotonic() - self.began
        lines = [f"{self.rounds} rounds, some {self.jobs:,} jobs, {seconds:.0f} s"]
        for name, number in sorted(self.last.items()):
            if "rows" not in name or number > first.get(name, 0):
                lines.append(f"{name:50} {first.get(name, 0):>10,} {number:>10,}")
        return "\n".join(lines)
