"""What one owner has shown to have of the contents in the store, and how it shows it.

It has sent one in full, or has met a challenge: the side with the store makes up a key, both take
the content's digest under it, and the two are the same. An owner is challenged once for each
content and arrival of that in the store, so that it cannot keep the other side at work.
"""

import os
from typing import TYPE_CHECKING, Any, Protocol

from gevent.event import Event

from dispy.net.threads import in_thread
from dispy.protocol.messages import Kind
from dispy.shipping.contents import PIECE_SIZE
from dispy.shipping.possession import CHALLENGE_SIZE, NONCE_SIZE, PROOF_SIZE, new_proof
from dispy.shipping.store import Store

if TYPE_CHECKING:
    from hashlib import blake2b

FORGOTTEN = 1000  # contents that have gone and are remembered as an owner's
POSED_LIMIT = 3  # links that may break on one challenge


class Source(Protocol):
    """An owner, as far as it is asked for contents."""

    name: str

    @property
    def link(self) -> Any:
        """The link to it; None while it is away."""

    def tell(self, kind: int, body: list[Any]) -> None:
        """Send it a message."""


class Possession:
    """Knows what one owner has; what goes from the store and comes again counts as another."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[bytes, tuple[int, bool]] = {}  # arrival, and whether it has shown it

    def has(self, digest: bytes) -> bool:
        """Whether it has shown to have a content that is in the store now."""
        arrival = self._store.arrival(digest)
        return arrival is not None and self._known.get(digest) == (arrival, True)

    def may_show(self, digest: bytes, size: int) -> bool:
        """Whether it is worth a challenge, and was not challenged before."""
        arrival = self._store.arrival(digest)
        if arrival is None or size < CHALLENGE_SIZE or size != self._store.size(digest):
            return False
        return self._known.get(digest, (0, False))[0] != arrival

    def note(self, digest: bytes, has: bool) -> None:
        """Take note of what it has, or is challenged for; what has gone is forgotten at times."""
        arrival, known, store = self._store.arrival(digest), self._known, self._store
        if arrival is not None:
            known[digest] = arrival, has
        if len(known) > 2 * store.contents + FORGOTTEN:
            here = ((each, store.arrival(each)) for each in known)
            self._known = {each: known[each] for each, n in here if n == known[each][0]}


class Challenge:
    """One content of the store that an owner is to show; the store has to hold it meanwhile."""

    def __init__(self, owner: Source, store: Store, digest: bytes) -> None:
        self._owner, self._store, self._digest = owner, store, digest
        self._nonce = b""  # empty: nothing is asked
        self._proof: bytes | None = None  # the answer; empty: the owner cannot
        self._news = Event()
        self._posed = 0
        self._begun = self._is_over = False

    def link_changed(self) -> None:
        """Ask anew: an answer on the old link is lost."""
        if self._begun:
            self._pose()

    def _pose(self) -> None:
        self._nonce, self._proof = b"", None
        if self._owner.link is not None:
            self._posed += 1
            if self._posed > POSED_LIMIT:
                self.end()
                return
            self._nonce = os.urandom(NONCE_SIZE)
            self._owner.tell(Kind.PROVE, [self._digest, self._nonce])
        self._news.set()

    def answered(self, nonce: bytes, proof: bytes) -> None:
        """Take a PROVEN; one for what is not asked any more is passed over."""
        if nonce and nonce == self._nonce and self._proof is None:
            self._proof = proof[: PROOF_SIZE + 1]
            self._news.set()

    def end(self) -> None:
        """Wait no longer: it is not met."""
        self._is_over = True
        self._news.set()

    def is_met(self) -> bool:
        """Ask, wait for the answer in the calling greenlet, and say whether it is right."""
        self._begun = True
        self._pose()
        try:
            file = in_thread(self._store.open, self._digest)
        except OSError:
            return False
        try:
            return self._compare(file)
        except OSError:
            return False
        finally:
            os.close(file)

    def _compare(self, file: int) -> bool:
        from hmac import compare_digest  # late: it brings OpenSSL

        while not self._is_over:
            nonce = self._nonce
            own = self._own_proof(file, nonce) if nonce else None
            while self._nonce is nonce and self._proof is None and not self._is_over:
                self._news.clear()
                self._news.wait()
            if self._nonce is nonce and self._proof is not None and not self._is_over:
                return own is not None and compare_digest(own, self._proof)
        return False

    def _own_proof(self, file: int, nonce: bytes) -> bytes | None:
        """Return what is right, while the owner takes it too; None once that does not matter."""
        proof, offset = new_proof(nonce), 0
        while length := in_thread(_add, proof, file, offset):
            offset += length
            if self._nonce is not nonce or self._proof == b"" or self._is_over:
                return None
        return proof.digest()


def _add(proof: "blake2b", file: int, offset: int) -> int:
    """In a thread: add the next piece of a file; return its bytes."""
    piece = os.pread(file, PIECE_SIZE, offset)
    proof.update(piece)
    return len(piece)
