"""Shows to a node that this program has a content, so that it need not be sent once more.

The node that asks makes up the key. One content at a time is read, in threads and piece by piece,
and each for a few times only: a node cannot keep a program at work with it.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import gevent

from dispy.model.errors import DispyError
from dispy.net.link import Link
from dispy.net.threads import in_thread
from dispy.protocol.frames import FrameRefused
from dispy.protocol.messages import Kind
from dispy.shipping.contents import DIGEST_SIZE, PIECE_SIZE, Content
from dispy.shipping.possession import NONCE_SIZE, new_proof

if TYPE_CHECKING:
    from hashlib import blake2b

ASKED_LIMIT = 256  # PROVEs of one node that wait here; ours has 8 on their way
TIMES = 4  # that one content is read on one link; ours asks again where it has gone meanwhile


class Prover:
    """Answers one node on one link; `find` returns what there is under a digest for it."""

    def __init__(self, link: Link, find: Callable[[bytes], Content | None]) -> None:
        self.link, self._find = link, find
        self._asked: deque[tuple[bytes, bytes]] = deque()
        self._times: dict[bytes, int] = {}
        self._answering = False

    def prove(self, digest: bytes, nonce: bytes) -> None:
        """Take a PROVE; raises FrameRefused for one that no node of ours sends."""
        if len(digest) != DIGEST_SIZE or len(nonce) != NONCE_SIZE:
            raise FrameRefused("a PROVE whose digest or key has not the length that it should have")
        if len(self._asked) >= ASKED_LIMIT:
            raise FrameRefused(f"more than {ASKED_LIMIT} PROVEs at once")
        self._asked.append((digest, nonce))
        if not self._answering:
            self._answering = True
            gevent.spawn(self._answer_all)

    def _answer_all(self) -> None:
        try:
            while self._asked and not self.link.closed:
                digest, nonce = self._asked.popleft()
                self.link.send(Kind.PROVEN, [digest, nonce, self._proof(digest, nonce)])
                self.link.wait_sent()
        finally:
            self._answering = False

    def _proof(self, digest: bytes, nonce: bytes) -> bytes:
        """Return the proof; nothing where there is none, and the node has to ask for the content
        itself, with whose pieces it hears why it cannot have it."""
        content, times = self._find(digest), self._times.get(digest, 0)
        if content is None or times >= TIMES:
            return b""
        self._times[digest] = times + 1
        proof = new_proof(nonce)
        try:
            for offset in range(0, content.size, PIECE_SIZE):
                if self.link.closed:
                    return b""
                in_thread(_add, proof, content, offset)
        except DispyError:
            return b""
        return proof.digest()


def _add(proof: "blake2b", content: Content, offset: int) -> None:
    """In a thread: add the next piece; raises ContentLost."""
    proof.update(content.read(offset, PIECE_SIZE))
