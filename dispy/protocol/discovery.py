"""The datagrams by which clients and nodes find each other. Sans-I/O.

A client pings an address or a broadcast; each node that hears it answers once with HERE. A node
also says HERE unasked when it starts, and GONE when it ends. Nothing that stands in a datagram is
believed further than "look there": who a node is and whether it may be used is settled on the
link that is dialled then. Where there is a secret, `dispy.protocol.signing` proves it in each.

Layout: magic (4), version (1), kind (1), length of the body (2, network order), a msgpack body,
and zeros up to PING_BYTES in a ping, so that no answer is larger than what asked for it, and in a
HERE that nobody asked for, which a client may answer by a ping. The last field, proofs, is left out
where there is none.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgpack

from dispy.model.errors import DispyError

PING_BYTES = 512  # of every ping, and at most of an answer: passes every link unfragmented
PACKET_BYTES = 1200  # of any datagram that is looked at; a read takes one more, to see the excess
PROOFS_BYTES = 128  # at most, of all proofs of a datagram: one for each secret that is valid
NONCE_BYTES = 16  # that an answer repeats: whoever did not see the ping cannot guess them
TEXT_BYTES = 96  # of each text; longer names are cut, so that an answer fits
ANSWERS_EACH = 50  # a second to one address: many clients of one machine that start together
ANSWERS_IN_ALL = 2000  # a second: a tenth of a core, whoever asks

_HEADER = struct.Struct("!4sBBH")
_MAGIC, _VERSION = b"dspy", 1
_PING, _HERE, _GONE = 1, 2, 3


class PacketRefused(DispyError):
    """A datagram is none of ours, or breaks a rule; the text says which. It is dropped."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Which nodes are there? Those of `port`, or of any where it is 0."""

    nonce: bytes
    port: int = 0
    proofs: bytes = b""


@dataclass(frozen=True, slots=True)
class Here:
    """A node listens on `port` (TCP) of the address that this came from."""

    identity: str  # of its process, as in its hello
    name: str
    port: int
    nonce: bytes = b""  # of the ping that is answered; empty when nobody asked
    version: str = ""
    python: str = ""
    proofs: bytes = b""


@dataclass(frozen=True, slots=True)
class Gone:
    """A node ended."""

    identity: str
    proofs: bytes = b""


Packet = Ping | Here | Gone


def encode_packet(packet: Packet) -> bytes:
    """Return the datagram to send; texts that are too long are cut."""
    proofs = [packet.proofs] if packet.proofs else []
    if isinstance(packet, Ping):
        return _pack(_PING, [packet.nonce, packet.port, *proofs]).ljust(PING_BYTES, b"\0")
    if isinstance(packet, Gone):
        return _pack(_GONE, [packet.identity, *proofs])
    texts = map(_fit, (packet.identity, packet.name, packet.version, packet.python))
    wire = _pack(_HERE, [packet.nonce, packet.port, *texts, *proofs])
    return wire if packet.nonce else wire.ljust(PING_BYTES, b"\0")


def _fit(text: str) -> str:
    """Cut a text to what a datagram bears: letters that print, in TEXT_BYTES bytes."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text.encode()[:TEXT_BYTES].decode(errors="ignore")


def _pack(kind: int, body: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(body, use_bin_type=True)
    return _HEADER.pack(_MAGIC, _VERSION, kind, len(packed)) + packed


def decode_packet(data: bytes) -> Packet:
    """Return what a datagram says. Raises PacketRefused, and nothing else, for any bytes."""
    if not _HEADER.size <= len(data) <= PACKET_BYTES:
        raise PacketRefused(f"a datagram of {len(data)} bytes")
    magic, version, kind, length = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise PacketRefused("a datagram of something else")
    if version != _VERSION:
        raise PacketRefused(f"discovery version {version}; this side speaks {_VERSION}")
    if kind == _PING and len(data) < PING_BYTES:
        raise PacketRefused(f"a ping of {len(data)} bytes; an answer could be larger")
    end = _HEADER.size + length
    if end > len(data):
        raise PacketRefused("a datagram that was cut off")
    fields = _unpack(data[_HEADER.size : end])
    if kind == _PING:
        return _ping(*_shaped(fields, bytes, int))
    if kind == _HERE:
        return _here(*_shaped(fields, bytes, int, str, str, str, str))
    if kind == _GONE:
        return Gone(*_shaped(fields, str))
    raise PacketRefused(f"a datagram of kind {kind}")


def _unpack(packed: bytes) -> Any:
    try:
        return msgpack.unpackb(packed, raw=False, strict_map_key=True)
    except Exception as error:  # msgpack raises many kinds; each means the same here
        raise PacketRefused(f"a datagram's body is not msgpack: {error}") from None


def _shaped(fields: Any, *types: type) -> list[Any]:
    """Return the fields that we know, proofs last; a later version may send more of them."""
    if not isinstance(fields, list) or len(fields) < len(types):
        raise PacketRefused("a datagram with fields missing")
    known, more = fields[: len(types)], fields[len(types) :] or [b""]
    for value, wanted in zip(known, types, strict=True):
        if type(value) is not wanted:  # a bool is no port
            raise PacketRefused(f"a datagram with {type(value).__name__} for {wanted.__name__}")
        if isinstance(value, str) and (len(value) > TEXT_BYTES or not value.isprintable()):
            raise PacketRefused("a datagram with a text that is too long or not printable")
    if type(more[0]) is not bytes or len(more[0]) > PROOFS_BYTES:
        raise PacketRefused("a datagram with proofs that are none")
    return [*known, more[0]]


def _ping(nonce: bytes, port: int, proofs: bytes) -> Ping:
    if len(nonce) != NONCE_BYTES or not 0 <= port <= 65535:
        raise PacketRefused("a ping without a nonce, or for no port")
    return Ping(nonce, port, proofs)


def _here(
    nonce: bytes, port: int, identity: str, name: str, version: str, python: str, proofs: bytes
) -> Here:
    if len(nonce) not in (0, NONCE_BYTES) or not 1 <= port <= 65535 or not identity:
        raise PacketRefused("a node that says neither who nor where it is")
    return Here(identity, name, port, nonce, version, python, proofs)


class AnswerLimit:
    """Counts answers in each second, by address and in all; its memory is bounded by that."""

    def __init__(self) -> None:
        self._second = 0
        self._answers: dict[str, int] = {}
        self._in_all = 0

    def allows(self, address: str, now: float) -> bool:
        """Say whether this address may be answered once more; `now` in seconds."""
        if int(now) != self._second:
            self._second, self._answers, self._in_all = int(now), {}, 0
        if self._in_all >= ANSWERS_IN_ALL or self._answers.get(address, 0) >= ANSWERS_EACH:
            return False
        self._in_all += 1
        self._answers[address] = self._answers.get(address, 0) + 1
        return True


def answer(
    data: bytes,
    here: Here,
    address: str,
    limit: AnswerLimit,
    now: float,
    sign: Callable[[Here, Ping, str], Here] | None = None,
) -> bytes | None:
    """Return what a node answers to a datagram from `address`; None: nothing.

    sign: adds a proof to the answer, where there is a secret. Raises PacketRefused.
    """
    packet = decode_packet(data)
    if not isinstance(packet, Ping) or packet.port not in (0, here.port):
        return None
    if not limit.allows(address, now):
        return None
    said = replace(here, nonce=packet.nonce)
    wire = encode_packet(said if sign is None else sign(said, packet, address))
    assert len(wire) <= PING_BYTES, "an answer is no larger than the ping"
    return wire
