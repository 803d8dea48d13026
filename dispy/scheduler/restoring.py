"""A scheduler that begins where an earlier one was ended, by whatever: from what its journal knows.

Everything is there again before the first node or client is spoken to. Jobs that nodes have are
theirs until they say otherwise or are lost; the others wait, in their order.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from itertools import groupby
from time import monotonic

from dispy.model.statuses import Status
from dispy.scheduler.clients import Clients
from dispy.scheduler.hearing import Hearing
from dispy.scheduler.journal_entries import Allotted, KnownBatch, Remembered
from dispy.scheduler.service import Scheduler
from dispy.scheduler.telling import Telling

logger = logging.getLogger("dispy.scheduler")

# For a node to be found again, before it is waited for as one that has just fallen silent.
GRACE_SECONDS = 5.0
GRACE_FOR_EACH = 0.005  # more for each node that is dialled
GONE = "the scheduler was restarted, and knows nothing of the node that had it"


def restore(
    known: Remembered, clients: Clients, hearing: Hearing, telling: Telling, scheduler: Scheduler
) -> None:
    """Have clients, clusters, nodes and jobs as they were; call once, before all else."""
    _Restoring(known, clients, telling, scheduler).restore(hearing)


class _Restoring:
    def __init__(
        self, known: Remembered, clients: Clients, telling: Telling, scheduler: Scheduler
    ) -> None:
        self._known, self._clients, self._telling = known, clients, telling
        self._scheduler = scheduler
        self._batch_of: dict[int, KnownBatch] = {}  # of jobs that are not final
        self._allotted: set[tuple[int, str]] = set()  # clusters and the nodes that they have

    def restore(self, hearing: Hearing) -> None:
        known = self._known
        for slot, came in known.clients.items():
            self._clients.restore(came, known.heard.get(slot, 0), known.finals.get(slot, ()))
        for cluster in known.clusters.values():
            client = self._clients.of(cluster.number)
            if client is not None:
                client.clusters[cluster.number] = set()
                hearing.open(client, cluster)
        for job, label in known.labels.items():
            if (client := self._clients.of(job)) is not None:
                client.labels[job] = label
        self._restore_calls()
        self._restore_nodes()
        self._restore_past()
        given: dict[tuple[int, str], list[int]] = defaultdict(list)
        for node_id, job in self._given():
            given[self._batch_of[job].cluster, node_id].append(job)
        for place, jobs in given.items():
            self._give(*place, jobs)
        for batch, jobs in _together(known.waiting, self._batch_of):
            self._submit(batch, jobs)
        self._clients.files.contents.settle()
        if known.clients:
            logger.info(
                "begun where the earlier scheduler ended: %d clients, %d clusters, %d nodes, "
                "%d jobs that wait and %d that nodes have, results of %d jobs to be delivered",
                len(known.clients), len(known.clusters), len(known.nodes), len(known.waiting),
                sum(map(len, known.given.values())),
                sum(len(each.jobs) for finals in known.finals.values() for each in finals),
            )  # fmt: skip

    def _submit(self, batch: KnownBatch, jobs: list[int]) -> None:
        """Have jobs wait, for what they need too."""
        client, options = self._clients.of(batch.cluster), self._clients.options
        if client is not None:
            extras = [(at, options[job]) for at, job in enumerate(jobs) if job in options]
            awaiting = self._clients.files.awaiting
            awaiting.submitted(client, batch.cluster, jobs, batch.node, extras)

    def _restore_nodes(self) -> None:
        heard = monotonic() + GRACE_SECONDS + GRACE_FOR_EACH * len(self._known.nodes)
        for node in self._known.nodes.values():
            self._scheduler.standing.put_node(node, heard)
        used = {(self._batch_of[job].cluster, node_id) for node_id, job in self._given()}
        for place, allotted in self._known.allotted.items():
            is_open = place[0] in self._known.clusters and place[1] in self._known.nodes
            if is_open and (allotted.slots or place in used):
                self._allotted.add(place)
                self._allot(place, allotted, place in used)

    def _allot(self, place: tuple[int, str], allotted: Allotted, is_used: bool) -> None:
        """Let a cluster use a node, at once unless it still waits for something."""
        client, awaiting = self._clients.of(place[0]), self._clients.files.awaiting
        if client is None:
            return
        awaiting.need_own(client, *place, allotted.own or {})
        rest = (*place, allotted.slots, allotted.own)
        if is_used or not awaiting.lacks(place[0]):
            self._scheduler.standing.put_cluster(*rest)
        else:
            awaiting.order(place[0], partial(self._scheduler.allocate, *rest))

    def _given(self) -> Iterable[tuple[str, int]]:
        for node_id, jobs in self._known.given.items():
            for job in jobs:
                if job in self._batch_of:
                    yield node_id, job

    def _restore_calls(self) -> None:
        known = self._known
        left = set(known.waiting).union(*known.given.values())
        for batch in known.batches.values():
            jobs = [job for job in batch.jobs if job in left]
            client = self._clients.of(batch.cluster)
            if client is None or batch.cluster not in client.clusters:
                continue
            self._batch_of.update(dict.fromkeys(jobs, batch))
            self._clients.calls.restore(batch.batch, batch.jobs, jobs)
            client.clusters[batch.cluster].update(jobs)
            for at, options in batch.extras:
                if batch.jobs[at] in left:
                    self._clients.options[batch.jobs[at]] = options

    def _restore_past(self) -> None:
        known = self._known
        attempts: dict[int, dict[int, int]] = defaultdict(dict)
        deaths: dict[int, dict[int, int]] = defaultdict(dict)
        ending: dict[int, set[int]] = defaultdict(set)
        for table, counts in ((attempts, known.attempts), (deaths, known.deaths)):
            for job, count in counts.items():
                if job in self._batch_of:
                    table[self._batch_of[job].cluster][job] = count
        for job in known.cancelling:
            if job in self._batch_of:
                ending[self._batch_of[job].cluster].add(job)
        for cluster_id in {*attempts, *deaths, *ending}:
            self._scheduler.standing.put_past(
                cluster_id, attempts[cluster_id], deaths[cluster_id], ending[cluster_id]
            )

    def _give(self, cluster_id: int, node_id: str, jobs: list[int]) -> None:
        """Have a node run what it was given."""
        client = self._clients.of(cluster_id)
        if client is not None and (cluster_id, node_id) in self._allotted:
            self._clients.files.awaiting.restored(client, jobs, self._clients.options)
            for pinned in (False, True):
                if mine := [job for job in jobs if self._is_pinned(job) == pinned]:
                    self._scheduler.standing.put_jobs(cluster_id, node_id, mine, pinned)
            return
        # The node is lost, or was taken from the cluster, and what became of the jobs was not
        # written down any more: they may have begun.
        self._telling.given_up(cluster_id, None, jobs, Status.Abandoned, GONE)

    def _is_pinned(self, job: int) -> bool:
        return self._batch_of[job].node is not None


def _together(
    jobs: Iterable[int], batch_of: dict[int, KnownBatch]
) -> Iterable[tuple[KnownBatch, list[int]]]:
    """Yield jobs in their order, those of a batch that follow each other together."""
    known = (job for job in jobs if job in batch_of)
    for _, mine in groupby(known, lambda job: batch_of[job].batch):
        found = list(mine)
        yield batch_of[found[0]], found
