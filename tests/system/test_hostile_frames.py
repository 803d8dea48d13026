"""Frames that break a rule end their own link, with the rule's name, and cost no memory.

One node, one honest program that runs jobs on it all the while, and peers with the secret that
do what they must not.
"""

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from system.conftest import RunningNode
from system.hostile import SECRET, Attack, Honest, Peer, secret_file
from system.states import (
    STATES,
    UNKNOWN,
    bulk_head,
    in_bulk,
    proven,
    still_serves,
    welcome,
)

from dispy.protocol.frames import (
    BODY_LIMIT,
    BUFFERS_LIMIT,
    BULK_LIMIT,
    CHUNK,
    HEADER,
    READ_ONLY,
    SHARED,
    SIZE,
    encode_head,
)
from dispy.protocol.handshake import HELLO_LIMIT, Hello
from dispy.protocol.messages import SHAPES, Kind

PLACE = f"127.3.{os.getpid() % 250}"
MIB = 1024 * 1024
SPARE_BYTES = 48 * MIB  # that the honest program's jobs may need meanwhile


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    """A node that is attacked while an honest program uses it: all its jobs finish."""
    directory = tmp_path_factory.mktemp("hostile")
    secret = f"--secret-file={secret_file(directory, SECRET)}"
    attack = Attack(RunningNode(directory, f"{PLACE}.1", 51348, "--cpus=2", secret))
    with closing(attack), closing(Honest(directory, attack.host)) as program:
        program.wait_for("9\n")
        yield attack
        assert "refused" not in program.end()


def nested(depth: int) -> list[Any]:
    """Return a list in a list in a list; our own encoder takes 511 at most."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("state", STATES)
def test_a_peer_that_goes_in_the_midst_of_anything_leaves_nothing(
    attack: Attack, state: Callable[[Attack], Peer]
) -> None:
    peers = [state(attack) for _ in range(10)]
    for number, peer in enumerate(peers):
        if number % 2:
            peer.sock.setsockopt(6, 8, 1)  # TCP_LINGER2: gone without waiting
            peer.sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: reset
        peer.close()
    still_serves(attack)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("nonsense", [b"\xff" * 70_000, b"GET / HTTP/1.1\r\n\r\n" * 4000])
def test_nonsense_ends_the_connection_in_every_state(
    attack: Attack, state: Callable[[Attack], Peer], nonsense: bytes
) -> None:
    peer = state(attack)
    peer.send(nonsense)
    peer.receive_all(1 << 20)  # an end, or a sentence and an end
    still_serves(attack)


RULES: dict[str, tuple[Callable[[Attack], Peer], bytes, str]] = {
    "a hello that is too long": (
        proven, HEADER.pack(HELLO_LIMIT + 1, Kind.HELLO, 0),
        f"body of {HELLO_LIMIT + 1} bytes; the limit is {HELLO_LIMIT}",
    ),
    "buffers before hello": (
        proven, bulk_head(1, kind=Kind.HELLO), "buffers of 1 bytes; the limit is 0",
    ),
    "a job before hello": (
        proven, encode_head(Kind.RUN, [1, [1], [b"x"], []]), "RUN came before HELLO",
    ),
    "a role of another": (
        proven, encode_head(Kind.HELLO, Hello("node", "1" * 32, "n").body()),
        "a node connected where a client was expected",
    ),
    "another protocol": (
        proven, encode_head(Kind.HELLO, [{"protocol": 99, "name": "x", "version": "9"}]),
        "Install the same version on both",
    ),
    "a hello that nests too deep": (
        proven, encode_head(Kind.HELLO, [{"protocol": 99, "name": "x", "version": nested(500)}]),
        "a table of HELLO is nested too deep",
    ),
    "settings that nest too deep": (
        welcome, encode_head(Kind.OPEN, [1, "n", {"isolation": nested(500)}], [b"code"])
        + HEADER.pack(4, CHUNK, 0) + b"code", "a table of OPEN is nested too deep",
    ),
    "options that nest too deep": (
        welcome, encode_head(Kind.RUN, [1, [1], [b"x"], [[0, {"env": nested(500)}]]]),
        "an extra is nested too deep",
    ),
    "a body that is too long": (
        welcome, HEADER.pack(BODY_LIMIT + 1, Kind.RUN, 0),
        f"body of {BODY_LIMIT + 1} bytes; the limit is {BODY_LIMIT}",
    ),
    "too many buffers": (
        welcome, HEADER.pack(1, Kind.RUN, BUFFERS_LIMIT + 1), f"the limit is {BUFFERS_LIMIT}",
    ),
    "too many bytes": (
        welcome, bulk_head(BULK_LIMIT // 2, BULK_LIMIT // 2 + 1), f"the limit is {BULK_LIMIT}",
    ),
    "a terabyte": (welcome, bulk_head(1 << 40), f"of {1 << 40} bytes; the limit is {BULK_LIMIT}"),
    "sizes whose sum overflows": (
        welcome, bulk_head(*[(1 << 62) - 1] * 8), f"the limit is {BULK_LIMIT}",
    ),
    "a chunk of nothing": (
        welcome, HEADER.pack(5, CHUNK, 0) + b"chunk", "a chunk of 5 bytes where 0 are missing",
    ),
    "a chunk that is too long": (
        welcome, bulk_head(1000) + HEADER.pack(1001, CHUNK, 0),
        "a chunk of 1001 bytes where 1000 are missing",
    ),
    "bulk inside bulk": (
        in_bulk, bytes(200) + bulk_head(5), "a frame with buffers inside another one",
    ),
    "a buffer in a memory file": (
        welcome, bulk_head(1000 | SHARED).replace(b"\x93", SIZE.pack(7) + b"\x93", 1),
        "OPEN has not the buffers that it names",
    ),
    "an extension type": (
        welcome, HEADER.pack(7, Kind.RUN, 0) + b"\xc7\x04\x05abcd", "extension type 5",
    ),
    "no msgpack": (welcome, HEADER.pack(2, Kind.RUN, 0) + b"\xc1\xc1", "is not msgpack"),
    "an unknown kind": (welcome, HEADER.pack(1, 250, 0) + b"\x90", "kind 250"),
    "code without code": (
        welcome, encode_head(Kind.OPEN, [1, "n", {}]), "OPEN has not the buffers that it names",
    ),
    "extras of no job": (
        welcome, encode_head(Kind.RUN, [1, [1], [b"x"], [[5, {}]]]), "belongs to no job",
    ),
    "columns of different length": (
        welcome, encode_head(Kind.RUN, [1, [1, 2], [b"x"], []]), "differ in length",
    ),
    "a fetch of everything": (
        welcome, encode_head(Kind.FETCH, [b"k", 0]), "FETCH has not the parts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", RULES)
def test_a_broken_rule_is_named_and_ends_that_link_alone(attack: Attack, what: str) -> None:
    state, wire, rule = RULES[what]
    bystander = attack.welcome(identity="bystander")
    peer = state(attack)
    peer.send(wire)
    assert rule in peer.last_words()
    bystander.tell(Kind.LIST, [UNKNOWN, 5])
    while (frame := bystander.frame()) is not None and frame.kind != Kind.LISTED:
        pass
    assert frame is not None, "another link has ended too"
    bystander.close()


# -- bombs: what is declared, and what grows in decoding


def nested_lists() -> bytes:
    body = (b"\xdd" + struct.pack(">I", 1_000_000)) * 1000
    return HEADER.pack(len(body), Kind.PULSE, 0) + body


def huge_table() -> bytes:
    body = b"\x91\xdf" + struct.pack(">I", 0xFFFFFFFF) + b"\xa1k\xc0" * 1000
    return HEADER.pack(len(body), Kind.HELLO, 0) + body


def deep_nesting() -> bytes:
    return HEADER.pack(BODY_LIMIT // 16, Kind.PULSE, 0) + b"\x91" * (BODY_LIMIT // 16)


BOMBS: dict[str, bytes] = {
    "a body that never comes": HEADER.pack(BODY_LIMIT, Kind.RUN, 0) + b"\xdd\x00\xff\xff\xff",
    "8 GiB that never come": bulk_head(BULK_LIMIT | READ_ONLY) + HEADER.pack(9, CHUNK, 0) + b"x",
    "8 GiB to write to": bulk_head(BULK_LIMIT) + HEADER.pack(9, CHUNK, 0) + b"x",
    "as many buffers as may be": (
        bulk_head(*[BULK_LIMIT // BUFFERS_LIMIT] * BUFFERS_LIMIT) + HEADER.pack(9, CHUNK, 0) + b"x"
    ),
    "as many empty buffers": bulk_head(*[0] * BUFFERS_LIMIT),
    "lists that only begin": nested_lists(),
    "a table that only begins": huge_table(),
    "lists in lists": deep_nesting(),
}


@pytest.mark.parametrize("state", [proven, welcome])
@pytest.mark.parametrize("what", BOMBS)
def test_what_is_only_declared_takes_no_memory(
    attack: Attack, what: str, state: Callable[[Attack], Peer]
) -> None:
    before = attack.forget_peak()
    peers = [state(attack) for _ in range(4)]
    for peer in peers:
        peer.send(BOMBS[what])
    still_serves(attack)
    for peer in peers:
        peer.close()
    sent = len(peers) * len(BOMBS[what])
    assert attack.peak_bytes - before < SPARE_BYTES + 2 * sent


# -- messages that are whole, and mean nothing


VALUES: dict[type, list[Any]] = {
    str: ["", "x" * 300, "\x00/../"],
    int: [UNKNOWN, 0, -1, 2**63, -(2**63)],
    float: [float("nan"), -1e308],
    bytes: [b"", b"\x80\x05N.", b"k" * 32],
    dict: [{}, {"files": [["../x", b"d" * 32, 1, 0, 0]], "cpus": "many", "limits": {"a": []}}],
    list: [[], [0, {}], ["0", None]],
    type(None): [None],
}


def bodies(kind: int) -> Iterator[list[Any]]:
    """Return bodies of the right shape, with numbers and keys that nobody has been given."""
    for turn in range(5):
        body: list[Any] = []
        for part in SHAPES[kind]:
            values = VALUES[part[turn % len(part)]]
            value = values[turn % len(values)]
            body.append([value] if isinstance(part, list) else value)
        yield body


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_every_message_at_the_wrong_time_is_refused_or_passed_over(
    attack: Attack, kind: Kind
) -> None:
    """Twice each, since the second meets what the first has left; also with the wrong buffers."""
    for body in bodies(kind):
        for buffers in ([], [b"bulk"]):
            peer = attack.welcome(identity=f"hostile {kind.name}")
            peer.tell(kind, body, buffers)
            peer.tell(kind, body, buffers)
            peer.tell(Kind.LIST, [UNKNOWN, 5])
            while (frame := peer.frame()) is not None:
                if frame.kind == Kind.LISTED and frame.body[0] == 5:
                    break
                assert frame.kind != Kind.RESULTS or not frame.body[2], "a job ran"
            peer.close()
    still_serves(attack)


@pytest.mark.parametrize("body", [None, 7, [], {}, "OPEN", [[]], [None] * 4, [[[]]] * 7])
def test_bodies_of_the_wrong_shape_are_refused_by_the_name_of_the_message(
    attack: Attack, body: Any
) -> None:
    for kind in (
        Kind.OPEN, Kind.RUN, Kind.CANCEL, Kind.PLACE, Kind.FETCH, Kind.ACKNOWLEDGE, Kind.PROVEN,
    ):  # fmt: skip
        peer = attack.welcome()
        peer.tell(kind, body)
        assert f"{kind.name} has not the parts" in peer.last_words()
        peer.close()


def test_what_only_nodes_and_workers_say_is_refused_from_a_client(attack: Attack) -> None:
    peer = attack.welcome()
    peer.tell(Kind.RESULTS, [1, 1, [1], [0.0], [0.0], [b"x"], []])
    assert "RESULTS is not for a node to receive" in peer.last_words()
