"""Each kind of fault: how it is done to a town, and undone."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
from chaos.forks import Fork
from chaos.plan import SCHEDULER, Fault
from chaos.service import Service
from chaos.town import Node, Town

from dispy.model.ports import SCHEDULER_PORT

RELAY = Path(__file__).with_name("relay.py")
BLOCKS = 1024 * 1024, 4096  # bytes by which a disk is filled
Undo = Callable[[], None]
JUMPS = ("+86400", "-86400", "+3", "-3", "+0")  # seconds by which a wall clock may be wrong


def nothing() -> None:
    """Undo what needs no undoing."""


def inflict(fault: Fault, town: Town, client: Fork) -> Undo:
    """Do it; return what undoes it. What is not there any more cannot be hurt."""
    if fault.node is None:
        return signal_to([client], *SIGNALS[fault.kind.split()[0]])
    service = service_of(fault, town)
    deed, _, victim = fault.kind.partition(" ")
    if victim == service.kind and deed in ("kill", "restart"):
        service.kill() if deed == "kill" else service.end(owes=True)
        return service.start
    if deed in SIGNALS:
        if isinstance(service, Node):
            return signal_to(_victims(service, victim, fault.pick), *SIGNALS[deed])
        return signal_to([service.process], *SIGNALS[deed])
    return OTHERS[fault.kind](fault, town, service)


def service_of(fault: Fault, town: Town) -> Service:
    """Return the node or scheduler that it befalls."""
    assert fault.node is not None, "it befalls the client"
    return town.scheduler if fault.node == SCHEDULER else town.nodes[fault.node]


def name_of(fault: Fault, town: Town) -> str:
    """Return what happens, and to whom."""
    return fault.kind + ("" if fault.node is None else f" of {service_of(fault, town).name}")


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


def _cut(fault: Fault, town: Town, service: Service) -> Undo:
    town.switch.ip("link", "set", service.port, "down")
    return lambda: town.switch.ip("link", "set", service.port, "up")


LOSSY = ("-m", "statistic", "--mode", "random", "--probability", "0.3")


def _drop(
    chains: tuple[str, ...], *condition: str, of_client: bool = False
) -> Callable[[Fault, Town, Service], Undo]:
    """of_client: what comes from the client's machine, or goes there, alone."""
    sides = {"INPUT": "--source", "OUTPUT": "--destination"}

    def do(fault: Fault, town: Town, service: Service) -> Undo:
        def change(how: str) -> None:
            for chain in chains:
                which = [sides[chain], town.client.address] if of_client else []
                service.machine.run("iptables", "-w", how, chain, *which, *condition, "-j", "DROP")

        change("-I")
        return lambda: change("-D")

    return do


def _delay(fault: Fault, town: Town, service: Service) -> Undo:
    """Lead its packets through `relay` instead of the bridge."""
    port = service.port
    line, end = port.replace("port", "line"), port.replace("port", "end")
    switch = town.switch
    for machine in town.machines:  # whole packets, with their checksums
        machine.run("ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off")
    if not service.has_line:
        service.has_line = True
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


def _reset(*condition: str) -> Callable[[Fault, Town, Service], Undo]:
    def do(fault: Fault, town: Town, service: Service) -> Undo:
        service.machine.run("ss", "--kill", "--tcp", "state", "established", *condition)
        return nothing

    return do


def _jump(fault: Fault, town: Town, node: Service) -> Undo:
    assert isinstance(node, Node), "the scheduler's clock is right"
    new = node.clock.with_suffix(".new")
    new.write_text(JUMPS[int(fault.pick * len(JUMPS))])
    os.replace(new, node.clock)
    return nothing


def _fill_disk(fault: Fault, town: Town, service: Service) -> Undo:
    filler = service.where / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        for size in BLOCKS:
            while file.write(bytes(size)) == size:
                pass
    return lambda: filler.unlink(missing_ok=True)


OTHERS: dict[str, Callable[[Fault, Town, Service], Undo]] = {
    "cut": _cut,
    "no way in": _drop(("INPUT",)),
    "no way out": _drop(("OUTPUT",)),
    "loss": _drop(("INPUT", "OUTPUT"), *LOSSY),
    "delay": _delay,
    "reset": _reset(),
    "jump": _jump,
    "full disk": _fill_disk,
    "reset clients": _reset(f"sport = :{SCHEDULER_PORT}"),
    "cut clients": _drop(("INPUT", "OUTPUT"), of_client=True),
    "lossy clients": _drop(("INPUT", "OUTPUT"), *LOSSY, of_client=True),
    "full journal": _fill_disk,
}
