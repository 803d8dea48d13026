"""Whose turn it is: the least served of those that want something, found without a scan."""

import heapq
from itertools import count
from typing import Generic, TypeVar

STALE_ENTRIES = 64  # of the heap that are tolerated beyond those that count


class Claimant:
    """One that may want a turn: `busy` says how much it has, `served` when it last got some."""

    __slots__ = ("_entry", "_listed_as", "busy", "served")

    def __init__(self) -> None:
        self.busy = 0
        self.served = 0
        self._entry = 0  # of the heap that counts; 0: it wants nothing
        self._listed_as = (0, 0)  # `busy` and `served` in that entry


Claims = TypeVar("Claims", bound=Claimant)


class Turns(Generic[Claims]):
    """Those that want a turn, in a heap whose entries are voided by change."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, int, Claims]] = []
        self._entries = count(1)
        self.wanting = 0  # how many there are

    def update(self, claimant: Claims, wants: bool) -> None:
        """Call when what it wants, has, or had last is another now; O(log n)."""
        listed = claimant._entry > 0
        if not wants:
            if listed:
                claimant._entry = 0
                self.wanting -= 1
            return
        has = claimant.busy, claimant.served
        if listed and claimant._listed_as == has:
            return
        self.wanting += not listed
        claimant._entry, claimant._listed_as = next(self._entries), has
        heapq.heappush(self._heap, (*has, claimant._entry, claimant))
        if len(self._heap) > STALE_ENTRIES + 4 * self.wanting:
            self._heap = [e for e in self._heap if e[2] == e[3]._entry]
            heapq.heapify(self._heap)

    def first(self) -> Claims | None:
        """Return whose turn it is: it has the least, and of equals waits longest."""
        heap = self._heap
        while heap:
            claimant = heap[0][3]
            if heap[0][2] == claimant._entry:
                return claimant
            heapq.heappop(heap)
        return None
