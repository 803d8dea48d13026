"""Datagrams of discovery: what is said arrives, and any other bytes do no harm."""

import contextlib

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dispy.protocol.discovery import (
    ANSWERS_EACH,
    ANSWERS_IN_ALL,
    NONCE_BYTES,
    PACKET_BYTES,
    PING_BYTES,
    PROOFS_BYTES,
    AnswerLimit,
    Gone,
    Here,
    PacketRefused,
    Ping,
    answer,
    decode_packet,
    encode_packet,
)

nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)
ports = st.integers(1, 65535)
texts = st.text(st.characters(exclude_categories=("C", "Z")), max_size=20)
identities = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)
heres = st.builds(
    Here, identities, texts, ports, nonces | st.just(b""), texts, texts, st.binary(max_size=64)
)
proofs = st.binary(max_size=PROOFS_BYTES)
packets = (
    st.builds(Ping, nonces, st.integers(0, 65535), proofs)
    | heres
    | st.builds(Gone, identities, proofs)
)
HERE = Here("0123456789abcdef" * 2, "bench", 51348, version="5.0.0", python="3.11")


@given(packets)
def test_what_is_said_arrives(packet: Ping | Here | Gone) -> None:
    assert decode_packet(encode_packet(packet)) == packet


@given(st.binary(max_size=PACKET_BYTES + 10))
@example(encode_packet(Ping(bytes(NONCE_BYTES)))[: PING_BYTES - 1])
@example(encode_packet(Ping(bytes(NONCE_BYTES))).ljust(PACKET_BYTES + 1))
@example(b"dspy\x01\x02\x00\x02" + msgpack.packb([[]]))
@example(b"dspy\x01\x03\x00\x01" + b"\xc1")
@example(b"dspy\x01\x03\x00\x06" + msgpack.packb(["ab", "cd"]))
@example(encode_packet(Gone("ab", bytes(PROOFS_BYTES + 1))))
def test_any_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(PacketRefused):
        decode_packet(data)


@given(packets, st.integers(0, 300), st.binary(min_size=1, max_size=40), st.booleans())
def test_a_changed_datagram_is_read_or_refused(
    packet: Ping | Here | Gone, at: int, junk: bytes, cut: bool
) -> None:
    wire = encode_packet(packet)
    at %= len(wire)
    changed = wire[:at] + junk + (b"" if cut else wire[at + len(junk) :])
    with contextlib.suppress(PacketRefused):
        decode_packet(changed)


@given(
    st.integers(0, 4),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
)
def test_a_body_of_any_shape_is_read_or_refused(kind: int, body: object) -> None:
    packed = msgpack.packb(body)
    wire = b"dspy" + bytes([1, kind]) + len(packed).to_bytes(2, "big") + packed
    with contextlib.suppress(PacketRefused):
        decode_packet(wire.ljust(PING_BYTES, b"\0"))


@given(st.builds(Here, st.text(), st.text(), ports, nonces, st.text(), st.text()))
@example(
    Here("\U0001f600" * 90, "\U0001f600" * 90, 1, bytes(NONCE_BYTES), "\U0001f600" * 90, "é" * 90)
)
@example(Here("a", "\udcff name\n", 1))
def test_an_answer_is_never_larger_than_a_ping(here: Here) -> None:
    assert len(encode_packet(here)) <= PING_BYTES == len(encode_packet(Ping(bytes(16))))


@given(st.binary(max_size=PACKET_BYTES))
def test_an_answer_is_never_larger_than_what_came(data: bytes) -> None:
    try:
        wire = answer(data, HERE, "10.0.0.7", AnswerLimit(), 0.0)
    except PacketRefused:
        return
    assert wire is None or len(wire) <= len(data)


def test_a_ping_is_answered_once_with_its_nonce() -> None:
    nonce = bytes(range(NONCE_BYTES))
    wire = answer(encode_packet(Ping(nonce)), HERE, "10.0.0.7", AnswerLimit(), 0.0)
    assert wire is not None
    assert decode_packet(wire) == Here(
        HERE.identity, "bench", 51348, nonce, version="5.0.0", python="3.11"
    )


def test_a_ping_for_another_port_is_not_answered() -> None:
    ping = encode_packet(Ping(bytes(NONCE_BYTES), port=51400))
    assert answer(ping, HERE, "10.0.0.7", AnswerLimit(), 0.0) is None


@pytest.mark.parametrize("packet", [HERE, Gone(HERE.identity)])
def test_only_a_ping_is_answered(packet: Here | Gone) -> None:
    assert answer(encode_packet(packet), HERE, "10.0.0.7", AnswerLimit(), 0.0) is None


def test_one_address_that_floods_is_answered_so_often_and_others_still_are() -> None:
    limit = AnswerLimit()
    allowed = sum(limit.allows("10.0.0.7", 5.5) for _ in range(10 * ANSWERS_EACH))
    assert allowed == ANSWERS_EACH
    assert limit.allows("10.0.0.8", 5.6)
    assert limit.allows("10.0.0.7", 6.1), "in the next second it may ask again"


def test_a_flood_from_forged_addresses_is_bounded_in_all() -> None:
    limit = AnswerLimit()
    allowed = sum(
        limit.allows(f"10.0.{n // 250}.{n % 250}", 5.5) for n in range(3 * ANSWERS_IN_ALL)
    )
    assert allowed == ANSWERS_IN_ALL
