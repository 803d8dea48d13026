"""What comes with a result beside its value: its failure, its output, memory it still holds."""

from typing import Any

from dispy.client.hints import with_hint
from dispy.client.job import DispyJob
from dispy.client.shared_memory import SharedMemory
from dispy.model.statuses import Status


def take_extra(job: DispyJob, extra: dict[str, Any], node: str, memory: SharedMemory) -> None:
    """Take what is not the plain case of a result into its job; on the hub.

    `node` is the name of the node that ran it.
    """
    job.stdout = extra.get("stdout", job.stdout)
    job.stderr = extra.get("stderr", job.stderr)
    exception = extra.get("exception")
    if isinstance(exception, str):
        job.exception = with_hint(exception, node)
    error = extra.get("error")
    if isinstance(error, bytes):
        job._error = error
    job.status = Status(extra.get("status", Status.Finished))
    if "held" in extra:
        memory.give_back(job._payload, extra["held"])
    if "forking" in extra and job._cluster is not None:
        job._cluster._isolation.took(extra["forking"])
