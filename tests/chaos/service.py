"""A dispy process on a machine of its own, which is started there again and again."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from chaos.forks import Fork, Source
from netns.machines import Machine

DEADLINE = 60.0  # seconds for what takes one, on a machine that is busy with something else


class Service:
    """A node or a scheduler; `kind` says which, and its logs lie below `place`."""

    def __init__(
        self, kind: str, name: str, machine: Machine, port: str, place: Path, source: Source
    ) -> None:
        """port: of the switch, to which its machine is connected. source: from which it forks."""
        self.kind, self.name, self.machine, self.port = kind, name, machine, port
        self.directory = place / name
        self.directory.mkdir()
        self.log = place / f"{name}.log"
        self.process: subprocess.Popen[str] | Fork | None = None
        self.has_line = False  # through which its packets may be led (`faults`)
        self.complaints: list[str] = []  # of what went wrong, apart from any one run
        self._source, self._began = source, 0

    @property
    def options(self) -> list[str]:
        """The arguments of its command line."""
        raise NotImplementedError

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, if it does not run; `wait_ready` says when it serves."""
        if self.is_running:
            return
        with self.log.open("a") as output:
            self._began = output.tell()
            self._launch(output)

    def _launch(self, output: Any) -> None:
        order = {"space": self.machine.holder.pid, "arguments": [self.kind, *self.options]}
        self.process = self._source.fork(order, self.log)

    def wait_ready(self) -> None:
        """Return when it serves."""
        deadline = time.monotonic() + DEADLINE
        while "serves" not in (said := self.said_since(self._began)):
            if not self.is_running or time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind} {self.name} did not start: {said}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.is_running:
            self.process.kill()
            self.process.wait()

    def end(self, owes: bool = False) -> None:
        """End it as an operator would; it must leave nothing but what it owes, where it may."""
        if not self.is_running:
            return
        self.process.send_signal(signal.SIGCONT)  # in case it is stopped
        try:
            self.wait_ready()
        except RuntimeError:
            if self.is_running:
                raise
            return  # it could not start: its disk may be full
        self.process.terminate()
        try:
            status = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.complaints.append(f"{self.kind} {self.name} did not end when it was told to")
            self.kill()
            return
        if status:
            self.complaints.append(
                f"{self.kind} {self.name} ended with status {status}, being told to end"
            )
        if left := self.when_quiet(lambda: self.left_by_dead(owes)):
            self.complaints.append(f"{self.kind} {self.name} ended and left {left}")

    def left_by_dead(self, owes: bool) -> list[str]:
        """Name what is left there of a process that has ended."""
        raise NotImplementedError

    def said_since(self, place: int) -> str:
        """Return what it wrote, from this place of its log on."""
        if not self.log.exists():
            return ""
        with self.log.open(errors="replace") as log:
            log.seek(place)
            return log.read()

    @property
    def log_size(self) -> int:
        """Where its log ends."""
        return self.log.stat().st_size if self.log.exists() else 0

    @property
    def where(self) -> Path:
        """Its directory, as its machine sees it."""
        return Path(f"/proc/{self.machine.holder.pid}/root{self.directory}")

    def mount(self, size: int) -> None:
        """Have its directory on a disk of its own, of so many bytes."""
        options = f"size={size}"
        self.machine.run("mount", "-t", "tmpfs", "-o", options, "none", str(self.directory))

    def when_quiet(self, look: Any) -> list[str]:
        """Return what `look` still finds after a time in which it may become nothing."""
        deadline = time.monotonic() + DEADLINE
        while left := look():
            if time.monotonic() > deadline:
                return left
            time.sleep(0.1)
        return []
