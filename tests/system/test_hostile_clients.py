"""What one client has at a node is nothing to another, though both have the secret.

A hostile client knows everything that a node which has the secret too may learn of an honest
one: its identity, the numbers of its computation and of its jobs, the digests of its files.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from system.conftest import DEADLINE, Gate, Program, RunningNode
from system.hostile import SECRET, Attack, FalseNode, Peer, secret_file

from dispy.protocol.messages import Kind
from dispy.shipping.contents import digest_of
from dispy.shipping.possession import CHALLENGE_SIZE, new_proof

PLACE = f"127.4.{os.getpid() % 250}"

HOLDS = """
import sys
import dispy

def hold(gate):
    open(gate).read(1)
    return "done"

if __name__ == "__main__":
    def told(status, node, job):
        if status == dispy.DispyJob.Running:
            print("runs at", node.ip_addr, flush=True)
    cluster = dispy.JobCluster(hold, nodes=sys.argv[2:], local_node=False, cluster_status=told)
    print(cluster.submit(sys.argv[1])(), flush=True)
    cluster.close()
"""


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    """A node with a secret, and the hands that attack it."""
    directory = tmp_path_factory.mktemp("hostile")
    secret = f"--secret-file={secret_file(directory, SECRET)}"
    attack = Attack(RunningNode(directory, f"{PLACE}.1", 51348, "--cpus=2", secret))
    yield attack
    attack.close()


def holds(peer: Peer) -> Any:
    """Return what the node says that it holds of this client."""
    return peer.until(Kind.HELD).body


def listed(peer: Peer) -> list[int]:
    """Return which jobs of computation 1 run, as this client is told."""
    peer.tell(Kind.LIST, [1, 77])
    return list(peer.until(Kind.LISTED).body[1])


def test_an_identity_is_of_no_use_without_the_key_of_its_client(
    attack: Attack, tmp_path: Path, gate: Gate, nothing_left: None
) -> None:
    """A false node, to which the program has told its identity, goes to an honest one with it."""

    def waits(client: Peer) -> None:
        client.tell(Kind.HELD, [[], []])
        while client.frame() is not None:
            pass

    path = tmp_path / "holds.py"
    path.write_text(HOLDS)
    file = str(secret_file(tmp_path, SECRET))
    with ExitStack() as stack:
        false = stack.enter_context(closing(FalseNode(f"{PLACE}.20", waits)))
        program = Program(path, str(gate), attack.host, false.host, DISPY_SECRET_FILE=file)
        stack.callback(program.process.communicate)
        stack.callback(program.process.kill)
        while f"runs at {attack.host}" not in program.output:
            assert program.line(), program.output
        victim = false.met.get(timeout=DEADLINE)
        peer = attack.welcome(victim.identity)
        assert holds(peer) == [[], []]
        attack.wait_for("says that it is client")
        numbers = list(range(1000))
        for kind, body in (
            (Kind.CANCEL, [1, numbers]),
            (Kind.RECALL, [1, numbers]),
            (Kind.DROP, [numbers]),
            (Kind.ACKNOWLEDGE, [1000]),
            (Kind.RELEASE, [numbers]),
            (Kind.LIMIT, [1, 0]),
            (Kind.CLOSE, [1]),
        ):
            peer.tell(kind, body)
        assert listed(peer) == []
        gate.open()
        assert program.end() == 0, program.output
    assert "done" in program.output


def test_the_same_client_finds_again_what_it_had_and_another_one_does_not(attack: Attack) -> None:
    """The computation waits for a file that does not come, so it stays as it is."""
    files = [["some.data", b"d" * 32, 1000, 0o644, 1]]
    identity = os.urandom(8).hex()
    first = attack.welcome(identity)
    assert holds(first) == [[], []]
    first.tell(Kind.OPEN, [7, "n", {"program": True, "files": files}], [b"#!/bin/true"])
    assert first.until(Kind.FETCH).body[0] == b"d" * 32
    again, other = attack.welcome(identity), attack.welcome("other")
    assert holds(again) == [[], [7]]
    assert holds(other) == [[], []]
    again.tell(Kind.CLOSE, [7])
    again.until(Kind.CLOSED)


def test_who_knows_the_digest_of_another_s_file_has_to_send_it_itself(attack: Attack) -> None:
    content = os.urandom(100)
    files = [["secret.data", digest_of(content), len(content), 0o644, 1]]
    opening = [3, "n", {"program": True, "files": files}]

    def opens(peer: Peer, sends: bytes) -> Any:
        """Return why a computation with that file cannot be used: its code is nonsense anyway."""
        peer.tell(Kind.OPEN, opening, [b"#!/bin/true"])
        key, offset, length = peer.until(Kind.FETCH).body
        assert (key, offset, length) == (digest_of(content), 0, len(content))
        peer.tell(Kind.PIECE, [key, offset, None], [sends])
        return peer.until(Kind.READY).body[1]

    victim, thief = attack.welcome("victim"), attack.welcome("thief")
    assert "msgpack" in opens(victim, content)
    assert "changed while it was being sent" in opens(thief, bytes(100))
    victim.tell(Kind.OPEN, [4, *opening[1:]], [b"#!/bin/true"])
    while (frame := victim.frame()) is not None and frame.kind != Kind.READY:
        assert frame.kind != Kind.FETCH, "it has sent that already"
    assert frame is not None
    assert "msgpack" in frame.body[1]


def test_who_cannot_prove_to_have_another_s_large_file_has_to_send_it(attack: Attack) -> None:
    content = os.urandom(CHALLENGE_SIZE)
    digest = digest_of(content)
    opening = [3, "n", {"program": True, "files": [["large.data", digest, len(content), 0o644, 1]]}]

    def prove(peer: Peer, forged: bytes | None = None) -> bytes:
        """Open a computation with that file, and answer its challenge; return the key."""
        peer.tell(Kind.OPEN, opening, [b"#!/bin/true"])
        asked, nonce = peer.until(Kind.PROVE).body
        assert asked == digest
        proof = new_proof(nonce)
        proof.update(content)
        peer.tell(Kind.PROVEN, [digest, nonce, proof.digest() if forged is None else forged])
        return bytes(nonce)

    victim, friend = attack.welcome("victim 2"), attack.welcome("friend 2")
    victim.tell(Kind.OPEN, opening, [b"#!/bin/true"])
    key, offset, _ = victim.until(Kind.FETCH).body
    victim.tell(Kind.PIECE, [key, offset, None], [content])
    assert "msgpack" in victim.until(Kind.READY).body[1]
    old = prove(friend)
    assert "msgpack" in friend.until(Kind.READY).body[1]
    replayed = new_proof(old)
    replayed.update(content)
    for forged in (digest, replayed.digest(), b"", os.urandom(70_000)):
        thief = attack.welcome()
        prove(thief, forged)
        key, offset, length = thief.until(Kind.FETCH).body
        assert (key, offset, length) == (digest, 0, len(content))
        thief.tell(Kind.PIECE, [key, offset, None], [bytes(length)])
        assert "changed while it was being sent" in thief.until(Kind.READY).body[1]
        thief.close()
