"""Jobs come into their cluster's lanes, by width, and leave the nodes that had them."""

from collections.abc import Iterable, Mapping, Sequence

from dispy.scheduling.records import Allocation, Cluster, JobNumber, Lane

NONE_DIFFERS: Mapping[JobNumber, int] = {}


def note_widths(cluster: Cluster, widths: Mapping[JobNumber, int]) -> bool:
    """Take note of jobs that differ from their cluster; say whether some width is new to it."""
    cluster.widths.update({job: w for job, w in widths.items() if w != cluster.width})
    fresh = set(widths.values()) - cluster.lanes.keys()
    for width in fresh:
        cluster.add_lane(width)
    return bool(fresh)


def enqueue(cluster: Cluster, jobs: Sequence[JobNumber]) -> None:
    """Queue jobs behind the others."""
    for lane, mine in _by_lane(cluster, jobs):
        lane.queue.extend(mine)
        lane.queued.update(mine)


def enqueue_first(cluster: Cluster, jobs: Sequence[JobNumber]) -> None:
    """Queue jobs before the others."""
    for lane, mine in _by_lane(cluster, jobs):
        lane.queue.extendleft(reversed(mine))
        lane.queued.update(mine)


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
