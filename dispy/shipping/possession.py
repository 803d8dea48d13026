"""How one side shows that it has a content, without sending it.

It takes the content's BLAKE2b under a key that the other has just made up. Only who has all bytes
can do that: knowing their digest does not help, nor does an answer that was given before.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import blake2b

CHALLENGE_SIZE = 256 * 1024  # bytes; sending less takes about as long as asking does
NONCE_SIZE = PROOF_SIZE = 32  # bytes


def new_proof(nonce: bytes) -> "blake2b":
    """Return the proof under this key, to which the content is to be added."""
    from hashlib import blake2b  # late, as in `contents`

    return blake2b(key=nonce, digest_size=PROOF_SIZE, person=b"dispy possession")
