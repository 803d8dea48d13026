"""Which jobs run again after the process, or the node, that ran them has ended; and which node
is blamed where job after job fails. A part of the scheduling core, and as pure.

A job that takes down worker after worker is stopped after so many runs instead of wandering
through the cluster. A node on which jobs fail at once, while they succeed elsewhere, gets no more.
"""

from collections.abc import Sequence

from dispy.scheduling.records import Allocation, Cluster, JobNumber

DEATHS = 3  # runs in all of a reentrant cluster's job whose process died in each of them
BLAMED_AFTER = 10  # jobs in a row that failed on a node
AT_ONCE_SECONDS = 1.0  # that each of them took at most, on average


def may_run_again(cluster: Cluster, job: JobNumber, lost_node: bool) -> bool:
    """Say whether a job whose run was cut short may be run once more.

    lost_node: with its node, not by the end of its own process. A reentrant cluster's job follows
    its nodes without end; what is said by `retries` counts both. Nobody wants another run of what
    is being cancelled.
    """
    if job in cluster.cancelling:
        return False
    most = cluster.own_retries.get(job, cluster.retries)
    if most is not None:
        return cluster.attempts.get(job, 0) < most
    if not cluster.reentrant or lost_node:
        return cluster.reentrant
    return cluster.deaths.get(job, 0) < DEATHS - 1


def note_attempts(cluster: Cluster, jobs: Sequence[JobNumber]) -> None:
    """Count runs that were cut short, of jobs that run again."""
    for job in jobs:
        cluster.attempts[job] = cluster.attempts.get(job, 0) + 1


def note_death(cluster: Cluster, job: JobNumber) -> None:
    """Count a run that was cut short by the end of its own process, of a job that runs again."""
    note_attempts(cluster, [job])
    cluster.deaths[job] = cluster.deaths.get(job, 0) + 1


def blame(
    allocation: Allocation, failed: int, succeeded: int, seconds: float | None, reason: str
) -> str | None:
    """Count results of a node; return why it is set aside, None: it is not.

    seconds: that these jobs ran on average; None: none ran. reason: of the last failure.
    """
    if succeeded or (seconds is not None and seconds > AT_ONCE_SECONDS):
        allocation.worked, allocation.failed_in_a_row = allocation.worked or succeeded > 0, 0
        return None
    before = allocation.failed_in_a_row // BLAMED_AFTER
    allocation.failed_in_a_row += failed
    if allocation.failed_in_a_row // BLAMED_AFTER == before:
        return None  # nothing that was not looked at
    others = allocation.cluster.allocations.values()
    if not any(other.worked and not other.failed_in_a_row for other in others):
        return None  # they fail everywhere: it is not the node
    return (
        f"it was set aside: {allocation.failed_in_a_row} jobs in a row failed there at once, "
        f"and do not elsewhere. The last one: {reason}"
    )
