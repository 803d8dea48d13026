"""The machine of a shared scheduler, with the `dispy scheduler` that is started there."""

import shutil
from pathlib import Path

from chaos.forks import Source
from chaos.plan import Scheduler as Plan
from chaos.service import Service
from netns.machines import Machine

DISK_BYTES = 160 * 1024 * 1024  # where its data lies: its journal's log takes 64 MB
ZOMBIE_SECONDS = 8.0  # for which it keeps what a client has that is away; more than any fault lasts
REMEMBERS = "begun where the earlier scheduler ended"  # it says, if there is anything


class Scheduler(Service):
    """Of one town; it serves runs that share it, one after the other, from one data directory."""

    def __init__(
        self, machine: Machine, port: str, place: Path, source: Source, nodes: list[str],
        secret: Path | None,
    ) -> None:  # fmt: skip
        """nodes: their addresses. secret: the file with it, towards both sides."""
        super().__init__("scheduler", "scheduler", machine, port, place, source)
        self.mount(DISK_BYTES)
        self._own: list[str] = []
        self._options = [
            f"--host={machine.address}", f"--nodes={','.join(nodes)}", "--name=scheduler",
            f"--data={self.directory}", f"--zombie_interval={ZOMBIE_SECONDS / 60}",
        ]  # fmt: skip
        if secret is None:
            self._options.append("--insecure")
        else:
            self._options += [f"--cluster_secret_file={secret}", f"--node_secret_file={secret}"]

    @property
    def options(self) -> list[str]:
        """The arguments of its command line."""
        return [*self._options, *self._own]

    def begin(self, plan: Plan) -> None:
        """Start it for a run; it must know nothing of the one before."""
        self._own = [f"--policy={plan.policy}", f"--memory={plan.memory}"]
        self.start()
        self.wait_ready()
        if REMEMBERS in (said := self.said_since(self._began)):
            self.complaints.append(f"the scheduler remembers something of an earlier run: {said}")

    def see_running(self) -> None:
        """Start it where it does not run: it may have been killed, or met a full disk."""
        self.start()
        self.wait_ready()

    def forget(self) -> None:
        """Remove its data, after a run that failed."""
        self.kill()
        for path in self.where.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def left_by_dead(self, owes: bool) -> list[str]:
        """Name processes that it has left."""
        return [f"process {pid}" for pid in self.machine.others()]
