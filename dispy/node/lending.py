"""Large arguments and results in memory files, between a node, its workers and its owners.

An owner on the other side of a Unix socket maps the workers' segments, and releases them when it
looks at them no more. What comes from any other owner is received into segments which the
workers map, and what the workers have for it is sent from their segments: the node itself never
copies it.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from gevent import get_hub

from dispy.execution.records import OwnerId
from dispy.net.link import Link
from dispy.protocol.frames import Buffer, Frame, FrameRefused, Shared
from dispy.protocol.messages import Kind, Payload, is_beside_pickle
from dispy.shipping.sharing import give_back
from dispy.system.segments import SHARED_SIZE, MappedSegments, SegmentPool

# Descriptors are what a node may run out of, with many owners and workers.
OWNERS_SEGMENTS = 16  # in which one owner's arguments are received; others are copied
OWNERS_BYTES = 256 * 1024 * 1024  # of all of these
WORKERS_SEGMENTS = 8  # in which one worker has results for owners that do not map them


class Lending:
    """Knows to which worker each lent segment belongs. One that has ended needs no word."""

    def __init__(self) -> None:
        self._lent: dict[tuple[OwnerId, int], Link] = {}  # whom, token -> the worker's link

    def lend(self, owner_id: OwnerId, worker: Link, buffers: Sequence[Buffer]) -> None:
        """Take note of the shared ones among the buffers of a frame with results."""
        for buffer in buffers:
            if isinstance(buffer, Shared):
                self._lent[owner_id, buffer.token] = worker

    def release(self, owner_id: OwnerId, tokens: Sequence[int]) -> None:
        """Tell workers that their segments are free again; others' tokens are passed over."""
        for token in tokens:
            worker = self._lent.pop((owner_id, token), None)
            if worker is not None:
                worker.send(Kind.RELEASE, [[token]])


class Views:
    """What one worker's segments hold, as memory of the node; it is told when nobody looks."""

    def __init__(self, worker: Link) -> None:
        self._worker, self._loop = worker, get_hub().loop
        self._segments = MappedSegments(self._released)
        self._unseen: deque[int] = deque()

    def of(self, buffers: Sequence[Buffer]) -> list[Buffer]:
        """Return the buffers with views in place of segments; raises FrameRefused."""
        return [self._view(b) if isinstance(b, Shared) else b for b in buffers]

    def _view(self, shared: Shared) -> memoryview:
        try:
            view, _ = self._segments.view(shared.token, shared.size, shared.source.descriptor)
            return view.toreadonly() if shared.readonly else view
        except (OSError, ValueError) as error:
            raise FrameRefused(f"a memory file of a worker cannot be used: {error}") from None

    def _released(self, token: int) -> None:
        """In any thread, perhaps inside the garbage collector: so nothing is sent here."""
        self._unseen.append(token)
        self._loop.run_callback_threadsafe(self._release)

    def _release(self) -> None:
        tokens = [self._unseen.popleft() for _ in range(len(self._unseen))]
        if tokens:
            self._worker.send(Kind.RELEASE, [tokens])


class OwnersSegments:
    """The segments into which one owner's large arguments are received."""

    def __init__(self) -> None:
        self._pool = SegmentPool(OWNERS_SEGMENTS, OWNERS_BYTES)

    def receive(self, link: Link) -> None:
        """Have the frames of a new link of the owner received there."""
        link.receive_into(self._take)

    def _take(self, frame: Frame, size: int) -> tuple[Shared, memoryview] | None:
        if size < SHARED_SIZE or not is_beside_pickle(frame):
            return None
        lease = self._pool.lease(size)
        return None if lease is None else (Shared(lease.token, size, lease), lease.memory())

    def done(self, payload: Payload | None, extra: dict[str, Any]) -> None:
        """Take note of a job's answer: what its worker still looks at is not used again."""
        if "held" in extra:
            give_back(payload, extra["held"], self._pool)
