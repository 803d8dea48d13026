"""What a node owes a client comes once and in order, however its links and processes end."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from system.conftest import Gate, RunningNode
from system.hostile import SECRET, Attack, Peer, secret_file
from system.owners import PlayedOwner, values

from dispy.protocol.messages import Kind

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


def counting() -> Callable[..., Any]:
    """Return that function so that it goes by value."""
    names: dict[str, Any] = {}
    import inspect

    exec(compile(inspect.getsource(count), "count", "exec"), names)
    return names["count"]


def test_provisional_values_outlive_their_link_and_come_in_order(
    attack: Attack, gate: Gate
) -> None:
    owner = owner_of(attack, counting())
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
    owner = owner_of(attack, counting())
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
