"""Which jobs' results are on disk: they end without them, should the disk not give them back.

Else their owner would take them for jobs that never arrived, and run them a second time.
"""

from array import array
from collections import deque
from collections.abc import Sequence
from time import time
from typing import Any, NamedTuple

from dispy.model.statuses import Status
from dispy.protocol.messages import Kind

JOB_BYTES, FRAME_BYTES = 8, 200  # that are kept in memory for a job, and for a frame of results


class _Frame(NamedTuple):
    number: int
    computation: int
    jobs: "array[int] | list[int]"

    @property
    def weight(self) -> int:
        return FRAME_BYTES + JOB_BYTES * len(self.jobs)


class StoredJobs:
    """Of one owner. Methods that take or let go of memory return how many bytes."""

    def __init__(self) -> None:
        self._frames: deque[_Frame] = deque()

    def written(self, kind: int, body: Sequence[Any]) -> int:
        """Take note of a frame that is on disk now, and in memory no more."""
        if kind != Kind.RESULTS:
            return 0
        number, computation, jobs = body[:3]
        self._frames.append(_Frame(number, computation, _short(jobs)))
        return self._frames[-1].weight

    def acknowledged(self, number: int) -> int:
        """Forget frames up to this number."""
        weight = 0
        while self._frames and self._frames[0].number <= number:
            weight += self._frames.popleft().weight
        return weight

    def ends(self, after: int, last: int, why: str) -> list[list[Any]]:
        """Return bodies of RESULTS by which the jobs of frames with these numbers end, in order.

        Those that an earlier node has written are not known, nor does anybody wait for them.
        """
        now = time()
        extra = {"status": int(Status.Terminated), "exception": why}
        return [
            [
                frame.number, frame.computation, list(frame.jobs),
                [now] * len(frame.jobs), [now] * len(frame.jobs), [b""] * len(frame.jobs),
                [[at, extra] for at in range(len(frame.jobs))],
            ]
            for frame in self._frames
            if after < frame.number <= last
        ]  # fmt: skip


def _short(jobs: list[int]) -> "array[int] | list[int]":
    try:
        return array("q", jobs)
    except OverflowError:  # numbers of somebody who counts in his own way
        return list(jobs)
