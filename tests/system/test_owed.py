"""What a node owes a client comes once and in order, however its links and processes end."""

import inspect
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from system.conftest import DEADLINE, Gate, RunningNode
from system.hostile import SECRET, Attack, Peer, peak_bytes, secret_file
from system.owners import PlayedOwner, values

from dispy.protocol.messages import Kind

MIB = 1 << 20
PLACE = f"127.9.{os.getpid() % 250}"


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    directory = tmp_path_factory.mktemp("owed")
    secret = f"--secret-file={secret_file(directory, SECRET)}"
    with closing(Attack(RunningNode(directory, f"{PLACE}.1", 51348, "--cpus=2", secret))) as made:
        yield made


def owner_of(attack: Attack, function: Callable[..., Any]) -> PlayedOwner:
    identity = os.urandom(8).hex()

    def connect(**details: Any) -> Peer:
        peer = attack.proven()
        peer.greet(identity=identity, **details)
        return peer

    return PlayedOwner(connect, function)


def count(last: int, gate: str) -> str:
    for value in range(1, last + 1):
        dispy_provisional_result(value)  # noqa: F821
    with open(gate, "rb", buffering=0) as file:
        file.read(1)
    dispy_provisional_result("last")  # noqa: F821
    return "end"


def by_value(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function as if it stood in a program: nothing of this module goes with it."""
    names: dict[str, Any] = {}
    exec(compile(inspect.getsource(function), "program", "exec"), names)
    made: Callable[..., Any] = names[function.__name__]
    return made


def test_provisional_values_outlive_their_link_and_come_in_order(
    attack: Attack, gate: Gate
) -> None:
    owner = owner_of(attack, by_value(count))
    owner.run(7, 3, str(gate))
    before = owner.until(Kind.PROVISIONAL, 3)
    assert values(before) == [(1, 7, 1), (2, 7, 2), (3, 7, 3)]
    owner.acknowledge(1)
    owner.leave()
    gate.open()
    *again, held = owner.come_back()
    if held.body[0]:  # it was not at its end
        again += owner.until(Kind.RESULTS)
    expected = [(2, 7, 2), (3, 7, 3), (4, 7, "last"), (5, 7, "end")]
    assert values(again) == expected
    owner.leave()
    *again, held = owner.come_back()
    assert (values(again), held.body) == (expected, [[], [1]])
    owner.acknowledge(5)
    owner.leave()
    (held,) = owner.come_back()
    assert held.body == [[], [1]]


def test_a_program_that_recovers_is_told_the_newest_values_of_its_jobs_again(
    attack: Attack, gate: Gate
) -> None:
    owner = owner_of(attack, by_value(count))
    for job, last in ((1, 2), (2, 3)):
        owner.run(job, last, str(gate))
        owner.until(Kind.PROVISIONAL, last)
    owner.acknowledge(4)
    owner.leave()
    assert values(owner.come_back()) == [(5, 2, 3)]
    owner.leave()
    assert values(owner.come_back(recover=True)) == [(5, 2, 3)]
    assert values(owner.until(Kind.PROVISIONAL)) == [(6, 1, 2)]
    owner.acknowledge(6)
    owner.leave()
    assert values(owner.come_back(recover=True)) == []
    told = [value[1:] for value in values(owner.until(Kind.PROVISIONAL, 2))]
    assert sorted(told) == [(1, 2), (2, 3)]
    gate.open(2)
    ended = [value[1:] for value in values(owner.until(Kind.RESULTS, 2))]
    assert sorted(ended) == [(1, "end"), (1, "last"), (2, "end"), (2, "last")]
    owner.acknowledge(99)
    owner.leave()
    assert values(owner.come_back(recover=True)) == []
    owner.peer.tell(Kind.LIST, [1, 5])
    assert values(owner.until(Kind.LISTED)) == []


# -- results that nobody takes


def give(number: int, size: int) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


def played(node: RunningNode, function: Callable[..., Any]) -> PlayedOwner:
    def connect(**details: Any) -> Peer:
        peer = Peer(socket.create_connection((node.host, node.port), DEADLINE))
        peer.greet(identity="played", **details)
        return peer

    return PlayedOwner(connect, function)


def file_of(node: RunningNode) -> Path:
    return node.directory / f"dispy-node-{node.host}-{node.port}" / "owed.sqlite"


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def rows(file: Path) -> int:
    """Return how many frames lie in a node's file."""
    import sqlite3

    if not file.exists():
        return 0
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        try:
            return int(database.execute("SELECT COUNT(*) FROM frame").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # it is being made, or is going


def kill(node: RunningNode) -> None:
    node.process.send_signal(signal.SIGKILL)
    node.process.wait(DEADLINE)


def test_results_outlive_their_client_s_absence_and_then_the_node_s_own_death(
    start_node: Callable[..., RunningNode],
) -> None:
    node = start_node("--cpus=2")
    owner = played(node, by_value(give))
    for job in range(1, 6):
        owner.run(job, job, 100_000)
        owner.until(Kind.RESULTS)
    owner.acknowledge(2)
    owner.leave()
    wait_until(lambda: rows(file_of(node)) == 3, "three results on disk")
    kill(node)
    again = start_node("--cpus=1", host=node.host)
    assert "results that an earlier node owed 1 clients are kept" in again.said
    *frames, held = owner.come_back()
    found = values(frames)
    assert [number for number, _, _ in found] == [1, 2, 3]
    assert [job for _, job, _ in found] == [3, 4, 5]
    assert all(value == give(job, 100_000) for _, job, value in found)
    assert held.body == [[], []]
    owner.open(2)
    owner.run(9, 9, 40, computation=2)
    (new,) = values(owner.until(Kind.RESULTS)[-1:])
    assert new == (4, 9, give(9, 40))
    owner.leave()  # in the midst: nothing is acknowledged
    assert [number for number, _, _ in values(owner.come_back())] == [1, 2, 3, 4]
    owner.acknowledge(4)
    wait_until(lambda: not file_of(again).exists(), "the file to go")
    owner.peer.tell(Kind.CLOSE, [2])
    owner.until(Kind.CLOSED)
    owner.leave()
    assert again.end() == 0
    assert "Traceback" not in again.said


def test_results_of_an_absent_client_outlive_a_node_that_is_ended_and_clean_removes_them(
    start_node: Callable[..., RunningNode],
) -> None:
    node = start_node("--cpus=1")
    owner = played(node, by_value(give))
    owner.run(1, 1, 40)
    owner.until(Kind.RESULTS)
    owner.leave()
    assert node.end() == 0
    assert rows(file_of(node)) == 1
    again = start_node("--cpus=1", host=node.host)
    assert len(values(owner.come_back())) == 1
    owner.leave()
    assert again.end() == 0
    assert rows(file_of(node)) == 1
    clean = start_node("--cpus=1", "--clean", host=node.host)
    assert values(owner.come_back()) == []
    owner.leave()
    assert clean.end() == 0
    assert not file_of(node).parent.exists()


@pytest.mark.parametrize("reads", [True, False])
def test_a_client_that_acknowledges_nothing_takes_little_of_a_node_s_memory(
    start_node: Callable[..., RunningNode], reads: bool
) -> None:
    count, size, above = 40, 4 * MIB, 4 * MIB
    node = start_node("--cpus=1", DISPY_SPILL_ABOVE=str(above))
    owner = played(node, by_value(give))
    Path(f"/proc/{node.process.pid}/clear_refs").write_text("5")
    before = psutil.Process(node.process.pid).memory_info().rss
    for job in range(1, count + 1):
        owner.run(job, job, size)
    if reads:
        owner.until(Kind.RESULTS, count)
    wait_until(lambda: rows(file_of(node)) >= count - 4, "the disk to have most")
    assert peak_bytes(node.process.pid) - before < count * size / 2
    owner.leave()
    frames = owner.come_back()
    while len(found := values(frames)) < count:
        frames += owner.until(Kind.RESULTS)
    assert [(number, job) for number, job, _ in found] == [(n, n) for n in range(1, count + 1)]
    assert all(value == give(job, size) for _, job, value in found)
    assert peak_bytes(node.process.pid) - before < count * size / 2
    owner.acknowledge(count)
    wait_until(lambda: not file_of(node).exists(), "the file to go")
    owner.leave()
