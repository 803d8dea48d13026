"""What a scheduler makes of results that say how jobs failed: runs anew, and nodes set aside."""

import logging
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

from dispy.model.limits import ATTEMPT_VARIABLE
from dispy.model.statuses import Status
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.owner import JobsOwner
from dispy.scheduling.actions import Action
from dispy.scheduling.core import Scheduling


class Failures:
    """Works on its scheduler's core; `perform` carries out orders about a node."""

    def __init__(
        self,
        core: Scheduling,
        owner: JobsOwner,
        perform: Callable[[Sequence[Action], RemoteNode], None],
    ) -> None:
        self._core, self._owner, self._perform = core, owner, perform

    def are_counted(self, node_id: str, cluster_id: int) -> bool:
        """Whether `take` has to hear of a cluster's successes on a node too."""
        cluster = self._core.clusters.get(cluster_id)
        allocation = None if cluster is None else cluster.allocations.get(node_id)
        return allocation is not None and (allocation.failed_in_a_row > 0 or not allocation.worked)

    def take(
        self,
        node: RemoteNode,
        cluster_id: int,
        jobs: Sequence[int],
        extras: Sequence[Sequence[Any]],
        mean: float | None,
    ) -> None:
        """Queue jobs anew whose process died, as far as they may run again; count the others.

        Call before the core's `jobs_finished`. Reasons of the others say what befell them before.
        """
        failed, reason = 0, ""
        for at, extra in extras:
            if extra.get("status") != Status.Terminated:
                continue
            reason = str(extra.get("exception"))
            if extra.get("died") is True:
                now = monotonic()
                last = _last_line(reason)
                again = self._core.job_died(node.node_id, cluster_id, jobs[at], last, now)
                self._perform(again, node)
                if again:
                    continue
                extra["exception"] = self._runs_before(cluster_id, jobs[at]) + reason
            failed += 1
        if failed or mean is not None:
            why, aside = self._core.jobs_failed(
                node.node_id, cluster_id, failed, len(jobs) - failed, mean, _last_line(reason)
            )
            if why is not None:
                text = (
                    f"node {node.name} gets no more of these jobs until `allocate_node` names "
                    f"it: {why}"
                )
                self._owner.noted(cluster_id, node, logging.WARNING, text)
            self._perform(aside, node)

    def _runs_before(self, cluster_id: int, job: int) -> str:
        """Tell of the runs that were cut short before the last one."""
        cluster = self._core.clusters.get(cluster_id)  # closed meanwhile, or made up by the node
        if cluster is None or not (count := cluster.attempts.get(job, 0)):
            return ""
        before = "".join(f"  {what}\n" for _, what in cluster.stories.get(job, ()))
        return f"it was begun {count + 1} times:\n{before}  "

    def with_attempts(
        self, cluster_id: int, jobs: Sequence[int], options: Mapping[int, dict[str, Any]]
    ) -> Mapping[int, dict[str, Any]]:
        """Return the options of jobs to be sent; those that run again are told so."""
        attempts = self._core.clusters[cluster_id].attempts
        if not attempts:
            return options
        told = {job: options[job] for job in jobs if job in options}
        for job in jobs:
            if job in attempts:
                own = told.get(job, {})
                environment = {**own.get("env", {}), ATTEMPT_VARIABLE: str(attempts[job] + 1)}
                told[job] = {**own, "env": environment}
        return told


def _last_line(reason: str) -> str:
    """Return what a reason ends with, in one line: that says most."""
    lines = reason.strip().splitlines()
    return lines[-1][:300] if lines else "no reason was given"
