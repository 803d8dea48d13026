"""Who has proven nothing takes no room, time or memory from those who have."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from system.conftest import DEADLINE, RunningNode
from system.hostile import SECRET, Attack, Honest, context, secret_file

from dispy.protocol.admission import Bounds, bounds
from dispy.protocol.frames import encode_head
from dispy.protocol.handshake import KNOCK, Hello
from dispy.protocol.messages import Kind

PLACE = f"127.4.{os.getpid() % 250}"
MIB = 1024 * 1024
HERE = "127.0.0.1"
CROWD = Path(__file__).parent / "crowd.py"


def with_descriptors(directory: Path, count: int) -> str:
    """Return a Python whose programs may have so many descriptors, so that few fill a node."""
    path = directory / f"python-{count}"
    path.write_text(f'#!/bin/sh\nulimit -n {count}\nexec {sys.executable} "$@"\n')
    path.chmod(0o700)
    return str(path)


class Small(Attack):
    """A node that may have few descriptors, and so takes few connections."""

    def __init__(self, directory: Path, number: int, descriptors: int, *options: str) -> None:
        self.bounds: Bounds = bounds(descriptors)
        python = with_descriptors(directory, descriptors)
        host = f"{PLACE}.{number}"
        super().__init__(RunningNode(directory, host, 51348, "--cpus=1", *options, python=python))

    def connections(self) -> int:
        """Return how many connections the node has now."""
        process = psutil.Process(self.node.process.pid)
        connections = process.net_connections("tcp")
        return sum(connection.status == "ESTABLISHED" for connection in connections)


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    """A node with a secret."""
    directory = tmp_path_factory.mktemp("strangers")
    attack = Small(directory, 1, 512, f"--secret-file={secret_file(directory, SECRET)}")
    yield attack
    attack.close()


@pytest.fixture
def plain(tmp_path: Path, nothing_left: None) -> Iterator[Small]:
    """A node without one."""
    attack = Small(tmp_path, 2, 512)
    yield attack
    attack.close()


@contextmanager
def crowd(attack: Attack, *options: str) -> Iterator[None]:
    """Have a crowd about, in a process of its own."""
    command = [sys.executable, str(CROWD), attack.host, *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "crowded\n"
            yield
            process.communicate(timeout=DEADLINE)
        finally:
            process.kill()


def hello(identity: str = "a" * 32) -> bytes:
    return encode_head(Kind.HELLO, Hello("client", identity, "somebody").body())


# -- room


def test_the_oldest_of_too_many_strangers_of_one_address_goes(attack: Small) -> None:
    peers = [attack.connect(f"{PLACE}.9") for _ in range(attack.bounds.of_one + 1)]
    assert peers[0].receive(1) == b""
    peers[1].encrypt(context())
    assert peers[1].prove(SECRET), "all others may still prove themselves"
    for peer in peers:
        peer.close()


def test_a_crowd_does_not_drop_a_slow_stranger_of_another_address(attack: Small) -> None:
    slow = attack.connect(f"{PLACE}.8")
    crowd = [attack.connect(f"{PLACE}.{9 + n % 3}") for n in range(2 * attack.bounds.strangers)]
    ended = sum(peer.receive(1) == b"" for peer in crowd[: attack.bounds.of_one])
    assert ended == attack.bounds.of_one
    slow.encrypt(context())
    assert slow.prove(SECRET)
    for peer in (slow, *crowd):
        peer.close()


# -- time


def test_who_does_not_prove_itself_in_time_is_gone(attack: Small, plain: Small) -> None:
    silent, slow, encrypted = attack.connect(), attack.connect(), attack.encrypted()
    slow.send(b"\x16\x03\x01")
    unsaid, half_said = plain.connect(HERE), plain.connect(HERE)
    half_said.send(hello()[:50])
    for peer in (silent, slow, encrypted, unsaid, half_said):
        peer.receive_all(100_000)  # fails unless the node ends it


def test_a_node_without_a_secret_counts_who_has_not_said_hello(plain: Small) -> None:
    peers = [plain.connect(HERE) for _ in range(plain.bounds.of_one + 1)]
    assert peers[0].receive(1) == b""
    for peer in peers[1:]:
        peer.send(hello(os.urandom(16).hex()))
        assert [frame.kind for frame in (peer.frame(), peer.frame())] == [Kind.HELLO, Kind.HELD]
    more = [plain.connect(HERE) for _ in range(plain.bounds.of_one)]
    for peer in more:
        peer.send(KNOCK)
        assert peer.frame() is not None, "who has said it takes no room any more"


# -- when all is full


def test_a_full_node_says_so_and_takes_the_next_one_when_one_has_gone(
    tmp_path: Path, nothing_left: None
) -> None:
    secret = f"--secret-file={secret_file(tmp_path, SECRET)}"
    with closing(Small(tmp_path, 3, 128, secret)) as attack:
        most = attack.bounds.known
        peers = [attack.welcome(identity=str(number)) for number in range(most)]
        assert all(peer.frame() is not None for peer in peers)
        one_more = attack.proven()
        one_more.send(hello())
        assert f"has {most} connections, as many as it may" in one_more.last_words()
        peers[0].close()
        attack.wait_for("client client left")
        peer = attack.welcome(identity="next")
        frame = peer.frame()
        assert frame is not None
        assert frame.kind != Kind.REFUSE


def test_a_node_without_descriptors_serves_on_and_says_so_once(
    attack: Small, tmp_path: Path, nothing_left: None
) -> None:
    pid = attack.node.process.pid
    allowed = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    with closing(Honest(tmp_path, attack.host)) as program:
        program.wait_for("9\n")
        attack.new_lines()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, allowed[1]))
        waiting = [attack.connect() for _ in range(2)]
        attack.wait_for("takes no new connections for now: Too many open files")
        program.end()  # all its jobs have their results
        resource.prlimit(pid, resource.RLIMIT_NOFILE, allowed)
        attack.wait_for("takes new connections again")
        waiting[1].encrypt(context())
        assert waiting[1].prove(SECRET), "who has waited is served now"
    assert attack.new_lines().count("takes no new connections") == 1


# -- crowds


@pytest.mark.parametrize("sources", [1, 1000])
def test_a_thousand_slow_connections_leave_room_for_a_program_that_comes_later(
    attack: Small, tmp_path: Path, nothing_left: None, sources: int
) -> None:
    before = attack.forget_peak()
    with (
        crowd(attack, f"--sources={sources}"),
        closing(Honest(tmp_path, attack.host)) as program,
    ):
        program.wait_for("9\n")
        assert attack.connections() <= 2 * attack.bounds.strangers + 1, "two rooms"
        program.end()
    assert attack.peak_bytes - before < 32 * MIB


def test_guessers_do_not_lock_out_a_program_of_their_own_address(
    attack: Small, tmp_path: Path, nothing_left: None
) -> None:
    attack.new_lines()
    before = attack.forget_peak()
    with (
        crowd(attack, "--guess", "--size=12"),
        closing(Honest(tmp_path, attack.host)) as program,
    ):
        program.wait_for("9\n")
        program.end()
    assert attack.new_lines().count("refused 127.0.0.1: ") <= 2, "it is said once, and why"
    assert attack.peak_bytes - before < 32 * MIB
