"""Machines of their own, as network namespaces on one Ethernet; they end with their process."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dispy.system.interpreter import own_command

DEADLINE = 30.0  # seconds; for machines that are busy with something else
TOOLS = {"ip": "iproute2", "unshare": "util-linux", "nsenter": "util-linux"}


def why_not() -> str | None:
    """Say why there can be no namespaces here."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root may make network namespaces"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(sorted(set(missing)))} is not installed; tests/run does that"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        return "this kernel or container lets nobody make network namespaces"
    return None


class Machine:
    """A namespace with an address, and the processes that a test started in it."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        self.holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], stdout=subprocess.PIPE
        )
        assert self.holder.stdout is not None
        self.holder.stdout.readline()  # it has its namespace
        self.started: list[subprocess.Popen[str]] = []
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> None:
        """Run `ip` there."""
        subprocess.run([*self._enter(), "ip", *arguments], check=True)

    def run(self, *command: str) -> None:
        """Run a command there, to its end."""
        subprocess.run([*self._enter(), *command], check=True, stdout=subprocess.DEVNULL)

    def drop(self, chain: str, again: bool = True) -> None:
        """Drop all packets that come (INPUT) or go (OUTPUT), or no more."""
        if shutil.which("iptables") is None:
            pytest.skip("iptables is not installed; tests/run does that")
        self.run("iptables", "-A" if again else "-D", chain, "-j", "DROP")

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self.holder.pid), "--net", "--"]

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        """Run a command there; both its streams are one."""
        process = subprocess.Popen(
            [*self._enter(), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "DISPY_BROADCAST": "1", **environment},
        )
        self.started.append(process)
        return process

    def start_node(self, directory: Path, *options: str, host: str = "", cpus: int = 1) -> Any:
        """Run a node there, at the machine's address or another, until the machine ends."""
        command = own_command(
            "node", f"--host={host or self.address}", "--insecure", f"--cpus={cpus}",
            f"--dest_path_prefix={directory / (host or self.address)}", *options,
        )  # fmt: skip
        node = self.start(*command)
        assert node.stdout is not None
        while "serves" not in (line := node.stdout.readline()):
            assert line, "the node did not start"
        return node

    def end(self) -> None:
        """End what was started, check that nothing else is left, and the namespace with it."""
        for process in self.started:
            process.terminate()
        for process in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=DEADLINE)
        left = self._others()
        deadline = time.monotonic() + DEADLINE
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = self._others()
        for pid in left:
            os.kill(pid, 9)
        self.holder.kill()
        self.holder.communicate()
        assert not left, f"processes were left behind: {left}"

    def _others(self) -> list[int]:
        """Return the ids of all processes in this namespace but the one that holds it."""
        found = []
        space = os.readlink(f"/proc/{self.holder.pid}/ns/net")
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and int(entry) != self.holder.pid:
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry}/ns/net") == space:
                        found.append(int(entry))
        return found


@pytest.fixture
def machines() -> Iterator[Callable[..., list[Machine]]]:
    """Make machines that share one network, 10.77.0.0/24: 10.77.0.1, 10.77.0.2 and so on."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    made: list[Machine] = []

    def make(count: int) -> list[Machine]:
        switch = Machine()
        made.append(switch)
        switch.ip("link", "add", "bridge", "type", "bridge")
        switch.ip("link", "set", "bridge", "up")
        for number in range(1, count + 1):
            machine = Machine(f"10.77.0.{number}")
            made.append(machine)
            port = f"port{number}"
            switch.ip(
                "link",
                "add",
                port,
                "type",
                "veth",
                "peer",
                "eth0",
                "netns",
                str(machine.holder.pid),
            )
            switch.ip("link", "set", port, "master", "bridge", "up")
            machine.ip("address", "add", f"{machine.address}/24", "broadcast", "+", "dev", "eth0")
            machine.ip("link", "set", "eth0", "up")
        return made[1:]

    yield make
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
