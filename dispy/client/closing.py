"""The end of one cluster: what is left of its jobs is ended, its nodes are told and clean up."""

from time import monotonic
from typing import TYPE_CHECKING

from dispy.model.statuses import Status

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster
    from dispy.client.job import DispyJob

GRACE_SECONDS = 5.0  # for the callbacks of jobs that were ended with their cluster


def close(cluster: "JobCluster", timeout: float | None, terminate: bool) -> bool | None:
    """Close a cluster as `JobCluster.close` says, in the thread of whoever closes it."""
    session = cluster._session
    session.check_process()
    if not cluster._open:
        return None
    deadline = monotonic() + (timeout or 0.0)
    if not cluster.wait(timeout) and not terminate:
        return False
    with cluster._guard:
        if not cluster._open:
            return None
        cluster._open = False
    cleaned = session.preparations.expect_cleanup(cluster) if cluster._cleans_up else None
    session.hub.call(_close, cluster)
    if cluster._terminal is not None:
        cluster._terminal.flush()
    # What is left is callbacks; one that blocks must not hold up who wants an end.
    cluster.wait(max(timeout or 0.0, GRACE_SECONDS))
    if cleaned is not None:
        left = None if timeout is None else max(0.0, deadline - monotonic())
        session.preparations.wait(cluster, cleaned, left)
    return True


def _close(cluster: "JobCluster") -> None:
    """On the hub: end the jobs that are left, then have the session forget the cluster."""
    session = cluster._session
    for each in list(cluster._put):
        each._release()
    left = cluster._unfinished()
    session.forget([job._number for job in left])
    by_status: dict[Status, list[DispyJob]] = {Status.Cancelled: [], Status.Terminated: []}
    for job in left:
        del session.jobs[job._number]
        begun = job.status != Status.Created
        by_status[Status.Terminated if begun else Status.Cancelled].append(job)
    for status, jobs in by_status.items():
        if jobs:
            cluster._end(jobs, status, "its cluster was closed", None)
    session.close(cluster)
