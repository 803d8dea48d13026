"""Hostile bytes are refused or waited for, and cost no more memory than a stated multiple.

Random bytes, random bodies behind valid headers, and valid frames of every kind with bytes changed
go to every decoder. Any exception but the protocol's own is a fault.
"""

import os
import random
import socket
import struct
import tracemalloc
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import gevent
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispy.model.errors import DispyError
from dispy.net.fetching import AHEAD_BYTES, Fetching, is_wanted
from dispy.net.pieces import PieceSender
from dispy.net.possession import POSED_LIMIT
from dispy.protocol.frames import (
    BULK_LIMIT,
    CHUNK,
    HEADER,
    READ_ONLY,
    SIZE,
    Frame,
    FrameDecoder,
    FrameRefused,
    Shared,
    attach_sources,
    encode_frame,
)
from dispy.protocol.handshake import HELLO_LIMIT, Hello, accept_hello, hello_decoder
from dispy.protocol.messages import SHAPES, Kind, check, join_payloads
from dispy.shipping.contents import PIECE_SIZE, digest_of
from dispy.shipping.files import check as check_manifest
from dispy.shipping.possession import CHALLENGE_SIZE
from dispy.shipping.store import Store
from dispy.system.memory import blank
from dispy.worker.channel import Channel, EndOfChannel

SEED = int(os.environ.get("DISPY_SEED", "0"))
ROUNDS = 3000
# Bytes of memory for each byte fed: a body of empty tables, each one byte, becomes 73 for each.
MULTIPLE = 100
SMALL_BYTES = 8 * 1024 * 1024  # that a small frame may cost, whatever it says
STRANGER_BYTES = 1024 * 1024  # that a peer may cost which has said nothing true yet

# Columns of equal length, and where a list of [position, table] stands.
COLUMNS = {
    Kind.RUN: (1, 2), Kind.RESULTS: (2, 3, 4, 5), Kind.JOBS: (0, 1), Kind.DONE: (0, 1, 2, 3),
    Kind.SUBMIT: (2, 3), Kind.ENDED: (2, 3, 4, 5),
}  # fmt: skip
EXTRAS = {Kind.RESULTS: 6, Kind.DONE: 4, Kind.SUBMIT: 4, Kind.ENDED: 6}

VALUES: dict[type, Callable[[random.Random], Any]] = {
    str: lambda r: r.choice(["", "compute", "x" * 300, "é"]),
    int: lambda r: r.choice([0, 1, -1, 7, 2**63, -(2**63), 2**64 - 1]),
    float: lambda r: r.choice([0.0, 1.5, float("nan"), float("inf"), -1e308]),
    bytes: lambda r: r.choice([b"", b"x", b"\x80\x05" * 40]),
    dict: lambda r: r.choice([{}, {"cpus": "many"}, {"a": {"b": [1, None]}}]),
    list: lambda r: r.choice([[0, {}], [0], [], [0, {}, 1], ["0", {}], [-1, {}], [10**9, {}]]),
    type(None): lambda r: None,
}


def some_frame(rng: random.Random, kind: int) -> list[bytes | memoryview]:
    """Return the pieces of a frame of this kind, in most cases a valid one."""
    count, body, buffers = rng.choice([0, 1, 3]), [], list[bytes]()
    for part in SHAPES[kind]:
        if type(part) is list:
            many = count if rng.random() < 0.95 else 2
            body.append([VALUES[rng.choice(part)](rng) for _ in range(many)])
        else:
            body.append(VALUES[rng.choice(part)](rng))
    if rng.random() < 0.3:
        buffers = [rng.choice([b"", b"bulk", b"x" * 5000]) for _ in range(rng.choice([1, 2]))]
    if kind in (Kind.OPEN, Kind.LOAD, Kind.PIECE, Kind.CLUSTER):
        buffers = [b"code"]
    return encode_frame(kind, body, buffers)


def mutated(rng: random.Random, wire: bytes) -> bytes:
    """Return the bytes with a few changed, left out, doubled, or nothing of it."""
    changed = bytearray(wire)
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        if not changed:
            break
        at = rng.randrange(len(changed))
        match rng.randrange(4):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                del changed[at : at + rng.choice([1, 8])]
            case 2:
                changed[at:at] = changed[at : at + 9]
            case 3:
                changed[at : at + 1] = rng.choice([b"\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x00"])
    return bytes(changed)


def use(frame: Frame) -> None:
    """Do with a frame what whoever reads a link does, before anything looks into it."""
    checked = check(frame)
    for at, part in enumerate(SHAPES[frame.kind]):
        column = checked.body[at]
        if type(part) is list and bytes in part:
            payloads = join_payloads(column, checked.buffers)
            assert len(payloads) == len(column)
            assert all(len(payload) >= 0 for payload in payloads)
    if frame.kind in COLUMNS:
        assert len({len(checked.body[at]) for at in COLUMNS[frame.kind]}) == 1
    if frame.kind in EXTRAS:
        jobs = len(checked.body[COLUMNS[frame.kind][0]])
        assert all(0 <= at < jobs for at, _ in checked.body[EXTRAS[frame.kind]])
    if frame.kind == Kind.PROVISIONAL:
        join_payloads([checked.body[3]], checked.buffers)


def take_all(decoder: FrameDecoder) -> None:
    while (frame := decoder.next_frame()) is not None:
        use(frame)


def feed_all(rng: random.Random, decoder: FrameDecoder, wire: bytes) -> None:
    """Feed in portions, some of them straight to where they belong, as a link does."""
    rest = memoryview(wire)
    while rest:
        size = rng.choice([1, 2, 7, 100, 4096])
        space = decoder.space()
        if space is not None and rng.random() < 0.7:
            size = min(size, len(space), len(rest))
            space[:size] = rest[:size]
            decoder.filled(size)
        else:
            decoder.feed(rest[:size])
        rest = rest[size:]
        take_all(decoder)


@pytest.mark.parametrize("kind", [int(kind) for kind in Kind], ids=[kind.name for kind in Kind])
def test_changed_frames_of_every_kind_are_refused_or_waited_for(kind: int) -> None:
    rng = random.Random(SEED * 1000 + kind)
    refused = 0
    for _ in range(ROUNDS // 6):
        wire = b"".join(some_frame(rng, kind)) + b"".join(some_frame(rng, int(Kind.PULSE)))
        decoder = FrameDecoder(
            memory=rng.choice([blank, lambda n, _: (b := bytearray(n), memoryview(b))])
        )
        decoder._bulk_limit = 1 << 20  # so that a changed size does not make the test slow
        try:
            feed_all(rng, decoder, mutated(rng, wire))
        except FrameRefused:
            refused += 1
    assert refused, "nothing was refused: the changes do not reach the decoder"


def test_random_bodies_behind_valid_headers_are_refused_or_waited_for() -> None:
    rng = random.Random(SEED)
    for _ in range(ROUNDS):
        body = rng.randbytes(rng.choice([1, 5, 40]))
        wire = HEADER.pack(len(body), rng.choice(list(SHAPES)), 0) + body
        decoder = FrameDecoder()
        decoder.feed(wire + rng.randbytes(rng.choice([0, 3, 30])))
        decoder._bulk_limit = 1 << 20
        try:
            take_all(decoder)
        except FrameRefused:
            continue


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=400)
@given(kind=st.integers(0, 255), body=ANY, buffers=st.lists(st.binary(max_size=9), max_size=3))
def test_any_body_is_refused_or_has_its_shape(kind: int, body: Any, buffers: list[bytes]) -> None:
    try:
        use(Frame(kind, body, list(buffers)))
    except FrameRefused:
        return
    assert len(body) == len(SHAPES[kind])


@settings(max_examples=400)
@given(body=ANY | st.lists(st.dictionaries(st.sampled_from(Hello.__slots__), ANY), min_size=1,
                           max_size=1))  # fmt: skip
def test_any_hello_is_accepted_or_refused_with_a_sentence(body: Any) -> None:
    try:
        accept_hello(Frame(int(Kind.HELLO), body), "node")
    except FrameRefused as refusal:
        sentence = str(refusal)
    else:
        return
    assert 0 < len(sentence) < 2000


@settings(max_examples=400)
@given(name=st.sampled_from(Hello.__slots__), value=ANY)
def test_a_hello_with_one_thing_wrong_is_refused_or_as_it_should_be(name: str, value: Any) -> None:
    (said,) = Hello("node", "1" * 32, "n1").body()
    try:
        hello = accept_hello(Frame(int(Kind.HELLO), [{**said, name: value}]), "node")
    except FrameRefused:
        return
    assert isinstance(hello.details, dict)
    assert hello.role == "node"
    for text in (hello.identity, hello.name, hello.version, hello.python, hello.platform):
        assert isinstance(text, str)
        assert len(text) < 256


def test_a_shared_buffer_without_its_descriptor_is_refused() -> None:
    with pytest.raises(FrameRefused, match="descriptor"):
        attach_sources(Frame(11, [], [Shared(1, 10)]), deque())


@pytest.mark.parametrize("seed", range(SEED, SEED + 200))
def test_a_worker_s_channel_ends_by_its_own_exceptions(seed: int) -> None:
    rng = random.Random(seed)
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        wire = b"".join(
            piece for _ in range(3) for piece in some_frame(rng, rng.choice(list(SHAPES)))
        )
        channel = Channel(theirs)
        channel._decoder._bulk_limit = 1 << 20
        ours.sendall(mutated(rng, wire))
        ours.shutdown(socket.SHUT_WR)
        try:
            for _ in range(5):
                use(channel.receive())
        except (FrameRefused, EndOfChannel):
            return


@settings(max_examples=300)
@given(
    entry=st.tuples(st.text() | ANY, st.sampled_from([b"", b"d" * 32]) | ANY,
                    st.integers() | ANY, st.integers() | ANY, st.integers() | ANY),
    other=ANY,
)  # fmt: skip
def test_any_manifest_of_a_peer_is_refused_with_a_sentence_or_lies_inside(
    entry: tuple[Any, ...], other: Any
) -> None:
    is_wanted(other)
    for entries in (other, [list(entry)], [list(entry), other]):
        try:
            checked = check_manifest(entries)
        except DispyError as refusal:
            sentence = str(refusal)
        else:
            assert all(".." not in entry.path.split("/") for entry in checked)
            continue
        assert 0 < len(sentence) < 2000


@pytest.mark.parametrize("seed", range(SEED, SEED + 100))
def test_any_pieces_from_a_peer_are_refused_or_passed_over(seed: int, tmp_path: Path) -> None:
    """A node that wants something gets PIECEs of all kinds; memory stays that of a few."""
    rng, asked = random.Random(seed), list[list[Any]]()

    class Owner:
        link, name = object(), "a peer"

        def tell(self, kind: int, body: list[Any]) -> None:
            asked.append(body)

    fetching = Fetching(Owner(), Store(tmp_path / "store", 1 << 20))
    keys = [bytes([n]) * 32 for n in range(3)]
    fetching.fetch([(key, rng.choice([0, 1, 5000, 3 << 20])) for key in keys], lambda why: None)
    for _ in range(50):
        key, offset = rng.choice([*keys, b"", b"other"]), rng.choice([0, 1, -1, 1 << 20, 2**63])
        if asked and rng.random() < 0.5:
            key, offset, _ = rng.choice(asked)
        why = rng.choice([None, None, None, "no", "x" * 5000])
        piece = rng.choice([b"", b"x", bytes(5000), bytes(1 << 20), Shared(1, 5)])
        with suppress(FrameRefused):
            fetching.piece(Frame(int(Kind.PIECE), [key, offset, why], [piece]))
        assert 0 <= fetching._ahead <= AHEAD_BYTES
    fetching.close()
    fetching.link_changed()  # what it is still owed goes with its link
    assert fetching._ahead == 0


@pytest.mark.parametrize("seed", range(SEED, SEED + 30))
def test_any_proofs_from_a_peer_open_nothing_and_end_nothing(seed: int, tmp_path: Path) -> None:
    """The node has what the peer wants; the peer has not, and says anything of it."""
    rng, asked = random.Random(seed), list[list[Any]]()

    class Owner:
        link, name = object(), "a peer"

        def tell(self, kind: int, body: list[Any]) -> None:
            if kind == Kind.PROVE:
                asked.append(body)

    store = Store(tmp_path / "store", 1 << 22)
    contents = [bytes([n]) * CHALLENGE_SIZE for n in range(4)]
    for content in contents:
        arriving = store.begin(digest_of(content), len(content), "a test")
        arriving.write(content)
        store.keep(arriving)
        arriving.close_and_clear()
    digests = [digest_of(content) for content in contents]
    fetching = Fetching(Owner(), store)
    fetching.fetch([(digest, CHALLENGE_SIZE) for digest in digests], lambda why: None)
    gevent.sleep(0)
    assert len(asked) == len(digests)
    for _ in range(30):
        digest, nonce = rng.choice(asked)
        digest, nonce = rng.choice([digest, *digests, b""]), rng.choice([nonce, nonce, b"", b"n"])
        proof = rng.choice([b"", digest, nonce, bytes(32), bytes(100_000), rng.randbytes(32)])
        fetching.proven(digest, nonce, proof)
        if rng.random() < 0.2:
            fetching.link_changed()
        gevent.sleep(rng.choice([0, 0, 0.001]))
        assert not any(map(fetching.has, digests))
        assert 0 <= fetching._ahead <= AHEAD_BYTES
    assert len(asked) <= POSED_LIMIT * len(digests)
    fetching.close()
    fetching.link_changed()  # what it is still owed goes with its link
    assert fetching._ahead == 0


@settings(max_examples=200)
@given(key=st.binary(), offset=st.integers(-(2**63), 2**64 - 1),
       length=st.integers(-(2**63), 2**64 - 1))  # fmt: skip
def test_any_fetch_from_a_peer_is_refused_or_kept_short(
    key: bytes, offset: int, length: int
) -> None:
    sender = PieceSender(None, {}.get, "a peer")  # type: ignore[arg-type]  # nothing is sent here
    sender._sending = True
    try:
        sender.fetch(key, offset, length)
    except FrameRefused:
        return
    assert 0 < length <= PIECE_SIZE
    assert offset >= 0


# -- memory


def cost(decoder: FrameDecoder, wire: bytes) -> int:
    """Return the most bytes that were held while `wire` was decoded, or refused."""
    tracemalloc.start()
    try:
        decoder.feed(wire)
        decoder.next_frame()
    except FrameRefused:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def nested_lists(size: int) -> bytes:
    """A body that is nothing but beginnings of lists, each as long as the body at most."""
    begin = b"\xdd" + struct.pack(">I", size - 1)
    return (begin * min(1000, size // len(begin))).ljust(size, b"\xc0")


@pytest.mark.parametrize("size", [200, 2047, 2048, 4096, 60_000, 1_000_000])
def test_lists_that_only_begin_cost_what_was_fed(size: int) -> None:
    body = nested_lists(size)
    wire = HEADER.pack(len(body), Kind.PULSE, 0) + body
    assert cost(FrameDecoder(), wire) < max(MULTIPLE * len(wire), SMALL_BYTES)
    if size < HELLO_LIMIT:
        assert cost(hello_decoder(), wire) < STRANGER_BYTES


@pytest.mark.parametrize("element", [b"\x90", b"\x80", b"\xc0", b"\x91\x80", b"\xa0", b"\xc4\x00"])
def test_small_elements_cost_a_stated_multiple(element: bytes) -> None:
    count = 100_000 // len(element)
    body = b"\xdd" + struct.pack(">I", count) + element * count
    wire = HEADER.pack(len(body), Kind.PULSE, 0) + body
    assert cost(FrameDecoder(), wire) < MULTIPLE * len(wire)


def test_a_stranger_s_declared_sizes_cost_nothing() -> None:
    assert cost(hello_decoder(), HEADER.pack(HELLO_LIMIT, Kind.HELLO, 0)) < 10_000
    decoder = hello_decoder()
    decoder.feed(HEADER.pack(1, Kind.HELLO, 1) + SIZE.pack(1) + b"\x90")
    with pytest.raises(FrameRefused):
        decoder.next_frame()


def test_a_proven_peer_s_declared_sizes_cost_pages_only_as_they_are_filled() -> None:
    """A buffer's memory is taken whole, but the kernel gives its pages when they are written."""
    decoder = FrameDecoder(memory=blank)
    size = 1 << 30
    decoder.feed(HEADER.pack(1, Kind.OPEN, 1) + SIZE.pack(size | READ_ONLY) + b"\x90")
    before = resident()
    assert decoder.next_frame() is None
    decoder.feed(HEADER.pack(1000, CHUNK, 0) + b"x" * 1000)
    assert decoder.next_frame() is None
    assert resident() - before < 64 << 20


def test_a_buffer_for_which_there_is_no_memory_is_refused() -> None:
    def none_left(size: int, readonly: bool) -> Any:
        raise MemoryError

    decoder = FrameDecoder(memory=none_left)
    decoder.feed(HEADER.pack(1, Kind.OPEN, 1) + SIZE.pack(BULK_LIMIT) + b"\x90")
    with pytest.raises(FrameRefused, match="no memory"):
        decoder.next_frame()


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_body_is_looked_through_with_the_same_result() -> None:
    body = [1, list(range(3000)), [b"x" * 20] * 3000, {"a": [None, 1.5]}]
    packed = msgpack.packb(body)
    decoder = FrameDecoder()
    decoder.feed(HEADER.pack(len(packed), 11, 0) + packed)
    frame = decoder.next_frame()
    assert frame is not None
    assert frame.body == body
