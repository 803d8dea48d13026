"""Whose memory an owner looks at: results in shared segments, until it has released them."""

from collections.abc import Sequence

from dispy.execution.records import OwnerId
from dispy.net.link import Link
from dispy.protocol.frames import Buffer, Shared
from dispy.protocol.messages import Kind


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
