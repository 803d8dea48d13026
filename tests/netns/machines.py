"""Machines of their own, as network namespaces on one Ethernet; they end with their process."""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import IO, Any

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
            ["unshare", "--net", "--mount", "sh", "-c", "echo; exec sleep infinity"],
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout is not None
        self.holder.stdout.readline()  # it has its namespace
        self.started: list[subprocess.Popen[str]] = []
        self.ip("link", "set", "lo", "up")

    def ip(self, *arguments: str) -> None:
        """Run `ip` there."""
        self.run("ip", *arguments)

    def run(self, *command: str) -> None:
        """Run a command there until it ends; raises CalledProcessError where that fails."""
        subprocess.run([*self._enter(), *command], check=True, stdout=subprocess.DEVNULL)

    def drop(self, chain: str, again: bool = True) -> None:
        """Drop all packets that come (INPUT) or go (OUTPUT), or no more."""
        if shutil.which("iptables") is None:
            pytest.skip("iptables is not installed; tests/run does that")
        self.run("iptables", "-A" if again else "-D", chain, "-j", "DROP")

    def reset_connections(self) -> None:
        """Have the kernel forget all connections of this machine, with a RST to each peer."""
        command = [*self._enter(), "ss", "-K", "-t", "state", "established"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        if "not supported" in said:
            pytest.skip("this kernel resets no connections")

    def _enter(self) -> list[str]:
        return ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", "--"]

    def start(
        self, *command: str, output: "int | IO[str]" = subprocess.PIPE, **environment: str
    ) -> "subprocess.Popen[str]":
        """Run a command there; both its streams are one, and go to `output`."""
        process = subprocess.Popen(
            [*self._enter(), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
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
        left = self.others()
        deadline = time.monotonic() + DEADLINE
        while left and time.monotonic() < deadline:
            time.sleep(0.02)
            left = self.others()
        for pid in left:
            os.kill(pid, 9)
        self.holder.kill()
        self.holder.communicate()
        assert not left, f"processes were left behind: {left}"

    def others(self) -> list[int]:
        """Return the ids of all processes in this namespace but the one that holds it."""
        found = []
        space = os.readlink(f"/proc/{self.holder.pid}/ns/net")
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and int(entry) != self.holder.pid:
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{entry}/ns/net") == space:
                        found.append(int(entry))
        return found


def connect(count: int, made: list[Machine]) -> list[Machine]:
    """Make `count` machines that share one network: 10.77.0.1, 10.77.0.2 and so on.

    made: gets all that are made, also where this fails, to be ended in reverse; its first one has
    the bridge, whose port for machine 1 is `port1`.
    """
    switch = Machine()
    made.append(switch)
    switch.ip("link", "add", "bridge", "type", "bridge")
    switch.ip("link", "set", "bridge", "up")
    for number in range(1, count + 1):
        machine = Machine(f"10.77.0.{number}")
        made.append(machine)
        port, space = f"port{number}", str(machine.holder.pid)
        switch.ip("link", "add", port, "type", "veth", "peer", "eth0", "netns", space)
        switch.ip("link", "set", port, "master", "bridge", "up")
        machine.ip("address", "add", f"{machine.address}/24", "broadcast", "+", "dev", "eth0")
        machine.ip("link", "set", "eth0", "up")
    return made[1:]
