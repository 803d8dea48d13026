"""What befell jobs out of the ordinary, until they are final. Plain jobs cost nothing."""

from collections.abc import Iterable, Sequence

from dispy.scheduling.records import Cluster, JobNumber, Story

STORY_LINES = 5  # the last ones, of each job
STORIES = 10_000  # jobs of a cluster of which one is kept


def remember(cluster: Cluster, jobs: Sequence[JobNumber], what: str, now: float) -> None:
    """Add a line to the stories of jobs."""
    for job in jobs:
        if job in cluster.stories or len(cluster.stories) < STORIES:
            before: Story = cluster.stories.get(job, ())
            cluster.stories[job] = (*before[1 - STORY_LINES :], (now, what))


def has_notes(cluster: Cluster) -> bool:
    """Say whether `forget` may find anything: not of plain jobs that nothing befell."""
    return bool(
        cluster.pinned or cluster.stories or cluster.widths or cluster.own_retries
        or cluster.attempts or cluster.cancelling or cluster.priorities
    )  # fmt: skip


def forget(cluster: Cluster, jobs: Iterable[JobNumber]) -> None:
    """Drop what is known of final jobs."""
    for job in jobs:
        cluster.pinned.pop(job, None)
        cluster.stories.pop(job, None)
        cluster.widths.pop(job, None)
        cluster.own_retries.pop(job, None)
        cluster.priorities.pop(job, None)
        cluster.attempts.pop(job, None)
        cluster.deaths.pop(job, None)
        cluster.cancelling.pop(job, None)
