"""Real nodes and a real client, each machine a network namespace; what a schedule is played on.

A town lives for several runs: its nodes, and the process that forks clients, are started once.
Machine 1 is the client's. Everything of a town ends with it, or with this process.
"""

import contextlib
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import psutil
from chaos import plan
from chaos.forks import Fork, Source
from chaos.service import Service
from chaos.shared_scheduler import Scheduler
from netns.machines import Machine, connect

from dispy.system.interpreter import own_command

PORT = 51348
ZOMBIE_SECONDS = 20.0  # for which a node keeps what a client that is away has there
DISK_BYTES = 24 * 1024 * 1024  # of a node whose disk can be filled
OWED = "/owed.sqlite"  # what clients that are away have not taken
STAYS = ("store", "clients")  # in a node's directory (docs/node.rst, Files); not `owed.sqlite`
PACKETS = f"{socket.SOCK_SEQPACKET:04}"  # as /proc/net/unix says it
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
ENVIRONMENT = {"DISPY_BROADCAST": "0", "XDG_CONFIG_HOME": "/nonexistent"}
SECRET = "not the least of the things that a stranger would have to guess"


def why_not() -> str | None:
    """Say why there can be no towns here."""
    from netns import machines

    tools = {"iptables": "iptables", "ss": "iproute2", "ethtool": "ethtool"}
    missing = [package for tool, package in tools.items() if shutil.which(tool) is None]
    if not os.path.exists(FAKETIME):
        missing.append("faketime")
    if missing and os.geteuid() == 0:
        return f"{', '.join(missing)} is not installed; tests/run does that"
    return machines.why_not()


class Node(Service):
    """A node's machine, with the `dispy node` that is started there again and again."""

    def __init__(self, town: "Town", number: int, machine: Machine) -> None:
        port = f"port{number + 2}"  # machine 1 is the client's
        super().__init__("node", f"n{number}", machine, port, town.place, town.sources.node)
        self.clock = town.place / f"{self.name}.clock"
        self._options = [
            f"--host={machine.address}", f"--name={self.name}", f"--cpus={town.plan.cpus[number]}",
            f"--dest_path_prefix={self.directory}", "--clean",
            f"--zombie_interval={ZOMBIE_SECONDS / 60}", *town.security,
        ]  # fmt: skip
        self._environment = dict(ENVIRONMENT)
        if town.plan.disk == number:
            self.mount(DISK_BYTES)
        if town.plan.clock == number:
            self.clock.write_text("+0")
            self._environment |= {
                "LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": str(self.clock),
                "FAKETIME_CACHE_DURATION": "1", "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DISABLE_SHM": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }  # fmt: skip

    @property
    def options(self) -> list[str]:
        """The arguments of its command line."""
        return self._options

    def _launch(self, output: Any) -> None:
        if "LD_PRELOAD" not in self._environment:
            super()._launch(output)
            return
        command = own_command("node", *self._options)  # it is heeded at a start alone
        self.process = self.machine.start(*command, output=output, **self._environment)

    def processes(self, kind: str) -> list[psutil.Process]:
        """Return its processes of a kind: node, fork server, nursery, worker."""
        if not self.is_running:
            return []
        node = psutil.Process(self.process.pid)
        if kind == "node":
            return [node]
        servers, nurseries = list[psutil.Process](), list[psutil.Process]()
        for child in _children(node):
            with contextlib.suppress(psutil.Error, OSError):
                (servers if _forks_nurseries(child) else nurseries).append(child)
        if kind == "worker":
            return [worker for nursery in nurseries for worker in _children(nursery)]
        return servers if kind == "fork server" else nurseries

    def left(self, connections: bool = True) -> list[str]:
        """Name what is there of computations and clients; nothing, once all clients have gone.

        connections: of them, too.
        """
        if not self.is_running:
            return ["it does not run"]
        others = set(self.machine.others()) - {self.process.pid}
        if others:
            others -= {server.pid for server in self.processes("fork server")}
        left = [_command(pid) for pid in others]
        return left + self._files() + (self._connections() if connections else [])

    def left_by_dead(self, owes: bool) -> list[str]:
        """Name what is left there of a process that has ended."""
        files = [file for file in self._files() if not (owes and OWED in file)]
        return [_command(pid) for pid in self.machine.others()] + files

    def _files(self) -> list[str]:
        """Name what lies in its directory and is not meant to stay."""
        found = [path for path in self.where.glob("*/*") if not path.name.startswith(STAYS)]
        found += self.where.glob("*/going/*")  # what is about to be removed
        return [str(path.relative_to(self.where)) for path in found if path.name != "going"]

    def _connections(self) -> list[str]:
        lines = Path(f"/proc/{self.machine.holder.pid}/net/tcp").read_text().splitlines()[1:]
        states = {"01": "established", "08": "not closed"}
        return [
            f"a connection that is {states[fields[3]]}"
            for fields in map(str.split, lines)
            if fields[3] in states
        ]


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = process.children()
    except psutil.Error:
        return []
    return children


def _forks_nurseries(process: psutil.Process) -> bool:
    """Say whether it has the end of a socket of packets that its command line names; a nursery,
    which has been forked from it, has the same command line."""
    words = process.cmdline()
    if "--forkserver" not in words:
        return False
    place = Path(f"/proc/{process.pid}")
    try:
        opened = os.readlink(place / "fd" / words[words.index("--forkserver") + 1])
    except FileNotFoundError:
        return False
    sockets = (place / "net" / "unix").read_text().splitlines()[1:]
    return any(
        kind == PACKETS and opened == f"socket:[{inode}]"
        for _, _, _, _, kind, _, inode, *_ in map(str.split, sockets)
    )


def _command(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        return f"process {pid} ({' '.join(process.cmdline()[-4:])}, {process.status()})"
    except psutil.Error:
        return f"process {pid}, which has ended since"


class Sources:
    """What nodes and clients are forked from, of all towns."""

    def __init__(self) -> None:
        here = Path(__file__).parent
        self.node = Source(here / "warm.py", ENVIRONMENT, "node")
        self.scheduler = Source(here / "warm.py", ENVIRONMENT, "scheduler")
        self.client = Source(here / "program.py", ENVIRONMENT)

    def end(self) -> None:
        """End them, not those that they have forked."""
        for source in (self.node, self.scheduler, self.client):
            source.end()


class Town:
    """`place`: a directory for the logs and the nodes' files."""

    def __init__(self, plan: plan.Town, place: Path, sources: Sources) -> None:
        self.plan, self.place, self.sources = plan, place, sources
        place.mkdir(parents=True, exist_ok=True)
        self._made: list[Machine] = []
        self.secret = place / "secret" if plan.secret else None
        self.security, self._client_options = self._agree()
        self.nodes: list[Node] = []
        try:
            self.client, *machines, last = connect(2 + len(plan.cpus), self._made)
            self.switch = self._made[0]
            self.machines = [self.client, *machines, last]
            for number, machine in enumerate(machines):
                self.nodes.append(Node(self, number, machine))
            hosts = [machine.address for machine in machines]
            port = f"port{len(self._made) - 1}"
            self.scheduler = Scheduler(last, port, place, sources.scheduler, hosts, self.secret)
            for node in self.nodes:
                node.start()
            self.start_nodes()
        except BaseException:
            self.end()
            raise

    def _agree(self) -> tuple[list[str], dict[str, Any]]:
        if self.secret is None:
            return ["--insecure"], {"insecure": True}
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        return [f"--secret-file={self.secret}"], {"secret": SECRET}

    def run_client(self, place: Path, recovers: bool = False) -> Fork:
        """Fork a client that plays the schedule in `place`, or gets what one was owed; it logs
        to there."""
        orders = {
            "space": self.client.holder.pid,
            "schedule": str(place / "schedule.json"), "calm": str(place / "calm"),
            "recovers": recovers, "options": self._client_options, "place": str(place),
            "nodes": [(node.machine.address, PORT) for node in self.nodes],
            "log": str(place / "executions.log"), "journal": str(place / "client.log"),
            "recover_file": str(place / "recover"),
            "scheduler": self.scheduler.machine.address,
        }  # fmt: skip
        return self.sources.client.fork(orders, place / "client.out")

    def start_nodes(self) -> None:
        """See that every node runs and serves."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()

    def end(self) -> list[str]:
        """End all; return what went wrong."""
        complaints = []
        for service in [self.scheduler, *self.nodes]:
            service.end()
            complaints += service.complaints
        for machine in reversed(self._made):
            try:
                machine.end()
            except AssertionError as error:
                complaints.append(str(error))
        return complaints
