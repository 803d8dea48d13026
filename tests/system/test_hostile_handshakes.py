"""Who has not the secret does not get in, whatever is recorded, relayed, repeated or weakened.

Each test attacks a real node or a real program; what it must not do, somebody has done here.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from OpenSSL import SSL
from system.conftest import RunningNode
from system.hostile import (
    OTHER,
    SECRET,
    Attack,
    Honest,
    Impostor,
    Peer,
    Relay,
    context,
    secret_file,
)

from dispy.protocol import proof
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind

REFUSED = "it has not the secret that this side has"
PLACE = f"127.2.{os.getpid() % 250}"
NODE_HELLO = Hello("node", "n", "n", details={"cpus": 1}).body()


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    """A node with a secret, and the hands that attack it."""
    directory = tmp_path_factory.mktemp("hostile")
    secret = f"--secret-file={secret_file(directory, SECRET)}"
    attack = Attack(RunningNode(directory, f"{PLACE}.1", 51348, "--cpus=1", secret))
    yield attack
    attack.close()


# -- without the secret


def test_a_wrong_secret_is_refused_on_both_sides_in_one_line_each(
    attack: Attack, tmp_path: Path, nothing_left: None
) -> None:
    attack.new_lines()
    with closing(Honest(tmp_path, attack.host, secret=OTHER)) as program:
        line = program.wait_for("is refused")
        assert line.rstrip().endswith(f"node at {attack.host}, port 51348 is refused: {REFUSED}")
        attack.wait_for(REFUSED)
    (said,) = attack.new_lines().splitlines()
    assert said.endswith(REFUSED)


def test_how_wrong_a_secret_is_does_not_show(attack: Attack) -> None:
    answers = set()
    for message in (
        bytes(proof.CLAIM_BYTES),
        os.urandom(proof.CLAIM_BYTES),
        b"dspy\x01" + bytes(proof.CLAIM_BYTES - 5),
        b"dspy\x02" + os.urandom(proof.CLAIM_BYTES - 5),
    ):
        peer = attack.encrypted()
        peer.send(message)
        answers.add(peer.receive_all(10_000))
    peer = attack.encrypted()
    right = proof.claim([SECRET], peer.keying)
    peer.send(right[:20] + bytes([right[20] ^ 1]) + right[21:])
    answers.add(peer.receive_all(10_000))
    assert answers == {b"dspy\x01" + bytes(proof.PROOF_BYTES)}


def test_a_claim_that_is_cut_short_gets_no_answer(attack: Attack) -> None:
    peer = attack.encrypted()
    peer.send(proof.claim([SECRET], peer.keying)[:-1])
    peer.tls.shutdown()
    assert peer.receive_all(10_000)[5:] == bytes(proof.PROOF_BYTES)


def test_a_peer_without_a_certificate_is_refused(attack: Attack) -> None:
    peer = attack.connect()
    peer.encrypt(context(certified=False))
    with pytest.raises(SSL.Error, match="certificate required"):
        peer.tls.recv(1)  # TLS 1.3: a client learns of it with its first read


# -- again, or elsewhere


def test_recorded_bytes_of_a_connection_are_of_no_use(
    attack: Attack, tmp_path: Path, nothing_left: None
) -> None:
    relay = Relay(attack.node)
    with (
        closing(Impostor(f"{PLACE}.10", relay)) as middle,
        closing(Honest(tmp_path, middle.host)) as program,
    ):
        program.wait_for("9\n")  # who passes on what it cannot read does no harm
        program.end()
    attack.new_lines()
    peer = attack.connect()
    peer.send(relay.dialler_said)
    answer = peer.receive_all(1 << 20)
    assert answer
    assert answer not in relay.listener_said
    attack.wait_for("refused")
    assert "connected" not in attack.new_lines()

    def repeat(client: Peer) -> None:
        client.receive(1)
        client.send(relay.listener_said)
        client.receive_all(1 << 20)

    with (
        closing(Impostor(f"{PLACE}.11", repeat)) as node,
        closing(Honest(tmp_path, node.host)) as program,
    ):
        assert "TLS handshake failed" in program.wait_for("is refused")


def test_a_claim_of_another_session_proves_nothing(attack: Attack) -> None:
    one, other = attack.encrypted(), attack.encrypted()
    other.send(proof.claim([SECRET], one.keying))
    assert other.receive_all(10_000)[5:] == bytes(proof.PROOF_BYTES)
    one.send(proof.claim([SECRET], one.keying))
    answer = one.receive_all(proof.ANSWER_BYTES)
    assert proof.is_proven(answer, [SECRET], one.keying), "the same claim is right where it belongs"
    assert not proof.is_proven(answer, [SECRET], other.keying)


def test_a_listener_s_own_proof_is_no_claim(attack: Attack) -> None:
    peer = attack.encrypted()
    own = proof._proof(SECRET, proof._LISTENER, peer.keying)  # which only it could have made
    peer.send(b"dspy\x01" + own * proof.SECRETS_LIMIT)
    assert peer.receive_all(10_000)[5:] == bytes(proof.PROOF_BYTES)


# -- weaker


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (SSL.TLS1_2_VERSION, None),
        (SSL.TLS1_1_VERSION, None),
        (SSL.TLS1_VERSION, None),
        (SSL.TLS1_2_VERSION, b"eNULL:@SECLEVEL=0"),
        (SSL.TLS1_2_VERSION, b"aNULL:@SECLEVEL=0"),
    ],
    ids=["1.2", "1.1", "1.0", "no encryption", "no certificate"],
)
def test_an_older_or_empty_encryption_is_refused(
    attack: Attack, version: int, ciphers: bytes | None
) -> None:
    with pytest.raises(SSL.Error):
        attack.encrypted(lowest=version, highest=version, ciphers=ciphers)
    attack.wait_for("its TLS handshake failed")


def test_plain_frames_are_refused_by_a_node_with_the_way_out(attack: Attack) -> None:
    peer = attack.connect()
    peer.tell(Kind.HELLO, Hello("client", "hostile", "hostile").body())
    assert "put the same secret into ~/.config/dispy/secret" in peer.last_words()


def test_a_plain_node_refuses_tls_in_words(start_node: Callable[..., RunningNode]) -> None:
    node = Attack(start_node("--cpus=1"))
    peer = node.connect()
    with pytest.raises(SSL.Error):
        peer.encrypt(context())
    node.wait_for("it has a secret or a certificate, and this side was started without")
    node.close()


# -- those who pretend to be a node


def reflects(client: Peer) -> None:
    client.encrypt(context(), dialled=False)
    client.send(client.receive_all(proof.CLAIM_BYTES)[: proof.ANSWER_BYTES])


def guesses(client: Peer) -> None:
    client.encrypt(context(), dialled=False)
    client.receive_all(proof.CLAIM_BYTES)
    client.send(b"dspy\x01" + os.urandom(proof.PROOF_BYTES))


def is_silent(client: Peer) -> None:
    client.encrypt(context(), dialled=False)
    client.receive_all(proof.CLAIM_BYTES)
    client.tls.shutdown()


def skips_the_proof(client: Peer) -> None:
    client.encrypt(context(), dialled=False)
    client.tell(Kind.HELLO, NODE_HELLO)
    client.receive_all(proof.CLAIM_BYTES)


def speaks_plainly(client: Peer) -> None:
    client.tell(Kind.HELLO, NODE_HELLO)


def has_old_encryption(client: Peer) -> None:
    client.encrypt(context(SSL.TLS1_VERSION, SSL.TLS1_2_VERSION), dialled=False)
    raise AssertionError("the program took it")


def hangs_up(client: Peer) -> None:
    client.sock.shutdown(socket.SHUT_WR)


def test_a_program_refuses_every_impostor_and_works_with_the_honest_node(
    attack: Attack, tmp_path: Path, nothing_left: None
) -> None:
    """All at once. What each impostor has heard is TLS from its first byte on, and no frame."""
    other = attack.encrypted()
    other.send(proof.claim([SECRET], other.keying))
    old_answer = other.receive_all(proof.ANSWER_BYTES)

    def replays(client: Peer) -> None:
        client.encrypt(context(), dialled=False)
        client.receive_all(proof.CLAIM_BYTES)
        client.send(old_answer)

    passed_on = threading.Event()

    def stands_between(client: Peer) -> None:
        """Ends TLS on both sides, and passes the proofs on."""
        client.encrypt(context(), dialled=False)
        node = attack.encrypted()
        node.send(client.receive_all(proof.CLAIM_BYTES))
        client.send(node.receive_all(proof.ANSWER_BYTES))
        assert node.receive_all(1) == b""
        passed_on.set()

    refused = {
        reflects: REFUSED, guesses: REFUSED, is_silent: REFUSED, replays: REFUSED,
        stands_between: REFUSED, skips_the_proof: REFUSED,
        speaks_plainly: "it was started without a secret or certificate",
        has_old_encryption: "its TLS handshake failed",
    }  # fmt: skip
    attack.new_lines()
    heard: dict[Callable[[Peer], None], list[bytes]] = {}

    def listening(behave: Callable[[Peer], None]) -> Callable[[Peer], None]:
        def then_listen(client: Peer) -> None:
            begin = client.sock.recv(1, socket.MSG_PEEK)
            behave(client)
            heard.setdefault(behave, []).append(begin)
            rest = client.receive_all(1 << 16)
            assert client.tls is None or not rest, "something is said to an impostor"
            assert rest[:1] in (b"", b"\x15", b"\x16"), "it is said plainly"

        return then_listen

    with ExitStack() as stack:
        impostors = {}
        for number, behave in enumerate((*refused, hangs_up)):
            host = f"{PLACE}.{20 + number}"
            impostors[behave] = stack.enter_context(closing(Impostor(host, listening(behave))))
        hosts = [impostor.host for impostor in impostors.values()]
        program = stack.enter_context(closing(Honest(tmp_path, *hosts, attack.host)))
        program.wait_for("9\n")
        again = impostors[hangs_up]
        again.wait_for_connections(2)  # what had ended without a word is tried once more
        for behave in refused:
            program.wait_until_said(f"{impostors[behave].host},")
        output = program.end()
        for behave, words in refused.items():
            (line,) = [one for one in output.splitlines() if f"{impostors[behave].host}," in one]
            assert words in line, behave
    assert passed_on.is_set()
    assert {begin for begins in heard.values() for begin in begins} <= {b"\x16", b""}
    assert REFUSED in attack.new_lines(), "the node has refused the one in the middle too"
