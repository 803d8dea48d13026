"""The half of a cluster that the hub speaks to: what became of its jobs and nodes.

A job counts as pending until it is final, and as untold from then until its callbacks have
run. Everything here runs on the hub, or on the callbacks' thread where it says so.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from dispy.client.allocating import ask_allocation, available
from dispy.client.callbacks import call_safely
from dispy.client.depends import check_files
from dispy.client.interim import InterimJob
from dispy.client.job import DispyJob
from dispy.client.nodes import DispyNode, NodeAllocate
from dispy.client.preparing import own_settings
from dispy.client.waiting import JobEvent, make_event, make_lock
from dispy.model.errors import DispyError
from dispy.model.statuses import FINAL, Status

if TYPE_CHECKING:
    from dispy.client.files import Files
    from dispy.client.search import Search
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")

JobCallback = Callable[[DispyJob], Any]
StatusCallback = Callable[[int, DispyNode | None, DispyJob | None], Any]

PATIENCE_SECONDS = 10.0  # with a callback, before whoever waits for it is told


class Reporting:
    """Counts jobs, wakes whoever waits for them, and calls the user's callbacks."""

    name: str
    allocations: list[NodeAllocate]
    _search: "Search"
    _files: "Files"  # that all its jobs need
    _has_setup: bool  # nodes run a function of the user's before the first job
    _cleans_up: bool  # and one after the last

    def __init__(self, session: "Session", number: int) -> None:
        self._session, self._number = session, number
        self.job_status: JobCallback | None = None
        self.cluster_status: StatusCallback | None = None
        self.end_time = 0.0  # when the last job ended; seconds since the epoch
        self._nodes: dict[str, DispyNode] = {}
        self._granted: dict[str, int] = {}  # node -> how many of its processors are ours to use
        self._availing: set[str] = set()  # nodes for whose news a callback is queued
        self._listeners: list[Callable[[Sequence[DispyJob]], None]] = []
        self._cancelling: set[int] = set()
        self._guard = make_lock()  # of what follows; nobody waits while holding it
        self._pending = 0  # jobs that are not final
        self._untold = 0  # final jobs whose callbacks have not run
        self._waiters: list[tuple[JobEvent, bool]] = []  # and whether callbacks matter to it

    @property
    def callback(self) -> JobCallback | None:
        """dispy 4's first name of `job_status`."""
        return self.job_status

    @callback.setter
    def callback(self, function: JobCallback | None) -> None:
        self.job_status = function

    # -- jobs

    def _notify(self, status: Status, node: DispyNode | None, jobs: Sequence[DispyJob]) -> None:
        put, call = self._session.callbacks.put, self._call_cluster_status
        for job in jobs:
            if job.is_call:
                put(call, status, node, job)

    def _report_interim(self, job: DispyJob, node: DispyNode) -> None:
        """Have the callbacks called with the value that a job sent before its end."""
        if self.job_status is not None or self.cluster_status is not None:
            self._session.callbacks.put(self._call_back, InterimJob(job), node)

    def _end(
        self, jobs: Sequence[DispyJob], status: Status, reason: str, node: DispyNode | None
    ) -> None:
        """Make jobs final that no node answers for."""
        now = time()
        for job in jobs:
            job._payload = job._packed = job._value = None
            job.exception, job.end_time = reason, now
            job.status = status
        if status == Status.Abandoned:
            self._session.failures.add(self.name, jobs)
        self._done(jobs, node)
        for job in jobs:
            if job._finish is not None:
                job._finish.set()

    def _was_cancelled(self, job: DispyJob) -> bool:
        """Whether its user has cancelled a job that has not been told as final so far."""
        return job._number in self._cancelling

    def _done(self, jobs: Sequence[DispyJob], node: DispyNode | None) -> None:
        """Tell everybody who wants to know that jobs are final."""
        for listener in list(self._listeners):
            listener(jobs)
        if self._cancelling:
            self._cancelling.difference_update(job._number for job in jobs)
        count = len(jobs)
        if self.job_status is None and self.cluster_status is None:
            self._settle(count, 0)
        else:
            self._settle(count, count)
            self._session.callbacks.put(self._call_back_all, jobs, node)

    def _settle(self, pending: int, untold: int) -> None:
        """Count jobs as final, or as told (`untold` is negative), and wake who waits for that."""
        with self._guard:
            self._pending -= pending
            self._untold += untold
            if self._pending:
                return
            if pending:
                self.end_time = time()
            woken = [waiter for waiter in self._waiters if not (waiter[1] and self._untold)]
            if woken:
                self._waiters = [waiter for waiter in self._waiters if waiter not in woken]
        for event, _ in woken:
            event.set()

    # -- on the callbacks' thread

    def _call_back_all(self, jobs: Sequence[DispyJob], node: DispyNode | None) -> None:
        """One final call for each job, then they count as told."""
        for job in jobs:
            if job.is_call:
                self._call_back(job, node)
        self._settle(0, -len(jobs))

    def _call_back(self, job: DispyJob, node: DispyNode | None) -> None:
        if self.job_status is not None:
            call_safely(self.job_status, job, job)
        if self.cluster_status is not None:
            call_safely(self.cluster_status, job, job.status, node, job)

    def _call_cluster_status(
        self, status: Status, node: DispyNode | None, job: DispyJob | None
    ) -> None:
        if self.cluster_status is not None:
            call_safely(self.cluster_status, job, status, node, job)

    # -- in the thread of whoever waits

    def _wait(self, timeout: float | None) -> bool:
        """Wait until nothing is pending and, outside of callbacks, everything is told."""
        self._session.check_process()
        outside = not self._session.callbacks.is_current
        with self._guard:
            if not self._pending and not (outside and self._untold):
                return True
            waiter = (make_event(), outside)
            self._waiters.append(waiter)
        try:
            return self._wait_and_explain(waiter[0], timeout)
        finally:
            with self._guard:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def _wait_and_explain(self, event: JobEvent, timeout: float | None) -> bool:
        deadline = None if timeout is None else monotonic() + timeout
        told: Any = None
        while True:
            left = PATIENCE_SECONDS if deadline is None else max(0.0, deadline - monotonic())
            if event.wait(min(left, PATIENCE_SECONDS)):
                return True
            if deadline is not None and monotonic() >= deadline:
                return False
            call = self._session.callbacks.running_longer_than(PATIENCE_SECONDS)
            if call is not None and call is not told and not self._pending:
                told = call
                logger.warning("waiting for a callback of %s that has not returned yet", self.name)

    def _standing(self) -> str:
        """Say in one line how things stand, for whoever was interrupted."""
        jobs = [job for job in self._unfinished() if job.is_call]
        running = sum(job.status != Status.Created for job in jobs)
        text = f"{running} jobs of {self.name} run on and {len(jobs) - running} wait"
        if self._session.local.node is not None:
            text += "; the local node ends with this program"
        return text

    def _unfinished(self) -> list[DispyJob]:
        jobs = list(self._session.jobs.values())  # in one step: other threads submit meanwhile
        return [job for job in jobs if job._cluster is self and job.status not in FINAL]

    # -- nodes

    def _allocate(self, node: Any) -> tuple[int, dict[str, Any]]:
        """Decide how many processors of a node to use, and what it alone must know."""
        cpus, allocation = self._ask(node)
        own: dict[str, Any] = {}
        if allocation is not None:
            try:
                if self._has_setup or self._cleans_up:
                    own = own_settings(allocation, node.name)
                if allocation.depends:
                    own["files"] = self._files_for(allocation, node.name)
            except DispyError as error:
                logger.error("%s; node %s is not used", error, node.name)
                cpus = 0
        self._grant(node.node_id, cpus)
        return cpus, own

    def _files_for(self, allocation: NodeAllocate, node: str) -> list[Any]:
        """Return the manifest for a node that has files of its own; raises DispyError."""
        from dispy.client.files import join_files, take_files  # as when the cluster was opened

        elements = check_files(allocation.depends, f"depends of node {node}")
        more = take_files(elements, f"depends of node {node}")
        self._session.contents.hold_for(self, more.contents)
        return join_files(self._files, more, f"node {node}").entries

    def _grant(self, node_id: str, cpus: int) -> None:
        self._granted[node_id] = cpus
        view = self._nodes.get(node_id)
        if view is not None:
            view.cpus, view.update_time = cpus, time()

    def _ask(self, node: Any) -> tuple[int, NodeAllocate | None]:
        """Ask the allocations, in order; the first that wants some of it wins."""
        if not self._search.wanted.trusts(node.ip_addr, node.of_other_user):
            return 0, None  # it was found for another cluster, which was told that this is fine
        for allocation in list(self.allocations):
            if not self._search.wanted.fits(allocation, node.ip_addr, node.port):
                continue  # a list of hosts means those, whatever a user's `allocate` would say
            try:
                cpus = ask_allocation(allocation, self, node)
            except Exception:  # the user's own method
                logger.exception("allocate of %r failed; node %s is not used", allocation, node)
                return 0, None
            if cpus and cpus > 0:
                return int(cpus), allocation
        return 0, None

    def _node(self, node: Any) -> DispyNode:
        view = self._nodes.get(node.node_id)
        if view is None:
            view = self._nodes[node.node_id] = DispyNode(node.ip_addr, node.name, node.cpus)
            view.cpus = self._granted.get(node.node_id, node.cpus)
            view.avail_info = available(node)
            view.exposed, view._traffic = node.exposed, node.traffic
        view.ip_addr = node.ip_addr  # its host may have moved
        return view

    def _node_id(self, node: Any) -> str | None:
        for node_id, view in self._named(node):
            if view.cpus:
                return node_id
        return None

    def _named(self, node: Any) -> Iterable[tuple[str, DispyNode]]:
        """Return the nodes that a user means by a DispyNode, an address or a name."""
        if isinstance(node, DispyNode):
            return [(i, view) for i, view in list(self._nodes.items()) if view is node] or [
                (i, view) for i, view in list(self._nodes.items()) if view.ip_addr == node.ip_addr
            ]
        if not isinstance(node, str):
            raise DispyError(f"a node is a DispyNode, an address or a name, not {node!r}")
        return [
            (i, view) for i, view in list(self._nodes.items()) if node in (view.ip_addr, view.name)
        ]

    def _node_changed(self, node: Any, status: Status, error: str | None) -> None:
        view = self._node(node)
        view.update_time, view.error = time(), error
        if status == Status.Closed:
            view.cpus = view.busy = 0
        else:
            view.cpus = self._granted.get(node.node_id, node.cpus)  # it may have been lost before
        if self.cluster_status is not None:
            self._session.callbacks.put(self._call_cluster_status, status, view, None)
        if status == Status.Initialized and node.available is not None:
            self._node_available(node)

    def _node_available(self, node: Any) -> None:
        """Take what a node has to spare; on the hub."""
        view = self._node(node)
        view.avail_info = available(node)
        if self.cluster_status is None or view.avail_info is None:
            return
        if node.node_id not in self._availing:  # a slow callback gets the newest, once
            self._availing.add(node.node_id)
            self._session.callbacks.put(self._tell_available, node.node_id, view)

    def _tell_available(self, node_id: str, view: DispyNode) -> None:
        self._availing.discard(node_id)
        self._call_cluster_status(Status.AvailInfo, view, None)
