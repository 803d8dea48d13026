"""What waits here until what it needs has come from its client: clusters, and single jobs.

A cluster is open in the core at once, and its jobs and orders (which nodes it may use, say) wait
for its files; a job that needs something of its own waits for that too, and is overtaken by others.
Nothing here is known to the core. On the scheduler's hub; nothing waits in it.
"""

import contextlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

from gevent import get_hub

from dispy.model.errors import DispyError
from dispy.model.statuses import Status
from dispy.net.fetching import is_wanted
from dispy.scheduler.client_contents import ClientContents, ContentsClient, Wanted
from dispy.scheduling.withdrawing import CANCELLED_BEFORE

Submit = Callable[[int, Sequence[int], str | None], None]  # cluster, jobs, node
# Cluster, the node that had them: none, jobs, status, why.
GiveUp = Callable[[int, None, Sequence[int], Status, str], None]

ANY_NODE = ""  # in place of one, for what holds for all
Refuse = Callable[[int, str, str], None]  # cluster, node, why


@dataclass(slots=True)
class _Cluster:
    """Jobs are in the order in which they came, each with the one node that it is for, if any."""

    number: int
    lacks: int = 0  # of its own, how much has to come
    failed: str | None = None  # why that does not come
    names_code: bool = False  # for another Python
    untranslated: str | None = None  # why there is none
    code: bytes | None = None  # the digest of its code for another Python, once that is here
    orders: list[Callable[[], None]] = field(default_factory=list)
    lacking: dict[int, str | None] = field(default_factory=dict)
    ready: dict[int, str | None] = field(default_factory=dict)
    users: set[Hashable] = field(default_factory=set)  # of contents, for single nodes
    refused: dict[str, str] = field(default_factory=dict)  # nodes that it cannot use, and why
    is_passing: bool = False  # what is ready will be passed on in this turn of the loop


class Awaiting:
    """Of all clients of a scheduler.

    submit, give_up: what becomes of jobs. refuse: says that a cluster cannot use a node.
    """

    def __init__(
        self, contents: ClientContents, submit: Submit, give_up: GiveUp, refuse: Refuse
    ) -> None:
        self._contents, self._submit = contents, submit
        self._give_up, self._refuse = give_up, refuse
        self._clusters: dict[int, _Cluster] = {}

    # -- clusters

    def opened(self, client: ContentsClient, number: int, settings: Mapping[str, Any]) -> None:
        """Take in a cluster, and fetch what all its jobs need."""
        self.closed(number)  # one that was opened twice is the second
        cluster = self._clusters[number] = _Cluster(number)
        try:
            wanted = self._contents.wanted(settings)
        except DispyError as error:
            cluster.failed = str(error)
            return
        self._need(client, cluster, _files(number), wanted, partial(self._files_came, cluster))

    def allotted(
        self,
        client: ContentsClient,
        number: int,
        node_id: str,
        own: Mapping[str, Any],
        allot: Callable[[], None],
    ) -> None:
        """Let a cluster use a node once all is here that it needs there, as `own` says: files, its
        code for another Python. What comes next waits for that too."""
        self.need_own(client, number, node_id, own)
        cluster = self._clusters[number]

        def decide() -> None:
            why = cluster.refused.get(node_id)
            if why is None:
                allot()
            else:
                self._refuse(number, node_id, why)

        self.order(number, decide)

    def need_own(
        self, client: ContentsClient, number: int, node_id: str, own: Mapping[str, Any]
    ) -> None:
        """Fetch what settings for one node name, or for any: code for another Python."""
        cluster = self._clusters[number]
        cluster.refused.pop(node_id, None)
        if node_id == ANY_NODE:
            cluster.untranslated = own.get("untranslated", cluster.untranslated)
        code = own.get("code")
        if isinstance(code, list) and is_wanted(code) and not cluster.names_code:
            cluster.names_code = True
            digest, size = code

            def code_came(why: str | None) -> None:
                cluster.code = digest if why is None else None

            what = Wanted([(digest, size)], {digest: "its code with source text"})
            self._need(client, cluster, _code(number), what, code_came)
        if "files" in own and node_id != ANY_NODE:
            self._need_files(client, cluster, node_id, own["files"])

    def _need_files(
        self, client: ContentsClient, cluster: _Cluster, node_id: str, files: list[Any]
    ) -> None:
        try:
            what = self._contents.wanted({"files": files})
        except DispyError as error:
            cluster.refused[node_id] = str(error)
            return
        user = ("own", cluster.number, node_id, *sorted(what.names))
        if user in cluster.users:
            return

        def came(why: str | None) -> None:
            if why is not None:
                cluster.refused[node_id] = f"what it needs there does not come: {why}"
                cluster.users.discard(user)
                self._contents.release(user)

        cluster.users.add(user)
        self._need(client, cluster, user, what, came)

    def _need(
        self,
        client: ContentsClient,
        cluster: _Cluster,
        user: Hashable,
        wanted: Wanted,
        done: Callable[[str | None], None],
    ) -> None:
        """Have a cluster wait for contents; `done` is called before it goes on."""

        def came(why: str | None) -> None:
            done(why)
            self._came(cluster)

        if self._contents.need(client, user, wanted, came):
            done(None)
        else:
            cluster.lacks += 1

    def code_of(self, number: int) -> bytes | None:
        """Return the digest of a cluster's code for another Python, if it is here."""
        cluster = self._clusters.get(number)
        return None if cluster is None else cluster.code

    def why_untranslated(self, number: int) -> str | None:
        """Return why there is no code of a cluster for another Python, if its program has said."""
        cluster = self._clusters.get(number)
        return None if cluster is None else cluster.untranslated

    def lacks(self, number: int) -> bool:
        """Whether something that a cluster or one of its jobs needs is not here."""
        cluster = self._clusters.get(number)
        return cluster is not None and bool(cluster.lacks or cluster.lacking)

    def _files_came(self, cluster: _Cluster, why: str | None) -> None:
        if why is not None:
            self._fail(cluster, f"what all jobs of this cluster need does not come: {why}")

    def _came(self, cluster: _Cluster) -> None:
        cluster.lacks -= 1
        if not cluster.lacks:
            orders, cluster.orders = cluster.orders, []
            for order in orders:
                order()
            self._pass(cluster)

    def _fail(self, cluster: _Cluster, why: str) -> None:
        cluster.failed = why
        cluster.orders.clear()
        jobs = [*cluster.ready, *cluster.lacking]
        cluster.ready.clear()
        cluster.lacking.clear()
        if jobs:
            self._abandon(cluster.number, jobs, why)

    def _abandon(self, number: int, jobs: Sequence[int], why: str) -> None:
        self._give_up(number, None, jobs, Status.Abandoned, why)

    def order(self, number: int, order: Callable[[], None]) -> None:
        """Do something about an open cluster once it has what it needs; never if it cannot."""
        cluster = self._clusters[number]
        if cluster.failed is not None:
            return
        if cluster.lacks:
            cluster.orders.append(order)
        else:
            order()

    def closed(self, number: int) -> None:
        """Forget a cluster; its jobs are released by whoever forgets them."""
        cluster = self._clusters.pop(number, None)
        if cluster is not None:  # else it was closed before it was opened here
            for user in (_files(number), _code(number), *cluster.users):
                self._contents.release(user)

    # -- jobs

    def submitted(
        self,
        client: ContentsClient,
        number: int,
        jobs: Sequence[int],
        node_id: str | None,
        extras: Sequence[tuple[int, Mapping[str, Any]]],
    ) -> None:
        """Submit jobs as soon as they can run; extras: options of some of them, by position."""
        cluster = self._clusters[number]
        if cluster.failed is not None:
            self._abandon(number, jobs, cluster.failed)
            return
        refused: dict[int, str] = {}
        for at, options in extras:
            if "needs" in options or "files" in options:
                self._fetch(client, cluster, jobs[at], node_id, options, refused)
        if cluster.lacking or refused:
            jobs = [job for job in jobs if job not in cluster.lacking and job not in refused]
        if cluster.lacks or cluster.ready:
            cluster.ready.update(dict.fromkeys(jobs, node_id))
        elif jobs:
            self._submit(number, jobs, node_id)
        for job, why in refused.items():
            self._abandon(number, [job], why)

    def _fetch(
        self,
        client: ContentsClient,
        cluster: _Cluster,
        job: int,
        node_id: str | None,
        options: Mapping[str, Any],
        refused: dict[int, str],
    ) -> None:
        try:
            wanted = self._contents.wanted(options)
        except DispyError as error:
            refused[job] = str(error)
            return
        if not self._contents.need(client, job, wanted, partial(self._job_came, cluster, job)):
            cluster.lacking[job] = node_id

    def _job_came(self, cluster: _Cluster, job: int, why: str | None) -> None:
        node_id = cluster.lacking.pop(job)
        if why is not None:
            self._abandon(cluster.number, [job], f"what the job needs does not come: {why}")
            return
        cluster.ready[job] = node_id
        if not cluster.lacks and not cluster.is_passing:  # many may have waited for one content
            cluster.is_passing = True
            get_hub().loop.run_callback(self._pass, cluster)

    def restored(
        self, client: ContentsClient, jobs: Iterable[int], options: Mapping[int, Mapping[str, Any]]
    ) -> None:
        """Keep what jobs need that nodes have from an earlier scheduler."""
        for job in jobs:
            table = options.get(job, {})
            if "needs" in table or "files" in table:
                with contextlib.suppress(DispyError):  # then no node was given it
                    self._contents.need(client, job, self._contents.wanted(table), _nothing)

    def _pass(self, cluster: _Cluster) -> None:
        cluster.is_passing = False
        if self._clusters.get(cluster.number) is cluster and not cluster.lacks:
            ready, cluster.ready = cluster.ready, {}
            for node_id, jobs in groupby(ready, ready.__getitem__):
                self._submit(cluster.number, list(jobs), node_id)

    def jobs_of(self, number: int) -> list[int]:
        """Return a cluster's jobs that wait here."""
        cluster = self._clusters.get(number)
        return [] if cluster is None else [*cluster.ready, *cluster.lacking]

    def has(self, number: int, job: int) -> bool:
        """Whether a job waits here."""
        cluster = self._clusters.get(number)
        return cluster is not None and (job in cluster.ready or job in cluster.lacking)

    def cancel(self, number: int, job: int, why: str = CANCELLED_BEFORE) -> bool:
        """End a job that waits here; False: it does not."""
        if not self.has(number, job):
            return False
        cluster = self._clusters[number]
        cluster.ready.pop(job, None)
        cluster.lacking.pop(job, None)
        self._give_up(number, None, [job], Status.Cancelled, why)
        return True

    def released(self, jobs: Sequence[int]) -> None:
        """Let go what jobs needed that are final."""
        for job in jobs:
            self._contents.release(job)

    def explain_waiting(self, number: int) -> list[str]:
        """Say how many jobs of a cluster wait here; no lines: none."""
        if not (jobs := self.jobs_of(number)):
            return []
        return [f"{len(jobs)} wait until the scheduler has what they need from their program"]

    def explain(self, number: int, job: int) -> list[str]:
        """Say what a job waits for here; no lines: nothing."""
        if not self.has(number, job):
            return []
        count = sum(map(self._contents.missing, (job, _files(number), _code(number))))
        return [f"it waits until the scheduler has {count} files or values more from its program"]


def _nothing(why: str | None) -> None:
    """Nobody waits."""


def _files(number: int) -> Hashable:
    return "files", number


def _code(number: int) -> Hashable:
    return "code", number
