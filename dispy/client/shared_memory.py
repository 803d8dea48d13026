"""Memory that a program shares with nodes of its own machine: large arguments, large results.

Arguments go into segments of a pool; results are views of segments that belong to the node,
which is told when nobody looks at one any more.
"""

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from dispy.protocol.messages import Payload
from dispy.shipping.sharing import give_back, mapped, share
from dispy.system.segments import MappedSegments, SegmentPool

if TYPE_CHECKING:
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")


class SharedMemory:
    """What a session has of it; on the hub, except for `share`."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.segments = SegmentPool()  # for large arguments
        self._mapped = MappedSegments(self._released)
        self._unseen: deque[int] = deque()  # tokens of results that nobody looks at

    def share(self, payload: Payload) -> Payload:
        """Return a call with its large arguments in segments; in its submitter's thread."""
        return share(payload, self.segments)

    def give_back(self, payload: Payload | None, held: Any) -> None:
        """Take the segments of a finished call, except those whose tokens are still `held`."""
        give_back(payload, held, self.segments)

    def map_result(self, result: Payload) -> Payload:
        """Return a result with views of this program's memory in it; released with these."""
        try:
            return mapped(result, self._mapped)[0]
        except (OSError, ValueError) as error:  # no descriptors or address space are left
            logger.error("a result in shared memory cannot be mapped: %s", error)
            return b""

    def _released(self, token: int) -> None:
        """In any thread, perhaps inside the garbage collector: so nothing here may lock."""
        self._unseen.append(token)
        self._session.hub.post(self._release)

    def _release(self) -> None:
        tokens = [self._unseen.popleft() for _ in range(len(self._unseen))]
        if tokens and self._session.has_scheduler:
            scheduler = self._session.scheduler
            for node in scheduler.nodes.values():
                if node.link is not None and node.link.shares_memory:
                    scheduler.release(node, tokens)
