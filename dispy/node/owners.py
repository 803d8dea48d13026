"""What a node keeps for one owner: its jobs' payloads, and the results it still owes.

A frame of results has a sequence number and is kept until the owner acknowledges it. A link
is mortal, this ledger is the truth: after each connection the owner gets the frames it has not
acknowledged, then the numbers of all jobs that have no result yet.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

from dispy.execution.records import OwnerId
from dispy.net.link import Link
from dispy.protocol.frames import Buffer
from dispy.protocol.messages import Kind


class Owner:
    """One client process, connected or not."""

    def __init__(self, owner_id: OwnerId, name: str) -> None:
        self.owner_id, self.name = owner_id, name
        self.link: Link | None = None
        self.pulse_seconds = 0.0  # how often it wants to hear from us; 0: no opinion
        self.gone_since = 0.0  # monotonic seconds; 0.0 while it is connected
        self._sequence = 0
        self._owed: deque[tuple[int, list[Any], Sequence[Buffer]]] = deque()

    def tell(self, kind: int, body: list[Any], buffers: Sequence[Buffer] = ()) -> None:
        """Send what needs no acknowledgement; nothing while the owner is away."""
        if self.link is not None:
            self.link.send(kind, body, buffers)

    def owe(self, computation: int, columns: list[Any], buffers: Sequence[Buffer]) -> None:
        """Send final results, and keep them until they are acknowledged."""
        self._sequence += 1
        body = [self._sequence, computation, *columns]
        self._owed.append((self._sequence, body, buffers))
        self.tell(Kind.RESULTS, body, buffers)

    def acknowledged(self, sequence: int) -> None:
        """Forget all frames up to `sequence`."""
        while self._owed and self._owed[0][0] <= sequence:
            self._owed.popleft()

    def connected(self, link: Link, jobs: list[int], computations: list[int]) -> None:
        """Take a new link: send what is owed, then what is held; an older link ends."""
        if self.link is not None:
            self.link.close()
        self.link, self.gone_since = link, 0.0
        for _, body, buffers in self._owed:
            link.send(Kind.RESULTS, body, buffers)
        link.send(Kind.HELD, [jobs, computations])
