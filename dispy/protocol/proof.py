"""How two processes prove to each other that they have the same secret. Sans-I/O.

Inside a TLS 1.3 connection whose keys nobody else has: each side sends HMAC-SHA256 over keying
material that is exported from that very connection (RFC 5705, RFC 8446 section 7.5) and over the
side it is on. So a proof is worth nothing in another connection (replay, a man in the middle who
ends TLS on both sides) nor on the other side of the same one (reflection).

The side that dialled speaks first, with one proof for each secret that it has; the listener
answers with a proof of the first of its own secrets that is among them, or with a refusal that
says nothing more. All messages have a fixed size: nothing is read whose size a stranger chooses.

Where both have certificates, which TLS has verified, each says before that what it thinks of the
other's: fine, or in words what is wrong with it (it has ended, it is for another host).
"""

import hashlib
import hmac
import os
from collections.abc import Sequence

from dispy.model.credentials import SECRETS_LIMIT, Secret

EXPORTER = b"EXPORTER-dispy-proof"  # the label of the keying material
KEYING_BYTES = 32
PROOF_BYTES = 32
_MAGIC = b"dspy\x01"
VERDICT_BYTES = 256  # what each side says of the other's certificate
_ASKS_SECRET = 1
CLAIM_BYTES = len(_MAGIC) + SECRETS_LIMIT * PROOF_BYTES  # what the dialling side sends
ANSWER_BYTES = len(_MAGIC) + PROOF_BYTES
_DIALER, _LISTENER = b"dialer", b"listener"
_REFUSAL = _MAGIC + bytes(PROOF_BYTES)


def _proof(secret: Secret, side: bytes, keying: bytes) -> bytes:
    return hmac.digest(secret.key, b"dispy proof 1 " + side + b"\0" + keying, hashlib.sha256)


def claim(secrets: Sequence[Secret], keying: bytes) -> bytes:
    """Return what the dialling side sends; how many secrets it has does not show."""
    proofs = [_proof(secret, _DIALER, keying) for secret in secrets[:SECRETS_LIMIT]]
    wire = _MAGIC + b"".join(proofs)
    return wire + os.urandom(CLAIM_BYTES - len(wire))


def answer(message: bytes, secrets: Sequence[Secret], keying: bytes) -> tuple[bytes, bool]:
    """Return what the listener sends back to a claim, and whether that proved a secret of ours.

    The time that it takes does not depend on which, or whether, a proof is right.
    """
    proven = None
    if len(message) == CLAIM_BYTES and message.startswith(_MAGIC):
        theirs = [
            message[at : at + PROOF_BYTES] for at in range(len(_MAGIC), CLAIM_BYTES, PROOF_BYTES)
        ]
        for secret in reversed(secrets):
            expected = _proof(secret, _DIALER, keying)
            matches = [hmac.compare_digest(expected, proof) for proof in theirs]
            proven = secret if any(matches) else proven
    if proven is None:
        return _REFUSAL, False
    return _MAGIC + _proof(proven, _LISTENER, keying), True


def is_proven(message: bytes, secrets: Sequence[Secret], keying: bytes) -> bool:
    """Say whether the listener's answer proves one of our secrets."""
    if len(message) != ANSWER_BYTES or not message.startswith(_MAGIC):
        return False
    proof = message[len(_MAGIC) :]
    matches = [hmac.compare_digest(_proof(secret, _LISTENER, keying), proof) for secret in secrets]
    return any(matches)


def verdict(fault: str, asks_secret: bool) -> bytes:
    """Return what a side says of the other's certificate; `fault`: what is wrong, or nothing.

    asks_secret: it wants to have a secret proven too.
    """
    said = fault.encode()[: VERDICT_BYTES - len(_MAGIC) - 1]
    wire = _MAGIC + bytes([_ASKS_SECRET if asks_secret else 0]) + said
    return wire.ljust(VERDICT_BYTES, b"\0")


def read_verdict(message: bytes) -> tuple[str, bool]:
    """Return the other side's fault that it found and whether it asks for a secret.

    A message that is none has a fault too. The text is printable, whatever came.
    """
    if len(message) != VERDICT_BYTES or not message.startswith(_MAGIC):
        return "was not answered: it closed the connection", False
    at = len(_MAGIC)
    fault = message[at + 1 :].rstrip(b"\0").decode(errors="replace")
    fault = "".join(letter if letter.isprintable() else "?" for letter in fault)
    return fault, message[at] == _ASKS_SECRET
