"""Jobs come into their cluster's lanes, by width, and leave them, and the nodes that had them."""

from collections.abc import Iterable, Mapping, Sequence

from dispy.scheduling.queues import NOBODY, JobTurn, by_priority
from dispy.scheduling.records import Allocation, Cluster, JobNumber, Lane

NONE_DIFFERS: Mapping[JobNumber, int] = {}


def note_widths(cluster: Cluster, widths: Mapping[JobNumber, int]) -> bool:
    """Take note of jobs that differ from their cluster; say whether some width is new to it."""
    cluster.widths.update({job: w for job, w in widths.items() if w != cluster.width})
    fresh = set(widths.values()) - cluster.lanes.keys()
    for width in fresh:
        cluster.add_lane(width)
    return bool(fresh)


def note_priorities(cluster: Cluster, priorities: Mapping[JobNumber, int]) -> None:
    """Take note of jobs that go before others of their cluster, or after them."""
    cluster.priorities.update({job: p for job, p in priorities.items() if p})


def enqueue(cluster: Cluster, jobs: Sequence[JobNumber]) -> None:
    """Queue jobs behind the others of their priority."""
    for lane, mine in _by_lane(cluster, jobs):
        for priority, each in by_priority(mine, cluster.priorities):
            lane.of(priority).extend(each)
        lane.queued.update(mine)


def enqueue_first(cluster: Cluster, jobs: Sequence[JobNumber]) -> None:
    """Queue jobs before the others of their priority."""
    for lane, mine in _by_lane(cluster, jobs):
        for priority, each in by_priority(mine, cluster.priorities):
            lane.of(priority).extendleft(reversed(each))
        lane.queued.update(mine)


def first_of(lanes: Sequence[Lane]) -> JobTurn:
    """Return the turn of the first job of these lanes, which the first of them has."""
    return lanes[0].turn if lanes else NOBODY


def take(lane: Lane, count: int, until: JobTurn | None = None) -> list[JobNumber]:
    """Take the first `count` jobs of a lane, those before `until`, passing over cancelled ones."""
    queue, queued = lane.queue, lane.queued
    if len(queue) == len(queued) and until in (None, NOBODY) and not lane.lower:
        # (There are no cancelled ones.)
        jobs = [queue.popleft() for _ in range(min(count, len(queue)))]
        queued.difference_update(jobs)
        return jobs
    jobs = []
    while len(jobs) < count and queued:
        job = lane.head
        if until is not None and lane.turn >= until:
            break
        lane.queue.popleft()
        queued.discard(job)
        jobs.append(job)
    return jobs


def take_pinned(allocation: Allocation, count: int) -> list[JobNumber]:
    """Take the first `count` jobs that are pinned there, passing over cancelled ones."""
    jobs: list[JobNumber] = []
    pinned = allocation.pinned
    while len(jobs) < count and allocation.pinned_waiting:
        if not pinned.queue:
            pinned.go_on()
            continue
        job = pinned.queue.popleft()
        if allocation.cluster.pinned.get(job) is allocation:
            allocation.pinned_waiting -= 1
            jobs.append(job)
    return jobs


def take_from_node(allocation: Allocation, jobs: Iterable[JobNumber]) -> None:
    """Take note that jobs are on their node no more."""
    cluster = allocation.cluster
    for job in jobs:
        del cluster.placed[job], allocation.jobs[job]
    if cluster.widths:
        allocation.note_widths(jobs, -1)


def _by_lane(cluster: Cluster, jobs: Sequence[JobNumber]) -> list[tuple[Lane, Sequence[JobNumber]]]:
    """Return jobs by the lane that they belong to, in order."""
    if not cluster.widths:
        return [(cluster.lanes[cluster.width], jobs)]
    lanes: dict[int, list[JobNumber]] = {}
    for job in jobs:
        lanes.setdefault(cluster.width_of(job), []).append(job)
    return [(cluster.lanes[width], mine) for width, mine in lanes.items()]
