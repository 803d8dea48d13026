"""States in which a connection to a node may be when a peer does something wrong."""

import os

from system.hostile import SECRET, Attack, Peer

from dispy.protocol import proof
from dispy.protocol.frames import CHUNK, HEADER, SIZE, encode_head
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind

UNKNOWN = 4_000_000_000  # a number that was never given to anything


def connected(attack: Attack) -> Peer:
    return attack.connect()


def in_handshake(attack: Attack) -> Peer:
    peer = attack.connect()
    peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(40))
    return peer


def encrypted(attack: Attack) -> Peer:
    return attack.encrypted()


def in_proof(attack: Attack) -> Peer:
    peer = attack.encrypted()
    peer.send(proof.claim([SECRET], peer.keying)[:100])
    return peer


def proven(attack: Attack) -> Peer:
    return attack.proven()


def in_hello(attack: Attack) -> Peer:
    peer = attack.proven()
    peer.send(encode_head(Kind.HELLO, Hello("client", "h", "h").body())[:50])
    return peer


def welcome(attack: Attack) -> Peer:
    return attack.welcome()


def in_bulk(attack: Attack) -> Peer:
    peer = attack.welcome()
    peer.send(bulk_head(1000) + HEADER.pack(400, CHUNK, 0) + bytes(200))
    return peer


STRANGERS = [connected, in_handshake, encrypted, in_proof, proven, in_hello]
STATES = [*STRANGERS, welcome, in_bulk]


def bulk_head(*sizes: int, kind: int = Kind.OPEN, body: bytes = b"\x93\x01\xa1n\x80") -> bytes:
    """Return the head of a frame with buffers of these sizes, which need not exist."""
    return HEADER.pack(len(body), kind, len(sizes)) + b"".join(map(SIZE.pack, sizes)) + body


def still_serves(attack: Attack) -> None:
    """Fail unless the node lets a peer in and answers it."""
    peer = attack.welcome(identity=os.urandom(8).hex())
    peer.tell(Kind.LIST, [UNKNOWN, 77])
    while (frame := peer.frame()) is not None and frame.kind != Kind.LISTED:
        pass
    assert frame is not None
    assert frame.body == [77, []]
    peer.close()
