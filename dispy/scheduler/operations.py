"""What operators order: jobs cancelled, nodes drained. Large orders are carried out in portions."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from time import monotonic

from gevent.event import Event

from dispy.model.errors import DispyError
from dispy.model.events import event
from dispy.model.statuses import Status
from dispy.scheduler.clients import Clients
from dispy.scheduler.drained import Drained
from dispy.scheduler.journal_entries import Cancelling
from dispy.scheduler.names import find_cluster, find_job, find_node, name_of_cluster
from dispy.scheduler.nodes import RemoteNode, of_node
from dispy.scheduler.service import Scheduler
from dispy.scheduling.actions import Action, GiveUp
from dispy.scheduling.records import Cluster, JobNumber

logger = logging.getLogger("dispy.scheduler")

PORTION = 500  # jobs that are cancelled in one turn of the loop: some milliseconds


class Operations:
    """Works on one scheduler, on its hub; `who` is whom those are told of whom it concerns."""

    def __init__(self, scheduler: Scheduler, clients: Clients, drained: Drained) -> None:
        self._scheduler, self._core = scheduler, scheduler._core
        self._durable, self._awaiting = clients.durable, clients.files.awaiting
        self._drained = drained

    def _carry_out(self, actions: Sequence[Action], node: RemoteNode | None = None) -> None:
        self._scheduler._perform(actions, node)
        self._scheduler._plan_pass()  # others may run in what is free by it

    # -- jobs

    def cancel(self, what: str, who: str) -> Iterator[int]:
        """Cancel a job (`3.1:17`) or all jobs of a cluster; yield how many, portion by portion.

        Each is done when the journal has it; waits for that in the calling greenlet, which lets
        others run between two portions too. Raises DispyError for what there is not.
        """
        clusters = self._core.clusters
        if ":" in what and what not in {cluster.name for cluster in clusters.values()}:
            cluster, job = find_job(what, clusters)
            jobs = [job] if self._has(cluster, job) else []
            if not jobs:
                name = name_of_cluster(cluster.cluster_id)
                raise DispyError(f"{name} ({cluster.name}) has no job {what} that is not final")
        else:
            cluster = find_cluster(what, clusters)
            jobs = [*_jobs_of(cluster), *self._awaiting.jobs_of(cluster.cluster_id)]
        why = f"cancelled by {who}"
        named = name_of_cluster(cluster.cluster_id)
        logger.info(
            "%d jobs of %s are cancelled by %s", len(jobs), cluster.name, who,
            extra=event(
                "jobs_cancelled", cluster=named, name=cluster.name, jobs=len(jobs), operator=who
            ),
        )  # fmt: skip
        for first in range(0, len(jobs), PORTION):
            mine = [job for job in jobs[first : first + PORTION] if self._has(cluster, job)]
            if mine:
                self._durable.record(Cancelling(mine))
                done = Event()
                self._durable.when_safe(partial(self._cancel, cluster, mine, why, done))
                done.wait()
            yield len(mine)

    def _cancel(self, cluster: Cluster, jobs: Sequence[JobNumber], why: str, done: Event) -> None:
        given_up, others = list[JobNumber](), list[Action]()
        for job in jobs:
            if self._awaiting.cancel(cluster.cluster_id, job, why):
                continue
            for action in self._core.cancel(cluster.cluster_id, job, why):
                # One word for all of those that are final, and have nothing to tell of.
                if isinstance(action, GiveUp) and not action.stories:
                    given_up += action.jobs
                else:
                    others.append(action)
        if given_up:
            others.append(GiveUp(cluster.cluster_id, tuple(given_up), why, Status.Cancelled))
        self._carry_out(others)
        done.set()

    def _has(self, cluster: Cluster, job: JobNumber) -> bool:
        number = cluster.cluster_id
        waits = self._core.is_queued(number, job) or self._awaiting.has(number, job)
        return waits or job in cluster.placed

    def explain(self, what: str) -> list[str]:
        """Say why a job waits, or where it is, line by line; raises DispyError."""
        cluster, job = find_job(what, self._core.clusters)
        lines = self._awaiting.explain(cluster.cluster_id, job)
        lines = lines or self._core.explain(cluster.cluster_id, job, monotonic())
        if not lines:
            raise DispyError(
                f"{cluster.name} has no job {what} that is not final: it has ended, or never was"
            )
        return lines

    # -- nodes

    def drain(self, what: str, who: str, off: bool) -> RemoteNode:
        """Give a node no new jobs from now on, or again; raises DispyError."""
        node = find_node(what, self._scheduler.nodes.values())
        record = self._core.nodes[node.node_id]
        why = "" if off else f"drained by {who}"
        logger.info(
            "node %s (%s) %s", node.name, node.ip_addr,
            f"gets jobs again, says {who}" if off else f"is {why}: it gets no new jobs",
            extra=event("node_drained", **of_node(node), off=off, operator=who),
        )  # fmt: skip
        self._carry_out(self._core.drains.drain(record, why), node)
        self._drained.write()
        return node


def _jobs_of(cluster: Cluster) -> Iterator[JobNumber]:
    """Return all jobs that are not final: first those that wait, lest they begin meanwhile."""
    pinned = (job for job in cluster.pinned if job not in cluster.placed)
    return chain(*(lane.queued for lane in cluster.lanes.values()), pinned, cluster.placed)
