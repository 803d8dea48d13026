"""Each kind of fault: how it is done to a town, and undone."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from chaos.forks import Fork
from chaos.schedule import Fault
from chaos.town import PORT, Node, Town

RELAY = Path(__file__).with_name("relay.py")
Undo = Callable[[], None]
JUMPS = ("+86400", "-86400", "+3", "-3", "+0")  # seconds by which a wall clock may be wrong


def nothing() -> None:
    """Undo what needs no undoing."""


def inflict(fault: Fault, town: Town, client: Fork) -> Undo:
    """Do it; return what undoes it. What is not there any more cannot be hurt."""
    if fault.node is None:
        return signal_to([client], *SIGNALS[fault.kind.split()[0]])
    node = town.nodes[fault.node]
    deed, _, victim = fault.kind.partition(" ")
    if victim == "node" and deed in ("kill", "restart"):
        node.kill() if deed == "kill" else node.end(owes=True)
        return node.start
    if deed in SIGNALS:
        return signal_to(_victims(node, victim, fault.pick), *SIGNALS[deed])
    return OTHERS[fault.kind](fault, town, node)


SIGNALS = {"kill": (signal.SIGKILL, None), "stop": (signal.SIGSTOP, signal.SIGCONT)}


def signal_to(
    processes: Sequence[psutil.Process | Fork], first: signal.Signals, then: signal.Signals | None
) -> Undo:
    """Send a signal; undoing it sends another to the same processes, if they are there."""

    def send(number: signal.Signals) -> None:
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)  # both see to it that it is still the same one

    send(first)
    return nothing if then is None else lambda: send(then)


def _victims(node: Node, victim: str, pick: float) -> list[psutil.Process]:
    found = sorted(node.processes(victim), key=lambda process: process.pid)
    return [found[int(pick * len(found)) % len(found)]] if found else []


def _cut(fault: Fault, town: Town, node: Node) -> Undo:
    port = f"port{node.number + 2}"  # machine 1 is the client's
    town.switch.ip("link", "set", port, "down")
    return lambda: town.switch.ip("link", "set", port, "up")


def _drop(chains: tuple[str, ...], *condition: str) -> Callable[[Fault, Town, Node], Undo]:
    def do(fault: Fault, town: Town, node: Node) -> Undo:
        def change(how: str) -> None:
            for chain in chains:
                node.machine.run("iptables", "-w", how, chain, *condition, "-j", "DROP")

        change("-I")
        return lambda: change("-D")

    return do


def _delay(fault: Fault, town: Town, node: Node) -> Undo:
    """Lead the node's packets through `relay` instead of the bridge."""
    number = node.number + 2
    port, line, end = f"port{number}", f"line{number}", f"end{number}"
    switch = town.switch
    for machine in (town.client, node.machine):  # whole packets, with their checksums
        machine.run("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off")
    if not node.has_line:
        node.has_line = True
        switch.ip("link", "add", line, "type", "veth", "peer", "name", end)
        switch.ip("link", "set", line, "up")
        switch.ip("link", "set", end, "up")
    relay = switch.start(sys.executable, str(RELAY), port, line, str(fault.pick))
    assert relay.stdout is not None
    relay.stdout.readline()  # it is ready
    switch.ip("link", "set", port, "nomaster")
    switch.ip("link", "set", end, "master", "bridge")

    def undo() -> None:
        switch.ip("link", "set", end, "nomaster")
        switch.ip("link", "set", port, "master", "bridge")
        relay.kill()
        relay.communicate()
        switch.started.remove(relay)

    return undo


def _reset(fault: Fault, town: Town, node: Node) -> Undo:
    node.machine.run("ss", "--kill", "--tcp", "state", "established", f"sport = :{PORT}")
    return nothing


def _jump(fault: Fault, town: Town, node: Node) -> Undo:
    new = node.clock.with_suffix(".new")
    new.write_text(JUMPS[int(fault.pick * len(JUMPS))])
    os.replace(new, node.clock)
    return nothing


def _fill_disk(fault: Fault, town: Town, node: Node) -> Undo:
    filler = node.where / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return lambda: filler.unlink(missing_ok=True)


OTHERS: dict[str, Callable[[Fault, Town, Node], Undo]] = {
    "cut": _cut,
    "no way in": _drop(("INPUT",)),
    "no way out": _drop(("OUTPUT",)),
    "loss": _drop(
        ("INPUT", "OUTPUT"), "-m", "statistic", "--mode", "random", "--probability", "0.3"
    ),
    "delay": _delay,
    "reset": _reset,
    "jump": _jump,
    "full disk": _fill_disk,
}
