"""What a node or scheduler pulls from one owner: contents that clusters and jobs need.

It asks for pieces (FETCH) and has a few of them on their way at any time, of all that it
wants from this owner together; each is written before another is asked for, so memory stays
constant whatever the sizes. Where the link breaks, the next one goes on at the byte reached. What
is in the store already need not come if the owner shows that it has it (PROVE). Disks are read and
written by threads. Handlers never wait.
"""

from collections import deque
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from itertools import count
from typing import Any

import gevent
from gevent.event import Event

from dispy.model.accounts import Account
from dispy.model.errors import DispyError
from dispy.net.pieces import ASKED_LIMIT
from dispy.net.possession import Challenge, Possession, Source
from dispy.net.threads import in_thread
from dispy.protocol.frames import Frame, FrameRefused, Memory, Shared
from dispy.protocol.messages import Kind
from dispy.shipping.contents import DIGEST_SIZE, PIECE_SIZE
from dispy.shipping.store import Arriving, Comparing, Store

AHEAD_BYTES = 8 * PIECE_SIZE  # asked for and not yet written, of one owner
AHEAD_ANSWERS = ASKED_LIMIT // 2  # that one owner owes us
TRANSFERS = 8  # of one owner that go on at once; the others wait

Done = Callable[[str | None], None]
_users = count(1)  # of the store


class Request:
    """Somebody who waits for contents; what has come stays in the store until `done` returns."""

    def __init__(self, done: Done, digests: Collection[bytes], user: Hashable) -> None:
        self.done, self.digests, self.user = done, digests, user
        self.missing: set[bytes] = set()
        self.is_over = False  # it was told, or cancelled


class _Transfer:
    """One content on its way; it is `asked` for up to there, and has `arrived` up to there."""

    def __init__(self, digest: bytes, size: int, what: str) -> None:
        self.digest, self.size, self.what = digest, size, what
        self.requests: list[Request] = []
        self.asked = self.arrived = self.written = 0
        self.answers: deque[int] = deque()  # bytes of each FETCH that was not answered so far
        self.ahead = 0  # bytes asked for and not yet written
        self.pieces: deque[Memory] = deque()  # arrived, not yet written
        self.more = Event()
        self.failed: str | None = None  # why it goes no further
        self.challenge: Challenge | None = None  # while nothing is asked for


class Fetching:
    """Pulls from one owner into a store that all of a node share."""

    def __init__(self, owner: Source, store: Store, disk: Account | None = None) -> None:
        """disk: where what it brings into the store is counted."""
        self._owner, self._store, self._disk = owner, store, disk
        self._transfers: dict[bytes, _Transfer] = {}  # in the order in which they were wanted
        self._active: dict[bytes, _Transfer] = {}
        self._possession = Possession(store)
        self._ahead = 0  # bytes asked for and not yet written, of all
        self._unanswered = 0  # FETCHes on this link
        # Answers to come for contents that nobody wants any more, or that are wanted once again.
        self._stale: dict[bytes, deque[int]] = {}
        self.fetched_bytes = 0

    def fetch(
        self,
        wanted: Sequence[tuple[bytes, int]],
        done: Done,
        names: Mapping[bytes, str] | None = None,
    ) -> Request:
        """Have all these contents (digest, size) in the store, then call `done(None)`, perhaps
        before this returns; else `done(why)`, once. `names` are for people.

        They cannot go before `done` has returned; it holds what it needs for longer.
        """
        sizes = {digest: size for digest, size in wanted}
        request = Request(done, list(sizes), ("fetch", next(_users)))
        for digest, size in sizes.items():
            self._store.hold(digest, request.user)
            if not self.has(digest):
                request.missing.add(digest)
                transfer = self._transfers.get(digest)
                if transfer is None:
                    what = (names or {}).get(digest) or f"a value of {self._owner.name}"
                    transfer = self._transfers[digest] = _Transfer(digest, size, what)
                transfer.requests.append(request)
        if request.missing:
            self._start()
        else:
            self._finish(request, None)
        return request

    def has(self, digest: bytes) -> bool:
        """Whether a content is there for this owner, who has shown to have it; else knowing a
        digest would be enough to have jobs read what others have sent. Counts as a use of it."""
        return self._possession.has(digest) and self._store.path(digest) is not None

    def trust(self, digest: bytes) -> None:
        """Take note that the owner has shown before to have a content that is in the store."""
        self._possession.note(digest, True)

    def cancel(self, request: Request) -> None:
        """Forget a request; `done` is not called any more."""
        if not request.is_over:
            self._leave(request)
            self._finish(request, None, tell=False)
            self._start()

    def close(self) -> None:
        """Give up all: the owner is gone for good, or the node ends."""
        for transfer in list(self._transfers.values()):
            self._end(transfer)

    def _leave(self, request: Request) -> None:
        """Take a request out of the transfers that it waits for; those for nobody else end."""
        for digest in request.missing:
            transfer = self._transfers.get(digest)
            if transfer is not None and request in transfer.requests:
                transfer.requests.remove(request)
                if not transfer.requests:
                    self._end(transfer)

    def _finish(self, request: Request, why: str | None, tell: bool = True) -> None:
        request.is_over = True
        request.missing.clear()
        try:
            if tell:
                request.done(why)
        finally:
            for digest in request.digests:
                self._store.release(digest, request.user)

    # -- asking

    def link_changed(self) -> None:
        """Go on over a new link: what was on its way is asked for again."""
        for answers in self._stale.values():
            self._ahead -= sum(answers)
        self._stale.clear()
        self._unanswered = 0
        for transfer in self._active.values():
            self._count(transfer, -sum(transfer.answers))
            transfer.answers.clear()
            transfer.asked = transfer.arrived
            if transfer.challenge is not None:
                transfer.challenge.link_changed()
        self._ask()

    def _start(self) -> None:
        """Let as many go on at once as may."""
        for digest, transfer in self._transfers.items():
            if len(self._active) >= TRANSFERS:
                break
            if digest not in self._active:
                self._active[digest] = transfer
                if self._possession.may_show(digest, transfer.size):
                    transfer.challenge = Challenge(self._owner, self._store, digest)
                gevent.spawn(self._receive, transfer)
        self._ask()

    def _ask(self) -> None:
        """Ask for the next pieces, of all transfers in turn, as far as there is room for them."""
        if self._owner.link is None:
            return
        asking = True
        while asking and self._has_room:
            asking = False
            for transfer in self._active.values():
                length = min(PIECE_SIZE, transfer.size - transfer.asked)
                goes_on = transfer.failed is None and transfer.challenge is None
                if length > 0 and goes_on and self._has_room:
                    self._owner.tell(Kind.FETCH, [transfer.digest, transfer.asked, length])
                    transfer.asked += length
                    transfer.answers.append(length)
                    self._unanswered += 1
                    self._count(transfer, length)
                    asking = True

    @property
    def _has_room(self) -> bool:
        return self._ahead < AHEAD_BYTES and self._unanswered < AHEAD_ANSWERS

    def _count(self, transfer: _Transfer, size: int) -> None:
        transfer.ahead += size
        self._ahead += size

    def piece(self, frame: Frame) -> None:
        """Take a PIECE; raises FrameRefused for one that was not asked for like this."""
        key, offset, why = frame.body
        piece = frame.buffers[0]
        if key in self._stale:
            self._pass_over(key)
            return
        transfer = self._active.get(key)
        if transfer is None:
            return
        if not transfer.answers:
            raise FrameRefused(f"a PIECE at {offset} that was not asked for")
        length = transfer.answers.popleft()
        self._unanswered -= 1
        if transfer.failed is not None or why is not None:
            self._count(transfer, -length)
            transfer.failed = transfer.failed or why
            transfer.more.set()
            return
        if isinstance(piece, Shared) or offset != transfer.arrived or len(piece) != length:
            raise FrameRefused(f"a PIECE at {offset} that was not asked for")
        transfer.arrived += length
        transfer.pieces.append(piece)
        transfer.more.set()

    def _pass_over(self, key: bytes) -> None:
        """Take note of an answer that came too late."""
        answers = self._stale[key]
        self._ahead -= answers.popleft()
        self._unanswered -= 1
        if not answers:
            del self._stale[key]
        self._ask()

    def proven(self, digest: bytes, nonce: bytes, proof: bytes) -> None:
        """Take a PROVEN; nobody may want it any more."""
        transfer = self._active.get(digest)
        if transfer is not None and transfer.challenge is not None:
            transfer.challenge.answered(nonce, proof)

    # -- a greenlet for each transfer

    def _receive(self, transfer: _Transfer) -> None:
        """Write what comes until all has come, then tell whoever waits."""
        why = None
        try:
            if not self._is_shown(transfer):
                why = self._bring(transfer)
        except DispyError as error:
            why = str(error)
        except OSError as error:
            why = f"{transfer.what} cannot be stored: {error.strerror or error}"
        self._end(transfer)
        self._tell(transfer, why)
        self._start()

    def _is_shown(self, transfer: _Transfer) -> bool:
        """Whether the owner shows to have what the store has; else its pieces are asked for."""
        if transfer.challenge is None or transfer.failed is not None:
            return False
        self._possession.note(transfer.digest, False)
        met = transfer.challenge.is_met()
        transfer.challenge = None
        if met:
            self._possession.note(transfer.digest, True)
        else:
            self._ask()
        return met

    def _bring(self, transfer: _Transfer) -> str | None:
        """Write all pieces; return why not. Raises DispyError and OSError."""
        if transfer.failed is not None:
            return transfer.failed
        arriving = self._store.begin(transfer.digest, transfer.size, transfer.what, self._disk)
        try:
            self._write_all(transfer, arriving)
            if transfer.failed is not None:
                return transfer.failed
            if not arriving.is_right:
                return f"{transfer.what} changed while it was being sent"
            if self._store.outlives_power:
                in_thread(arriving.sync)
            self._store.keep(arriving)
            if self._store.outlives_power:
                in_thread(self._store.sync)
            self._possession.note(transfer.digest, True)
            return None
        finally:
            arriving.close_and_clear()

    def _write_all(self, transfer: _Transfer, arriving: Arriving | Comparing) -> None:
        while transfer.written < transfer.size and transfer.failed is None:
            if not transfer.pieces:
                transfer.more.clear()
                transfer.more.wait()
                continue
            piece = transfer.pieces.popleft()
            in_thread(arriving.write, piece)
            transfer.written += len(piece)
            self.fetched_bytes += len(piece)
            if self._active.get(transfer.digest) is transfer:
                self._count(transfer, -len(piece))
                self._ask()

    def _tell(self, transfer: _Transfer, why: str | None) -> None:
        for request in list(transfer.requests):
            if request.is_over:
                continue
            request.missing.discard(transfer.digest)
            if why is not None:
                self._leave(request)
            if why is not None or not request.missing:
                self._finish(request, why)

    def _end(self, transfer: _Transfer) -> None:
        """Take a transfer out, whole or not; its greenlet ends when its thread is done."""
        if self._transfers.get(transfer.digest) is transfer:
            del self._transfers[transfer.digest]
        if self._active.get(transfer.digest) is transfer:
            del self._active[transfer.digest]
            self._ahead -= transfer.ahead - sum(transfer.answers)
            if transfer.answers:
                self._stale.setdefault(transfer.digest, deque()).extend(transfer.answers)
        transfer.failed = transfer.failed or "it is not wanted any more"
        transfer.more.set()
        if transfer.challenge is not None:
            transfer.challenge.end()


def is_wanted(entry: Any) -> bool:
    """Say whether a peer's [digest, size] can be one."""
    return (
        isinstance(entry, (list, tuple)) and len(entry) == 2
        and type(entry[0]) is bytes and len(entry[0]) == DIGEST_SIZE
        and type(entry[1]) is int and 0 <= entry[1] < 1 << 62
    )  # fmt: skip
