"""How a program proves that a cluster is its own to attach to: it knows the name and the key.

Neither the key nor what is said on the wire is kept by a scheduler: from what is in its files
nobody can attach. A key that can be guessed can be guessed by whoever may connect; a random one
of 128 bits cannot.
"""

import os
from hashlib import blake2b
from typing import Any

from dispy.protocol.frames import FrameRefused

CLAIM_BYTES = 32
KEPT_BYTES = 16
_PURPOSE = b"dispy cluster"  # 16 bytes at most, in which a digest of ours differs from any other


def random_key() -> str:
    """Return a key that nobody guesses."""
    return os.urandom(16).hex()


def claim_of(name: str, key: str) -> bytes:
    """Return what a program says instead of a key, so that this stays with it."""
    secret = blake2b(key.encode(), digest_size=CLAIM_BYTES, person=_PURPOSE).digest()
    return blake2b(name.encode(), key=secret, digest_size=CLAIM_BYTES, person=_PURPOSE).digest()


def kept_of(claim: bytes) -> str:
    """Return what a scheduler keeps of a claim."""
    return blake2b(claim, digest_size=KEPT_BYTES, person=_PURPOSE).hexdigest()


def said_in(details: dict[str, Any]) -> bytes | None:
    """Return the claim in the details of a HELLO; raises FrameRefused for one that is none."""
    claim = details.get("claim")
    if claim is None:
        return None
    if not isinstance(claim, bytes) or len(claim) != CLAIM_BYTES:
        raise FrameRefused("HELLO has a claim that is none")
    return claim
