"""Whatever breaks a rule, in whatever state a link is, ends that link and nothing else.

Every mistake in every state: of clients at a node, and of nodes at a program; meanwhile an honest
program and an honest node work on. `test_hostile_frames.py` has the rules one by one.
"""

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from system.conftest import DEADLINE, Gate, RunningNode
from system.hostile import (
    SECRET,
    Attack,
    Honest,
    Impostor,
    Peer,
    context,
    peak_bytes,
    secret_file,
)
from system.states import STRANGERS, bulk_head, still_serves, welcome

from dispy.client.opening import make_opening
from dispy.protocol import proof
from dispy.protocol.frames import BUFFERS_LIMIT, CHUNK, HEADER, encode_head
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.shipping.payloads import pack_call

PLACE = f"127.5.{os.getpid() % 250}"
MIB = 1024 * 1024
SPARE_BYTES = 64 * MIB  # that honest work may need meanwhile
PATIENCE = 4 * DEADLINE  # jobs wait for one node after the other to be lost
PROGRAM_BYTES = 256 * MIB  # that a program takes at most with a hundred nodes, all of it

ENDLESS = struct.pack(">I", 0xFFFFFFFF)
BEGINS = b"\x91\x81\xa1k"  # a list with a table whose first value follows
CUT = "a frame that is cut off"
MISTAKES: dict[str, bytes] = {
    CUT: encode_head(Kind.PIECE, [b"k" * 32, 0, "why"])[:-5],  # and the end
    "a frame of nothing": HEADER.pack(0, Kind.PULSE, 0),
    "a frame of 4 GiB": HEADER.pack(0xFFFFFFFF, Kind.PIECE, 0),
    "an unknown kind": HEADER.pack(1, 99, 0) + b"\x90",
    "another shape": HEADER.pack(1, Kind.FETCH, 0) + b"\x90",
    "10,000 lists in lists": HEADER.pack(10_000, Kind.PULSE, 0) + b"\x91" * 10_000,
    "a list without end": HEADER.pack(9, Kind.PULSE, 0) + BEGINS + b"\xdd" + ENDLESS,
    "a table without end": HEADER.pack(9, Kind.PULSE, 0) + BEGINS + b"\xdf" + ENDLESS,
    "a text without end": HEADER.pack(9, Kind.PULSE, 0) + BEGINS + b"\xdb" + ENDLESS,
    "bytes without end": HEADER.pack(9, Kind.PULSE, 0) + BEGINS + b"\xc6" + ENDLESS,
    "more buffers than may be": HEADER.pack(1, Kind.PIECE, BUFFERS_LIMIT + 1),
    "a buffer that is not named": bulk_head(1, kind=Kind.PULSE, body=b"\x90")
    + HEADER.pack(1, CHUNK, 0) + b"x",
    "a buffer that is not there": encode_head(Kind.PIECE, [b"k" * 32, 0, None]),
}  # fmt: skip

CODE = """
import signal

def hold():
    signal.pause()

def clean():
    with open({path!r}) as file:
        file.read(1)
"""


def half_a_piece(fetch: list[Any]) -> bytes:
    """Return the first half of the answer to a FETCH."""
    key, offset, length = fetch
    body = encode_head(Kind.PIECE, [key, offset, None])[HEADER.size :]
    head = bulk_head(length, kind=Kind.PIECE, body=body)
    return head + HEADER.pack(length // 2, CHUNK, 0) + bytes(length // 2)


# -- clients at a node


class Steady:
    """A client whose computation stays at the node, whatever happens to its links."""

    def __init__(self, attack: Attack, gate: Gate, identity: str) -> None:
        self.attack, self.identity = attack, identity
        names: dict[str, Any] = {"__name__": "__main__"}
        exec(CODE.format(path=str(gate)), names)
        chosen: dict[str, Any] = dict.fromkeys(
            ("isolation", "setup_timeout", "stream", "max_result_size", "timeout", "cpu_time",
             "memory", "grace", "env", "nice", "jobs_per_worker", "worker_growth"),
        )  # fmt: skip
        opening = make_opening(names["hold"], [], None, names["clean"], None, {**chosen, "cpus": 1})
        self.settings, self.content = opening.settings, opening.content

    def opened(self) -> Peer:
        """Its computation is ready."""
        peer = self.attack.welcome(identity=self.identity)
        self.jobs, computations = peer.until(Kind.HELD).body
        if 1 not in computations:
            peer.tell(Kind.OPEN, [1, "hold", self.settings], [self.content])
            assert peer.until(Kind.READY).body[1] is None
        return peer

    def running(self) -> Peer:
        """A job of it runs."""
        peer = self.opened()
        if 1 not in self.jobs:
            call = pack_call("hold", (), {})
            peer.tell(Kind.RUN, [1, [1], [call], []])
        running: list[int] = []
        while 1 not in running:  # each question is an answer later
            peer.tell(Kind.LIST, [1, 1])
            running = peer.until(Kind.LISTED).body[1]
        return peer

    def sending(self) -> Peer:
        """What a job of it needs is on its way to the node."""
        peer = self.opened()
        if 2 not in self.jobs:
            needs = [[b"n" * 32, 3 * MIB]]
            call = pack_call("hold", (), {})
            peer.tell(Kind.RUN, [1, [2], [call], [[0, {"needs": needs}]]])
        peer.send(half_a_piece(peer.until(Kind.FETCH).body))
        return peer

    def closing(self) -> Peer:
        """Its cleanup runs."""
        peer = self.attack.welcome(identity=self.identity)
        _, computations = peer.until(Kind.HELD).body
        if 1 not in computations:
            peer.tell(Kind.OPEN, [1, "hold", self.settings], [self.content])
            peer.until(Kind.READY)
            peer.tell(Kind.CLOSE, [1])
        return peer


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    """A node that is attacked while an honest program uses it: all its jobs finish."""
    directory = tmp_path_factory.mktemp("hostile")
    secret = f"--secret-file={secret_file(directory, SECRET)}"
    attack = Attack(RunningNode(directory, f"{PLACE}.1", 51348, "--cpus=3", secret))
    with closing(attack), closing(Honest(directory, attack.host)) as program:
        program.wait_for("9\n")
        yield attack
        assert "refused" not in program.end()


@pytest.mark.parametrize("state", STRANGERS)
def test_a_stranger_s_mistake_ends_its_connection(
    attack: Attack, state: Callable[[Attack], Peer]
) -> None:
    before = attack.forget_peak()
    for wire in MISTAKES.values():
        peer = state(attack)
        peer.send(wire)
        peer.say_no_more()  # it may be that the node waits for more
        peer.receive_all(1 << 20)  # until the node hangs up
    still_serves(attack)
    assert attack.peak_bytes - before < SPARE_BYTES


@pytest.mark.parametrize("state", ["opened", "running", "sending", "closing"])
def test_a_client_s_mistake_ends_its_link_and_nothing_that_it_has_there(
    attack: Attack, gate: Gate, state: str
) -> None:
    before = attack.forget_peak()
    client = Steady(attack, gate, f"steady, {state}")
    reach: Callable[[], Peer] = getattr(client, state)
    reach().close()
    for mistake, wire in MISTAKES.items():
        peer, bystander = reach(), welcome(attack)
        peer.send(wire)
        if mistake == CUT:
            peer.close()
        else:
            assert peer.last_words(), f"the node did not say which rule: {mistake}"
        still_serves(attack)
        bystander.close()
    peer = attack.welcome(identity=client.identity)
    jobs, computations = peer.until(Kind.HELD).body
    assert jobs == {"running": [1], "sending": [2]}.get(state, [])
    assert computations == [1]
    peer.tell(Kind.CLOSE, [1])
    gate.open()
    peer.until(Kind.CLOSED)
    peer.close()
    assert attack.peak_bytes - before < SPARE_BYTES


# -- nodes at a program


def wanted(peer: Peer, kind: Kind) -> list[Any]:
    """Return the body of the next frame of this kind; the program hears of us meanwhile.

    Raises ConnectionError.
    """
    while (frame := peer.frame()) is not None and frame.kind != kind:
        peer.tell(Kind.PULSE, [])  # as often as the program gives a sign of life
    if frame is None:
        raise ConnectionError(f"{kind.name} did not come")
    return list(frame.body)


def plain(peer: Peer, identity: str) -> None:
    """Nothing has been said."""


def shaking(peer: Peer, identity: str) -> None:
    """TLS has begun."""
    peer.receive(100)
    peer.send(b"\x16\x03\x03\x02\x00\x02\x00\x01\xfc\x03\x03" + os.urandom(40))


def encrypted(peer: Peer, identity: str) -> None:
    """Nothing has been proven."""
    peer.encrypt(context(), dialled=False)


def proving(peer: Peer, identity: str) -> None:
    """The proof is on its way."""
    peer.encrypt(context(), dialled=False)
    said, _ = proof.answer(peer.receive_all(proof.CLAIM_BYTES), [SECRET], peer.keying)
    peer.send(said[:20])


def proven(peer: Peer, identity: str) -> None:
    """It has the secret."""
    peer.prove_to()


def greeting(peer: Peer, identity: str) -> None:
    """Its hello is on its way."""
    peer.prove_to()
    peer.send(encode_head(Kind.HELLO, Hello("node", "1" * 32, "n").body())[:50])


def greeted(peer: Peer, identity: str) -> None:
    """It has said who it is, and not what it has."""
    peer.prove_to()
    peer.greet("node", identity, cpus=2)


def settled(peer: Peer, identity: str) -> None:
    """It is a node of the program."""
    greeted(peer, identity)
    peer.tell(Kind.HELD, [[], []])
    peer.tell(Kind.SHARE, [2, 1])


def opening(peer: Peer, identity: str) -> None:
    """It loads the computation."""
    settled(peer, identity)
    wanted(peer, Kind.OPEN)


def working(peer: Peer, identity: str) -> list[Any]:
    """It has jobs."""
    settled(peer, identity)
    peer.tell(Kind.READY, [wanted(peer, Kind.OPEN)[0], None, {}])
    return wanted(peer, Kind.RUN)


def sending(peer: Peer, identity: str) -> None:
    """A job of it sends a file."""
    computation, jobs, *_ = working(peer, identity)
    table = {"name": identity.encode(), "size": 3 * MIB, "mode": 0o644, "modified": 0}
    peer.tell(Kind.OFFER, [computation, jobs[0], identity.ljust(16).encode(), table])
    peer.send(half_a_piece(wanted(peer, Kind.FETCH)))


def leaving(peer: Peer, identity: str) -> None:
    """The program closes its cluster."""
    opening(peer, identity)
    wanted(peer, Kind.CLOSE)


KNOWN = [greeted, settled, opening, working, sending]
NODES = [plain, shaking, encrypted, proving, proven, greeting, *KNOWN, leaving]


class Mistaken(Impostor):
    """A node that makes one mistake in one state, and is no more then.

    On a slow machine the program may give it up before; then it tries again on the next link.
    """

    def __init__(self, number: int, state: Callable[..., Any], mistake: str) -> None:
        self._state, self._mistake = state, mistake
        self._identity = f"mistaken {number}"
        self.what = f"{mistake} in state {state.__name__}"
        self.made = threading.Event()
        self.given_up: list[BaseException] = []
        super().__init__(f"{PLACE}.{number}", self._err)

    def _err(self, peer: Peer) -> None:
        if self.made.is_set():
            return
        try:
            self._state(peer, self._identity)
            peer.send(MISTAKES[self._mistake])
            if self._mistake != CUT:
                if self._state in KNOWN:
                    assert peer.last_words(), "the program did not say which rule"
                elif self._state in (plain, shaking, proving, greeting):
                    peer.say_no_more()  # it may be that the program waits for more
                peer.receive_all(1 << 20)
        except (OSError, SSL.Error, AssertionError) as failure:
            self.given_up.append(failure)
        else:
            self.made.set()


@pytest.mark.timeout(600)
def test_a_program_outlives_every_mistake_of_its_nodes(
    attack: Attack, tmp_path: Path, nothing_left: None
) -> None:
    numbers = count(10)
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(closing(Mistaken(next(numbers), state, mistake)))
            for state in NODES
            for mistake in MISTAKES
        ]
        program = stack.enter_context(closing(Honest(
            tmp_path, attack.host, *(node.host for node in nodes),
            options="reentrant=True, retries=1000, pulse_interval=2",
        )))  # fmt: skip
        program.program.read_on()
        at_the_end = [node for node in nodes if node._state is leaving]
        for node in nodes:
            if node not in at_the_end and not node.made.wait(PATIENCE):
                pytest.fail(f"{node.what}: {node.given_up}; {program.program.output}")
        peak = peak_bytes(program.program.process.pid)
        output = program.end(PATIENCE)
        for node in at_the_end:
            assert node.made.wait(DEADLINE) or node.given_up, node.what
        assert any(node.made.is_set() for node in at_the_end)
    assert "Traceback" not in output, output
    assert peak < PROGRAM_BYTES
