"""Bulk that its reader asks for: answers FETCH with PIECE, one piece after the other.

The reader says how much may be on its way, so neither side ever holds more than a few pieces.
Files are read by a thread, so that a slow disk holds up nobody else on the loop.
"""

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

import gevent

from dispy.model.errors import DispyError
from dispy.net.link import Link
from dispy.net.threads import in_thread
from dispy.protocol.frames import FrameRefused
from dispy.protocol.messages import Kind
from dispy.shipping.contents import PIECE_SIZE, Content

logger = logging.getLogger("dispy.net")

ASKED_LIMIT = 256  # FETCHes of one peer that wait here; a reader has 8 on their way
PROGRESS_SECONDS = 3.0  # of one transfer, before and between the lines that tell of it


class PieceSender:
    """Answers one peer on one link; `find` returns what there is under a key."""

    def __init__(self, link: Link, find: Callable[[bytes], Content | None], peer: str) -> None:
        self.link, self._find, self._peer = link, find, peer
        self._asked: deque[tuple[bytes, int, int]] = deque()
        self._sending = False
        self._progress: dict[bytes, _Progress] = {}
        self.sent_bytes = 0

    def fetch(self, key: bytes, offset: int, length: int) -> None:
        """Take a FETCH; raises FrameRefused for one that no reader of ours sends."""
        if offset < 0 or not 0 < length <= PIECE_SIZE:
            raise FrameRefused(f"a FETCH of {length} bytes at {offset}; a piece has {PIECE_SIZE}")
        if len(self._asked) >= ASKED_LIMIT:
            raise FrameRefused(f"more than {ASKED_LIMIT} FETCHes at once")
        self._asked.append((key, offset, length))
        if not self._sending:
            self._sending = True
            gevent.spawn(self._send_all)

    def _send_all(self) -> None:
        """Send what was asked for, each piece when the one before has left."""
        try:
            while self._asked and not self.link.closed:
                self._send(*self._asked.popleft())
                self.link.wait_sent()
        finally:
            self._sending = False

    def _send(self, key: bytes, offset: int, length: int) -> None:
        piece: bytes | memoryview = b""
        why: str | None = None
        content = self._find(key)
        try:
            if content is None:
                why = "it is not wanted any more"
            elif content.in_memory:
                piece = content.read(offset, length)
            else:
                piece = in_thread(content.read, offset, length)
        except DispyError as error:
            why = str(error)
        self.sent_bytes += len(piece)
        self.link.send(Kind.PIECE, [key, offset, why], [piece])
        if content is not None:
            self._tell_progress(content, offset + len(piece), why is not None)

    def _tell_progress(self, content: Content, sent: int, failed: bool) -> None:
        """Say how far a transfer is that takes long."""
        if failed or sent >= content.size:
            progress = self._progress.pop(content.digest, None)
            if progress is not None and progress.told and not failed:
                progress.tell(content, sent, self._peer)
            return
        progress = self._progress.setdefault(content.digest, _Progress(sent))
        if monotonic() - progress.looked >= PROGRESS_SECONDS:
            progress.tell(content, sent, self._peer)


class _Progress:
    """When a transfer began, and what was said of it."""

    __slots__ = ("_began", "_from", "looked", "told")

    def __init__(self, sent: int) -> None:
        self._began = self.looked = monotonic()
        self._from, self.told = sent, False

    def tell(self, content: Content, sent: int, peer: str) -> None:
        self.looked, self.told = monotonic(), True
        rate = (sent - self._from) / max(1e-3, self.looked - self._began)
        logger.info(
            "sending %s to %s: %d %% of %.1f MB, %.1f MB/s",
            content.name, peer, 100 * sent // max(1, content.size), content.size / 1e6, rate / 1e6,
        )  # fmt: skip
