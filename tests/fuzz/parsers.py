"""What parses bytes of a peer and holds nothing else: each may refuse, and do nothing else."""

import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from fuzz import messages
from fuzz.choices import Choices

from dispy.model.credentials import Secret
from dispy.model.errors import DispyError
from dispy.model.limits import check_limits
from dispy.net.fetching import is_wanted
from dispy.node.limits import wants_watch
from dispy.node.offer import why_not
from dispy.protocol import discovery, proof
from dispy.protocol.frames import Frame, FrameDecoder, FrameRefused, Shared, attach_sources
from dispy.protocol.handshake import accept_hello, hello_decoder
from dispy.protocol.messages import SHAPES, Kind, check, join_payloads
from dispy.protocol.tables import is_shallow
from dispy.shipping.files import check as check_manifest
from dispy.shipping.files import why_not_inside
from dispy.worker.channel import Channel, EndOfChannel
from dispy.worker.journal import make_journal, read_journal, running_job

SECRET = Secret("dispy-" + "s" * 43, "the fuzzer")
KEYING = b"k" * proof.KEYING_BYTES
BULK_BYTES = 1 << 20  # so that a size that is only declared does not make the fuzzer slow
SENTENCE = 3000  # letters that a refusal may have
ALL_KINDS = [kind for kind in Kind if kind in SHAPES]


def use(frame: Frame) -> None:
    """Do with a frame what whoever reads a link does, before anything looks into it."""
    checked = check(frame)
    for at, part in enumerate(SHAPES[frame.kind]):
        if type(part) is list and bytes in part:
            payloads = join_payloads(checked.body[at], checked.buffers)
            assert len(payloads) == len(checked.body[at])
            assert all(len(payload) >= 0 for payload in payloads)
    if frame.kind == Kind.PROVISIONAL:
        join_payloads([checked.body[3]], checked.buffers)


def _decode(decoder: FrameDecoder, wire: bytes, choices: Choices) -> None:
    """Feed in portions, some of them straight to where they belong."""
    rest = memoryview(wire)
    while rest:
        at_first = len(wire) - len(rest) < 300
        size = choices.of([1, 3, 7, 100, 4096, len(rest)] if at_first else [len(rest), 5000])
        space = decoder.space()
        if space is not None and choices.below(2):
            size = min(size, len(space), len(rest))
            space[:size] = rest[:size]
            decoder.filled(size)
        else:
            size = min(size, len(rest))
            decoder.feed(rest[:size])
        rest = rest[size:]
        while (frame := decoder.next_frame()) is not None:
            attach_sources(frame, deque([object()]))
            assert not any(isinstance(b, Shared) and b.source is None for b in frame.buffers)
            use(frame)


def refused(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns, None where it refuses in a sentence."""
    try:
        return call(*arguments)
    except DispyError as refusal:
        sentence = str(refusal)
    assert 0 < len(sentence) < SENTENCE, "a refusal is a sentence"
    return None


def fuzz_decoder(data: bytes) -> None:
    """Raw bytes, as a proven peer sends them, or one that has not said hello."""
    choices = Choices(data)
    decoder = hello_decoder() if choices.below(2) else FrameDecoder(bulk_limit=BULK_BYTES)
    splits = Choices(choices.raw(choices.below(16)))
    refused(_decode, decoder, choices.rest(), splits)


def fuzz_frames(data: bytes) -> None:
    """Frames of every kind, one byte of which may be another one."""
    choices = Choices(data)
    wire = bytearray()
    for _ in range(1 + choices.below(3)):
        wire += messages.frame(choices, ALL_KINDS)
    for _ in range(choices.below(3)):
        wire[int.from_bytes(choices.raw(2), "big") % len(wire)] = choices.byte()
    decoder = FrameDecoder(bulk_limit=BULK_BYTES)
    refused(_decode, decoder, bytes(wire), choices)


def fuzz_hello(data: bytes) -> None:
    """A first message; what is accepted has the types that it should have."""
    choices = Choices(data)
    role = choices.of(["node", "client"])
    wire = messages.hello(choices, choices.of(["node", "client", "x"]), messages.IDENTITIES[0])
    decoder = hello_decoder()
    decoder.feed(wire + choices.rest())
    frame = refused(decoder.next_frame)
    hello = refused(accept_hello, frame, role) if frame is not None else None
    if hello is not None:
        for name in ("role", "identity", "name", "version", "python", "platform"):
            text = getattr(hello, name)
            assert isinstance(text, str)
            assert text.isprintable()
        assert isinstance(hello.details, dict)


def fuzz_discovery(data: bytes) -> None:
    """A datagram at a node, and at a client; an answer is no larger than what asked for it."""
    choices = Choices(data)
    here = discovery.Here("1" * 32, "n", 51348)
    packets = [
        discovery.Ping(b"n" * 16, choices.whole() % 65536), here,
        discovery.Gone("1" * 32),
    ]  # fmt: skip
    packet = bytearray(discovery.encode_packet(choices.of(packets)))
    for _ in range(choices.below(4)):
        packet[choices.below(len(packet) if len(packet) < 256 else 256)] = choices.byte()
    for wire in (bytes(packet), data):
        with suppress(discovery.PacketRefused):
            limit = discovery.AnswerLimit()
            said = discovery.answer(wire, here, "127.0.0.1", limit, 1.0)
            assert said is None or len(said) <= len(wire)


def fuzz_proof(data: bytes) -> None:
    """Claims, answers and verdicts prove nothing, of any size and content."""
    choices = Choices(data)
    wire = b"dspy\x01" * choices.below(2) + choices.rest()
    for message in (wire, wire[: proof.CLAIM_BYTES].ljust(proof.CLAIM_BYTES, b"x")):
        said, proven = proof.answer(message, [SECRET], KEYING)
        assert not proven
        assert len(said) == proof.ANSWER_BYTES
    for size in (len(wire), proof.ANSWER_BYTES):
        assert not proof.is_proven(wire[:size].ljust(size, b"x"), [SECRET], KEYING)
    for message in (wire, wire[: proof.VERDICT_BYTES].ljust(proof.VERDICT_BYTES, b"\0")):
        fault, _ = proof.read_verdict(message)
        assert fault.isprintable()


def fuzz_settings(data: bytes) -> None:
    """What a node reads in tables: limits, needs, manifests, whether it can run it at all."""
    choices = Choices(data)
    limits = messages.table(choices, messages.LIMITS)
    options, opening = messages.table(choices, messages.RUN), messages.table(choices, messages.OPEN)
    entries, anything = messages.manifest(choices), choices.anything()
    if not is_shallow([limits, options, opening, anything, entries]):
        return  # no message with such a table gets so far
    refused(check_limits, limits)
    refused(check_limits, anything)
    refused(wants_watch, options)
    is_wanted(anything)
    why_not("node", choices.text(), opening)
    for said in (entries, anything):
        for entry in refused(check_manifest, said, choices.of([0, 10, 10**6])) or ():
            inside = os.path.normpath(os.path.join("/w", entry.path))
            assert inside.startswith("/w/"), "a file would lie outside"
    why_not_inside(choices.rest().decode(errors="ignore"))


def fuzz_channel(data: bytes) -> None:
    """The socket between a node and a worker, as the worker reads it."""
    choices = Choices(data)
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        ours.setblocking(False)
        channel = Channel(theirs)
        channel._decoder._bulk_limit = BULK_BYTES
        wire = messages.frame(choices, ALL_KINDS) + choices.rest()
        ours.send(wire[:100_000])
        ours.shutdown(socket.SHUT_WR)
        with suppress(EndOfChannel, FrameRefused):
            while True:
                use(channel.receive())


def fuzz_journal(data: bytes) -> None:
    """The journal of a dead worker, into which its job wrote what it liked."""
    choices = Choices(data)
    descriptor = make_journal()
    try:
        used = choices.of([len(data), 60, 0, 2**32 - 1])
        head = choices.raw(8).ljust(8, b"\0") + bytes(4) + used.to_bytes(4, "little")
        os.pwrite(descriptor, head + choices.rest(), 0)
        running_job(descriptor)
        _, columns = read_journal(descriptor)
        with suppress(FrameRefused):
            check(Frame(Kind.DONE, columns))
    finally:
        os.close(descriptor)
