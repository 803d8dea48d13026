"""The one scheduler of a program, shared by all its clusters, and the table of its jobs.

Methods of the `JobsOwner` part run on the hub and never wait. The table maps a job's number
to its object until the job is final; whoever submits writes to it, the hub takes from it.
"""

import atexit
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from itertools import count
from time import monotonic, time
from typing import TYPE_CHECKING, Any

from dispy.client.callbacks import Callbacks
from dispy.client.contents import Contents
from dispy.client.ending import end_with_program, undisturbed
from dispy.client.extras import take_extra
from dispy.client.failures import Failures
from dispy.client.hints import with_hint
from dispy.client.hub import Hub
from dispy.client.job import DispyJob
from dispy.client.local_node import CLEANUP_SECONDS
from dispy.client.offering import Offering
from dispy.client.other_pythons import OtherPythons
from dispy.client.patience import Patience
from dispy.client.preparing import Preparations
from dispy.client.proving import Proof
from dispy.client.putting import LargeArguments
from dispy.client.receiving import Receiving
from dispy.client.recording import Recording
from dispy.client.replacing import LocalNodes
from dispy.client.shared_memory import SharedMemory
from dispy.client.waiting import make_lock
from dispy.model.errors import DispyError
from dispy.model.statuses import Status
from dispy.protocol.messages import Bulk, Payload
from dispy.shipping.contents import Content

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster
    from dispy.client.discovery import Discovery
    from dispy.client.files import Files
    from dispy.client.streaming import Terminal
    from dispy.scheduler.nodes import RemoteNode
    from dispy.scheduler.service import Scheduler

logger = logging.getLogger("dispy.client")
SCHEDULER_LOG = logging.getLogger("dispy.scheduler")  # of the one in this process, or another


class Session:
    """Owns the hub, the scheduler on it, and the local node; one for each process."""

    def __init__(self) -> None:
        self.callbacks = Callbacks()
        self.failures = Failures()
        self.other_pythons = OtherPythons()
        self.terminal: Terminal | None = None  # for clusters that show output as it comes
        # Two threads that open clusters must not each start a local node. Not `make_lock`:
        # whoever holds this waits, in a patched program cooperatively.
        self.finding = threading.Lock()
        self.jobs: dict[int, DispyJob] = {}
        self.options: dict[int, dict[str, Any]] = {}  # of jobs that have some, for their node
        self.large = LargeArguments(self)
        self.contents = Contents()  # large things that nodes may ask for, by digest
        self.clusters: dict[int, JobCluster] = {}
        self.numbers = count(1)
        self.cluster_numbers = count(1)
        self.local = LocalNodes(self)
        self.offering = Offering(self)
        self.memory = SharedMemory(self)
        self._scheduler: Scheduler | None = None
        self._discovery: Discovery | None = None
        self._patience = Patience(self)
        self.preparations = Preparations(self)
        self.proof = Proof(self)
        self.disk = Callbacks("dispy-files")  # whoever writes files waits for no disk
        self.disk.start()  # a program at its end may not start threads any more
        self.receiving = Receiving(self)  # the files that jobs send
        self.recording = Recording(self)
        self.ended = False
        self.process = os.getpid()
        self.forked = False  # this is a copy in a child process, without any of our threads
        self.hub = Hub(self._look_again)  # last: its thread looks at us at once
        atexit.register(self._at_exit)

    @property
    def scheduler(self) -> "Scheduler":
        """The scheduler; only for calls on the hub."""
        if self._scheduler is None:
            name = f"{socket.gethostname()}, process {os.getpid()}"
            self._scheduler = self._make_scheduler(os.urandom(16).hex(), name)
        return self._scheduler

    def _make_scheduler(self, identity: str, name: str) -> "Scheduler":
        from dispy.scheduler.service import Scheduler

        return Scheduler(self, identity, name, self.proof.credentials)

    @property
    def has_scheduler(self) -> bool:
        """Whether there is one: nothing has to be told to it before."""
        return self._scheduler is not None

    def check_process(self) -> None:
        """Raise DispyError in a process that was forked from the one that this belongs to."""
        if self.forked:
            raise DispyError(
                f"this cluster belongs to process {self.process}, from which this process was "
                f"forked; its jobs cannot be used here. Create a JobCluster of its own"
            )

    @property
    def discovery(self) -> "Discovery":
        """The search for nodes; only for calls on the hub."""
        if self._discovery is None:
            self._discovery = self._make_discovery()
        return self._discovery

    def _make_discovery(self) -> "Discovery":
        from dispy.client.discovery import Discovery

        return Discovery(self)

    def open_terminal(self) -> "Terminal":
        """Return what shows the output of jobs while they run."""
        if self.terminal is None:
            from dispy.client.streaming import Terminal

            self.terminal = Terminal()
        return self.terminal

    # -- clusters; on the hub

    def _look_again(self) -> None:
        """Take jobs whose announcement was cut short by a Ctrl-C, and see who waits for long."""
        for cluster in list(self.clusters.values()):
            cluster._take_fresh()
        if self._scheduler is not None:
            self._patience.look(monotonic())
            self.preparations.look(monotonic())

    def open(self, cluster: "JobCluster", settings: dict[str, Any], content: bytes) -> None:
        """Take in a cluster and offer it the nodes that are there already."""
        self.clusters[cluster._number] = cluster
        self.local.cluster_opened(cluster)
        if cluster.pulse_interval is not None:
            settings = {**settings, "pulse": cluster.pulse_interval}
        self.scheduler.open_cluster(
            cluster._number, cluster.name, settings, content, cluster.reentrant,
            cluster.pulse_interval, cluster.retries,
        )  # fmt: skip
        self.offering.offer_known(cluster)

    def close(self, cluster: "JobCluster") -> None:
        """Forget a cluster; its jobs that are left are final already."""
        self.clusters.pop(cluster._number, None)
        self.contents.release_for(cluster)
        self.discovery.end(cluster._number)
        self.scheduler.close_cluster(cluster._number)
        self.recording.closed(cluster._number)
        self.other_pythons.forget(cluster._number)

    def search_lines(self, cluster: "JobCluster") -> list[str]:
        """Say what the search for a cluster's nodes has met, and what to do, line by line."""
        # Of those that are away something else is said, until they are lost.
        connected = [(node.ip_addr, node.port) for node in self.scheduler.nodes.values()]
        return cluster._search.lines(monotonic(), self.scheduler.keepers.unreachable, connected)

    def explaining(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run what asks the scheduler why jobs wait, on the hub."""
        call(*arguments)

    # -- what the scheduler tells; on the hub

    def settle(self) -> None:
        """Return, in a greenlet of the hub, when what the scheduler was told is in effect."""

    def payloads(self, jobs: Sequence[int]) -> list[Payload]:
        """Return the packed calls of jobs."""
        table = self.jobs
        return [table[job]._payload for job in jobs]  # type: ignore[misc]  # kept until final

    def when_safe(self, then: Callable[[], object]) -> None:
        """Call it: what outlives this program is its nodes' and its recovery file's."""
        then()

    def hand_over(
        self,
        node: "RemoteNode",
        cluster_id: int,
        jobs: Sequence[int],
        send: Callable[[list[Payload]], None],
    ) -> None:
        """Have jobs sent to a node, now."""
        foreign = cluster_id in node.translated
        send(self.payloads_for(node, jobs) if foreign else self.payloads(jobs))

    def content(self, digest: bytes) -> Content | None:
        """Return what is ready under this digest."""
        return self.contents.get(digest)

    def refusal(self, node: "RemoteNode", text: str) -> str:
        """Return why a node cannot run a computation, with what we know about it."""
        return with_hint(text, node.name)

    def opening_for(
        self, node: "RemoteNode", cluster_id: int, settings: dict[str, Any], content: bytes
    ) -> tuple[dict[str, Any], bytes]:
        """Return settings and code for a node with another Python; raises DispyError."""
        return self.other_pythons.opening(node, cluster_id, settings, content)

    def payloads_for(self, node: "RemoteNode", jobs: Sequence[int]) -> list[Payload]:
        """Return the packed calls of jobs for a node with another Python."""
        name = self.jobs[jobs[0]]._cluster.name
        return [self.other_pythons.payload(name, node, each) for each in self.payloads(jobs)]

    def started(self, cluster_id: int, node: "RemoteNode", jobs: Sequence[int]) -> None:
        """Mark jobs that were given to a node as running there."""
        cluster, table, now, address = self.clusters[cluster_id], self.jobs, time(), node.ip_addr
        cluster._node(node).busy += len(jobs)
        for number in jobs:
            job = table[number]
            job.start_time = now
            job.ip_addr = address
            job.status = Status.Running
        if cluster.cluster_status is not None:
            cluster._notify(Status.Running, cluster._node(node), [table[job] for job in jobs])

    def finished(
        self,
        cluster_id: int,
        node: "RemoteNode",
        jobs: Sequence[int],
        starts: Sequence[float],
        ends: Sequence[float],
        results: Sequence[Payload],
        extras: dict[int, dict[str, Any]],
    ) -> None:
        """Take final results into their jobs and wake whoever waits."""
        cluster, take = self.clusters[cluster_id], self.jobs.pop
        view = cluster._node(node)
        view.busy -= len(jobs)
        view.jobs_done += len(jobs)
        view.cpu_time += sum(ends) - sum(starts)
        view.update_time = time()
        done, waited = [], []
        for at, (number, start, end, result) in enumerate(
            zip(jobs, starts, ends, results, strict=True)
        ):
            job = take(number)
            if type(result) is Bulk:  # first: whoever sees the status may look at once
                result = self.memory.map_result(result)
            job.start_time = start
            job.end_time = end
            job.stdout = job.stderr = ""
            job._value = None
            job._packed = result or None
            if at in extras:
                take_extra(job, extras[at], node.name, self.memory)
            else:
                job.status = Status.Finished
            job._payload = None
            if job._finish is not None:
                waited.append(job._finish)
            done.append(job)
        if extras:
            failed = [
                job for job in done
                if job.status == Status.Terminated and not cluster._was_cancelled(job)
            ]  # fmt: skip
            self.failures.add(cluster.name, failed)
        if self.options or self.receiving.arriving:
            self.forget(jobs)
        if cluster._terminal is not None:
            cluster._terminal.ended(done, node.name)
        cluster._done(done, view)
        for event in waited:
            event.set()

    def given_up(
        self,
        cluster_id: int,
        node: "RemoteNode | None",
        jobs: Sequence[int],
        status: Status,
        reason: str,
    ) -> None:
        """End jobs that cannot go on; `node` had them, or None had."""
        if self.ended:
            return  # the program is leaving its nodes, and nobody is there to be told
        cluster = self.clusters[cluster_id]
        view = cluster._node(node) if node is not None else None
        if view is not None:
            view.busy -= len(jobs)
        self.forget(jobs)
        cluster._end([self.jobs.pop(job) for job in jobs], status, reason, view)

    def note_options(self, job: int, options: dict[str, Any], files: "Files | None") -> None:
        """Keep what was said of a job and the files that it needs, in its submitter's thread."""
        if files is not None and files.entries:
            self.contents.hold_for(job, files.contents)
            options["files"] = files.entries
        if options:
            self.options[job] = options

    def forget(self, jobs: Sequence[int]) -> None:
        """Drop what was said of jobs that are final, and what they have sent in part."""
        self.receiving.forget(jobs)
        for job in jobs:
            if self.options.pop(job, None) is not None:
                self.contents.release_for(job)

    def requeued(
        self, cluster_id: int, node: "RemoteNode", jobs: Sequence[int], why: str, *_: bool
    ) -> None:
        """Mark jobs as waiting again."""
        cluster = self.clusters[cluster_id]
        view = cluster._node(node)
        view.busy -= len(jobs)
        for number in jobs:
            job = self.jobs[number]
            job.status, job.start_time, job.ip_addr = Status.Created, None, None
        self.receiving.forget(jobs)
        logger.debug("%d jobs of %s wait again: %s", len(jobs), cluster.name, why)

    def provisional(self, cluster_id: int, node: "RemoteNode", job: int, value: Payload) -> None:
        """Hand a value that a job sent before its end to its submitter."""
        found, cluster = self.jobs.get(job), self.clusters.get(cluster_id)
        if found is None or cluster is None:
            return  # it overtook nothing: the job was cancelled or given up meanwhile
        found._packed = value
        found.status = Status.ProvisionalResult
        cluster._report_interim(found, cluster._node(node))

    def output(
        self,
        cluster_id: int,
        node: "RemoteNode",
        job: int,
        descriptor: int,
        offset: int,
        text: bytes,
    ) -> None:
        """Show what a running job has written."""
        found = self.jobs.get(job)
        if found is not None and self.terminal is not None and descriptor in (1, 2):
            self.terminal.show(found, node.name, descriptor, offset, text)

    def hungry(self, clusters: set[int]) -> None:
        """Forget them: each cluster has all of its nodes."""
        clusters.clear()

    def node_found(self, node: "RemoteNode") -> None:
        """Offer a new node to every cluster."""
        if node.exposed:
            logger.warning(
                "the link to node %s (%s) is not encrypted, since somebody has set `insecure`: "
                "who is in between can read and change everything; `dispy secret` ends that",
                node.name, node.ip_addr,
            )  # fmt: skip
        self.offering.found(node)

    def node_back(self, node: "RemoteNode") -> None:
        """Offer a node to the clusters that came while its link was broken."""
        self.offering.back(node)

    def node_lost(self, node: "RemoteNode", why: str) -> None:
        """Forget a node that is gone; the scheduler has logged why."""
        self.recording.lost(node)
        self.offering.lost(node)

    def node_available(self, node: "RemoteNode") -> None:
        """Tell clusters that use a node what it has to spare."""
        for number in node.ready:
            if number in self.clusters:
                self.clusters[number]._node_available(node)

    def node_changed(
        self, cluster_id: int, node: "RemoteNode", status: Status, error: str | None = None
    ) -> None:
        """Tell a cluster that it has, or has lost, a node."""
        cluster = self.clusters.get(cluster_id)
        if cluster is not None:
            cluster._node_changed(node, status, error)

    def noted(self, cluster_id: int, node: "RemoteNode", level: int, text: str) -> None:
        """Log what has happened to a cluster on a node."""
        SCHEDULER_LOG.log(level, "%s", text)

    def node_free(self, cluster_id: int, node: "RemoteNode") -> None:
        """Offer a cluster a node again, to be set up anew."""
        cluster = self.clusters.get(cluster_id)
        if cluster is not None:
            self.offering.offer(cluster, node)

    def cleaned_up(self, cluster_id: int) -> None:
        """Wake whoever waits for the cleanup of a closed cluster."""
        self.preparations.cleaned_up(cluster_id)

    # -- the end

    def _at_exit(self) -> None:
        end_with_program(self, self._at_exit)

    def end(self) -> None:
        """End links and the local node; returns when that is done or has taken too long."""
        if self.ended:
            return
        self.ended = True
        with undisturbed():
            local, cleans = self.local.node, self.preparations.is_cleaning
            if self._scheduler is not None or local is not None:
                self.hub.call(self._end_links)
            self.hub.end()
            self.recording.end()
            self.receiving.end()
            self._abandon_rest()
            if local is not None:
                local.wait(CLEANUP_SECONDS if cleans else 0.0)

    def _end_links(self) -> None:
        """On the hub: end what there is, also where Ctrl-C came while it was being made."""
        self.discovery.close()
        if not self.clusters:  # else the program fails, or was interrupted
            self.scheduler.part()
        self.scheduler.stop()
        self.local.disconnect()

    def _abandon_rest(self) -> None:
        """Free whoever still waits, such as exit functions that run after ours."""
        self.preparations.abandon()
        for cluster in self.clusters.values():
            cluster._open = False
        for job in list(self.jobs.values()):
            job.exception, job.status = "its program has ended", Status.Abandoned
            if job._finish is not None:
                job._finish.set()


_session: Session | None = None
_making = make_lock()


def get_session() -> Session:
    """Return this process's session, made when first asked for."""
    global _session
    with _making:  # nothing waits in here
        if _session is None:
            _session = Session()
        return _session


def _forget_after_fork() -> None:
    """A forked child has neither our threads nor our jobs; what it holds of ours is closed."""
    global _session, _making
    _making = make_lock()
    before, _session = _session, None
    if before is not None:
        forget_after_fork(before)


def forget_after_fork(before: Session) -> None:
    """Close a forked child's copy of a session."""
    atexit.unregister(before._at_exit)
    before.forked = True
    for cluster in before.clusters.values():
        cluster._guard = make_lock()  # whoever held the old one does not run here
        cluster._open = False
    if before._scheduler is not None:
        before._scheduler.disown()
    if before.local.node is not None:
        before.local.node.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
