"""The life of a job: its statuses, and which may follow which.

The numbers are those of dispy 4: jobs and nodes share one number space, because a
`cluster_status` callback gets either kind and compares it with both.
"""

from enum import IntEnum


class Status(IntEnum):
    """What a job or a node is doing; a plain int to programs written for dispy 4."""

    Initialized = 4
    Created = 5
    Running = 6
    ProvisionalResult = 7
    Cancelled = 8
    Terminated = 9
    Abandoned = 10
    Finished = 11
    Closed = 16
    AvailInfo = 17


FINAL = frozenset({Status.Cancelled, Status.Terminated, Status.Abandoned, Status.Finished})

# A retry or a call-back returns a job from Running to Created; a final status is never left.
_FROM_RUNNING = FINAL | {Status.Created, Status.ProvisionalResult}
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.Created: FINAL | {Status.Running},
    Status.Running: frozenset(_FROM_RUNNING),
    Status.ProvisionalResult: frozenset(_FROM_RUNNING | {Status.Running}),
    **{status: frozenset() for status in FINAL},
}


def may_follow(before: Status, after: Status) -> bool:
    """Say whether a job in `before` may next be in `after`; False for a node's statuses."""
    return after in TRANSITIONS.get(before, frozenset())
