"""Files that jobs send to their owner: offered to it, read as it asks, until it has taken them.

A worker hands in the open file, and a socket on which it waits for the answer; when that
socket ends, the worker has given up or is gone, and so is the offer. An owner that comes back
after a broken link is offered the files again, and goes on where it was.
"""

import os
import stat
from collections import deque
from dataclasses import dataclass
from typing import Any

import gevent
from gevent import socket

from dispy.execution.records import Key
from dispy.net.link import Link
from dispy.node.owners import Owner
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.messages import Kind
from dispy.system.segments import Descriptor

PIECE_BYTES = 4 * 1024 * 1024  # of a file in one frame, whatever is asked for
OFFERS_LIMIT = 256  # files of one owner at once; each costs two descriptors
ASKED_LIMIT = 8 * OFFERS_LIMIT  # FETCHes of one owner that wait here; it has 4 for each file


@dataclass(slots=True)
class _Offer:
    owner: Owner
    computation: int
    job: int
    table: dict[str, Any]  # what its owner is told of it
    file: Descriptor
    state: tuple[int, int]  # its size and time of change when it was offered
    worker: Link  # where the answer is waited for


class Offers:
    """All files that are on their way from this node; `limit` is of their size, 0: none."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._offers: dict[bytes, _Offer] = {}
        self._asked: dict[Link, deque[tuple[bytes, int, int]]] = {}  # FETCHes, in their order

    def take(self, owner: Owner, key: Key, frame: Frame, received: list[Descriptor]) -> None:
        """Offer a job's file to its owner; `received` are the file, and where to answer."""
        job, said = frame.body
        file, answers = received
        status = os.fstat(file.descriptor)
        if not stat.S_ISSOCK(os.fstat(answers.descriptor).st_mode):
            raise FrameRefused("a FILE names no socket for its answer")
        link = Link(socket.socket(fileno=os.dup(answers.descriptor)))
        why = self._why_not(owner, status)
        if why is not None:
            link.send(Kind.TAKEN, [why])
            link.close()
            return
        name = said.get("name")
        table = {
            "name": name if isinstance(name, bytes) else b"",
            "size": status.st_size,
            "mode": stat.S_IMODE(status.st_mode),
            "modified": status.st_mtime_ns,
        }
        offer = _Offer(owner, key[1], job, table, file, _state(status), link)
        number = os.urandom(16)
        self._offers[number] = offer
        gevent.spawn(self._wait_for_end, number, offer)
        self._tell(number, offer)

    def _why_not(self, owner: Owner, status: os.stat_result) -> str | None:
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file"
        if self._limit and status.st_size > self._limit:
            return (
                f"it has {status.st_size} bytes, and this node sends {self._limit} at most "
                f"(max_file_size of the node)"
            )
        if sum(offer.owner is owner for offer in self._offers.values()) >= OFFERS_LIMIT:
            return f"{OFFERS_LIMIT} other files are being sent already"
        return None

    def _tell(self, number: bytes, offer: _Offer) -> None:
        offer.owner.tell(Kind.OFFER, [offer.computation, offer.job, number, offer.table])

    def _wait_for_end(self, number: bytes, offer: _Offer) -> None:
        offer.worker.read(lambda frame: None)  # it says nothing more
        if self._offers.pop(number, None) is not None:
            offer.owner.tell(Kind.PIECE, [number, 0, "the job has given it up"], [b""])

    def tell_again(self, owner: Owner) -> None:
        """Offer an owner that has a new link what it has not taken."""
        for number, offer in self._offers.items():
            if offer.owner is owner:
                self._tell(number, offer)

    def fetch(self, owner: Owner, number: bytes, offset: int, length: int) -> None:
        """Send an owner the piece that it asks for, when those before have left.

        Raises FrameRefused for more of them than any owner of ours sends.
        """
        assert owner.link is not None, "it was read from"
        asked = self._asked.setdefault(owner.link, deque())
        if len(asked) >= ASKED_LIMIT:
            raise FrameRefused(f"more than {ASKED_LIMIT} FETCHes at once")
        asked.append((number, offset, length))
        if len(asked) == 1:
            gevent.spawn(self._send_all, owner, owner.link, asked)

    def _send_all(self, owner: Owner, link: Link, asked: deque[tuple[bytes, int, int]]) -> None:
        while asked and not link.closed:
            self._send(owner, link, *asked[0])
            link.wait_sent()
            asked.popleft()
        del self._asked[link]

    def _send(self, owner: Owner, link: Link, number: bytes, offset: int, length: int) -> None:
        offer = self._offers.get(number)
        if offer is None or offer.owner is not owner:
            link.send(Kind.PIECE, [number, offset, "it is not offered any more"], [b""])
            return
        why, piece = None, b""
        try:
            piece = os.pread(offer.file.descriptor, max(0, min(length, PIECE_BYTES)), offset)
            if _state(os.fstat(offer.file.descriptor)) != offer.state:
                why = "it was changed while it was being sent"
        except (OSError, OverflowError, ValueError) as error:
            why = f"it cannot be read: {error}"
        link.send(Kind.PIECE, [number, offset, why], [b"" if why else piece])
        offer.worker.send(Kind.PULSE, [])  # the worker counts the time without such a sign

    def took(self, owner: Owner, number: bytes, why: str | None) -> None:
        """Tell the worker that its owner has the file, or why it has not."""
        offer = self._offers.get(number)
        if offer is not None and offer.owner is owner:
            del self._offers[number]
            offer.worker.send(Kind.TAKEN, [why])
            offer.worker.close()


def _state(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns
