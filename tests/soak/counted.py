"""A real node that tells what it keeps, and the comparison of two such counts."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 60.0  # seconds
MARK = "DISPY_SOAK"  # in the environment of a node and of all that it starts
PASSED = "DISPY_PASS_ENV"

# Rows that may come while each of these fills up, which is bounded.
BOUNDED = {
    "rows: Lane.candidates": 64,
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
KIB = 4096  # that memory may grow by between two counts (one segment is kept more), besides...
KIB_FOR_JOBS = 0.5  # ...this for each thousand jobs

Figures = Mapping[str, int]


class CountedNode:
    """A `dispy node` process whose files, and those about it, are below `directory`."""

    def __init__(self, directory: Path, host: str, *options: str) -> None:
        self.host, self.directory = host, directory / "node"
        self.directory.mkdir()
        self._figures, self._said = directory / "figures", directory / "node said"
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        passed = ",".join([MARK, *filter(None, [os.environ.get(PASSED)])])
        marked = {MARK: str(directory), PASSED: passed}
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "tests.soak.node", str(self._figures), f"--host={host}",
                    f"--dest_path_prefix={self.directory}", *options,
                ],
                stderr=said, env={**self.environment, **marked}, cwd=ROOT,
            )  # fmt: skip
        self._wait_until("the node serves", lambda: "serves" in self.said)

    @property
    def said(self) -> str:
        """All that it has logged."""
        return self._said.read_text()

    def end(self) -> None:
        """End it as an operator would."""
        if self.process.returncode is None:
            self.process.terminate()
            assert self.process.wait(DEADLINE) == 0

    def kill(self) -> None:
        """End it whatever it does."""
        self.process.kill()
        self.process.wait()

    def look(self) -> dict[str, int]:
        """Return its figures, the processes below it, and what is in its directory."""
        self._figures.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR2)
        self._wait_until("the node says what it keeps", self._figures.exists)
        figures = {f"node: {name}": n for name, n in json.loads(self._figures.read_text()).items()}
        figures["processes of the node"] = len(self.processes())
        # os.walk, other than rglob, goes on where a directory is removed meanwhile.
        found = os.walk(self.directory)
        figures["files of the node"] = sum(len(names) + len(files) for _, names, files in found)
        return figures

    def processes(self) -> list[psutil.Process]:
        """Return all that it has started, directly or not, and that live; daemons too."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.directory.parent):
                    found.append(process)
        return [process for process in found if process.pid != self.process.pid]

    def _wait_until(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"waited until {what}"
            assert self.process.poll() is None, f"the node has ended: {self.said}"
            time.sleep(0.02)


def grown(first: Figures, last: Figures, jobs: int, slack: int) -> list[str]:
    """Return a line for each figure that has grown by more than it may.

    jobs: that came between, which memory may show a little. slack: of anything that is counted:
    what is there at the moment.
    """
    lines = []
    for name, number in sorted(last.items()):
        before, most = first.get(name, 0), float(BOUNDED.get(name.split(": ", 1)[-1], slack))
        if "KiB" in name:
            most = KIB + KIB_FOR_JOBS * jobs / 1000
        if number > before + most:
            lines.append(f"{name}: {before} -> {number}, at most {most:.0f} more")
    return lines
