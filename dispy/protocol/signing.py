"""Which discovery datagrams come from somebody who has a secret of ours. Sans-I/O.

A proof is HMAC-SHA256, cut to PROOF_BYTES, over the whole packet with its kind, and over the
address that a node sends from. A datagram that was played back is worth nothing: an answer repeats
the ping's nonce and holds for one address; an announcement makes a client send a ping, to the very
address that it holds for; and a node's end is that of one process, which ends once.

Imported only by who has a secret; hashlib and hmac come with it.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from dispy.model.credentials import SECRETS_LIMIT, Secret
from dispy.protocol.discovery import Here, Packet, Ping, encode_packet

PROOF_BYTES = 16
_PURPOSE = b"dispy discovery 1"


@lru_cache(2 * SECRETS_LIMIT)
def _key(secret: Secret) -> bytes:
    """Return the key for this purpose alone; the first call may take 60 ms."""
    return hmac.digest(secret.key, _PURPOSE, hashlib.sha256)


def _proof(secret: Secret, packet: Packet, source: str) -> bytes:
    message = source.encode() + b"\0" + encode_packet(replace(packet, proofs=b""))
    return hmac.digest(_key(secret), message, hashlib.sha256)[:PROOF_BYTES]


def signed(packet: Packet, secrets: Sequence[Secret], source: str = "") -> Packet:
    """Return a packet with a proof for each secret; how many there are does not show.

    source: the address that a node sends it from; a client's pings have none.
    """
    proofs = [_proof(secret, packet, source) for secret in secrets[:SECRETS_LIMIT]]
    rest = os.urandom(PROOF_BYTES * (SECRETS_LIMIT - len(proofs)))
    return replace(packet, proofs=b"".join(proofs) + rest)


def signed_answer(here: Here, ping: Ping, secrets: Sequence[Secret], source: str) -> Here:
    """Return an answer with the proof of the first secret that the ping has proven.

    Whoever has proven none gets one without, and learns only that a node is there.
    """
    secret = _proven(ping, secrets, "")
    return here if secret is None else replace(here, proofs=_proof(secret, here, source))


def is_signed(packet: Packet, secrets: Sequence[Secret], source: str) -> bool:
    """Say whether somebody made it who has one of these secrets, to send it from this address."""
    return _proven(packet, secrets, source) is not None


def _proven(packet: Packet, secrets: Sequence[Secret], source: str) -> Secret | None:
    said = packet.proofs
    proofs = [said[at : at + PROOF_BYTES] for at in range(0, len(said), PROOF_BYTES)]
    for secret in secrets if proofs else ():
        expected = _proof(secret, packet, source)
        if any([hmac.compare_digest(expected, proof) for proof in proofs]):
            return secret
    return None
