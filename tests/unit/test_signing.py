"""A datagram's proof: made by who has the secret, for all that it says, and worth nothing else."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispy.model.credentials import SECRETS_LIMIT, Secret, new_secret
from dispy.protocol.discovery import (
    NONCE_BYTES,
    PACKET_BYTES,
    PING_BYTES,
    PROOFS_BYTES,
    AnswerLimit,
    Gone,
    Here,
    Packet,
    Ping,
    answer,
    decode_packet,
    encode_packet,
)
from dispy.protocol.signing import PROOF_BYTES, is_signed, signed, signed_answer

SECRETS = [Secret(new_secret(), "a test") for _ in range(SECRETS_LIMIT)]
OURS, OTHERS = SECRETS[:2], SECRETS[2:]
SOURCE = "10.0.0.7"

nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)
ports = st.integers(1, 65535)
texts = st.text(max_size=20)
pings = st.builds(Ping, nonces, st.integers(0, 65535))
heres = st.builds(
    Here, st.text("0123456789abcdef", min_size=1), texts, ports, nonces | st.just(b""), texts, texts
)
packets = pings | heres | st.builds(Gone, st.text("0123456789abcdef", min_size=1))


def received(packet: Packet) -> Packet:
    return decode_packet(encode_packet(packet))


@given(packets, st.sampled_from(OURS))
def test_one_secret_in_common_is_enough_whichever_it_is(packet: Packet, common: Secret) -> None:
    arrived = received(signed(packet, [*OTHERS[:3], common], SOURCE))
    assert is_signed(arrived, OURS, SOURCE)
    assert not is_signed(arrived, OTHERS[3:], SOURCE)


@given(packets, packets)
def test_a_proof_holds_for_its_address_and_its_packet_alone(one: Packet, other: Packet) -> None:
    arrived = received(signed(one, OURS, SOURCE))
    assert not is_signed(arrived, OURS, "10.0.0.8")
    moved = replace(received(other), proofs=arrived.proofs)
    assert is_signed(moved, OURS, SOURCE) == (received(one) == received(other))


@given(packets, st.binary(max_size=PROOFS_BYTES))
def test_who_has_no_secret_proves_nothing(packet: Packet, proofs: bytes) -> None:
    assert not is_signed(received(replace(packet, proofs=proofs)), SECRETS, SOURCE)


@pytest.mark.parametrize("field", ["nonce", "port", "identity", "name", "version", "python"])
def test_each_field_of_an_answer_is_proven(field: str) -> None:
    here = Here("a" * 32, "bench", 51348, bytes(NONCE_BYTES), "5.0.0", "3.11")
    arrived = received(signed(here, OURS, SOURCE))
    changed = {"nonce": b"\1" * NONCE_BYTES, "port": 51349}.get(field, "other")
    assert is_signed(arrived, OURS, SOURCE)
    assert not is_signed(replace(arrived, **{field: changed}), OURS, SOURCE)


@given(pings, st.text(), st.text(), st.text())
def test_an_answer_is_proven_by_the_secret_of_the_ping_and_never_larger(
    ping: Ping, identity: str, name: str, version: str
) -> None:
    def sign(here: Here, asked: Ping, address: str) -> Here:
        return signed_answer(here, asked, [*OTHERS, *OURS], SOURCE)

    here = Here(f"i{identity}" * 5, name * 5, 51348, b"", version * 5, version * 5)
    for packet, size in ((signed(ping, OURS), PROOF_BYTES), (ping, 0)):
        wire = answer(
            encode_packet(replace(packet, port=0)) if not size else encode_packet(packet),
            replace(here, port=ping.port or 1), "10.0.0.9", AnswerLimit(), 0.0, sign,
        )  # fmt: skip
        assert wire is not None
        assert len(wire) <= PING_BYTES
        said = decode_packet(wire)
        assert isinstance(said, Here)
        assert len(said.proofs) == size
        assert is_signed(said, OURS, SOURCE) == bool(size)


def test_an_announcement_of_any_size_arrives() -> None:
    here = Here("i" * 200, "\U0001f600" * 90, 65535, b"", "v" * 200, "p" * 200)
    wire = encode_packet(signed(here, SECRETS, SOURCE))
    assert len(wire) <= PACKET_BYTES
    assert is_signed(decode_packet(wire), SECRETS[-1:], SOURCE)


def test_how_many_secrets_there_are_does_not_show() -> None:
    ping = Ping(bytes(NONCE_BYTES))
    sizes = {len(signed(ping, SECRETS[:count]).proofs) for count in range(1, SECRETS_LIMIT + 1)}
    assert sizes == {PROOFS_BYTES}
