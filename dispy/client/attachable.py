"""Clusters that programs leave to a shared scheduler, and attach to: by name and key.

Each has a session of its own, so that whoever attaches takes over all that the scheduler has of
it, and nothing else.
"""

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from dispy.client.cluster import JobCluster
from dispy.client.collecting import Collecting, KeptJob, id_of
from dispy.client.ending import PATIENCE_SECONDS, ends_at_once, release_imports, undisturbed
from dispy.client.files import Files
from dispy.client.isolation import ClusterIsolation
from dispy.client.nodes import NodeAllocate
from dispy.client.opening import Opening
from dispy.client.settings import client_credentials
from dispy.client.shared import SharedJobCluster, SharedSession, address_of
from dispy.model.errors import DispyError
from dispy.model.statuses import Status
from dispy.protocol.claims import claim_of
from dispy.protocol.messages import Kind
from dispy.scheduler.claims import precedence_of, rules_in
from dispy.worker import inside

if TYPE_CHECKING:
    from dispy.client.holding import HoldingScheduler
    from dispy.scheduler.nodes import RemoteNode
    from dispy.scheduler.service import Scheduler

logger = logging.getLogger("dispy.client")

STEP_SECONDS = 1.0  # of waiting, between looks whether the cluster is still ours
LEFT = "its program has left the cluster to the scheduler: attach to it to get the job"


@dataclass(slots=True)
class Found:
    """What a program that attaches is told."""

    token: str = ""  # of the conversation with the scheduler from now on
    first: int = 1  # number that its own jobs may have
    number: int = 0  # of the cluster
    computation: str = ""  # name
    table: dict[str, Any] = field(default_factory=dict)  # as the cluster was opened
    nodes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # that the scheduler has
    jobs: list[tuple[int, bytes | None]] = field(default_factory=list)  # number and label

    @property
    def settings(self) -> dict[str, Any]:
        """What nodes were told of the cluster."""
        settings = self.table.get("settings")
        return settings if isinstance(settings, dict) else {}

    def opening(self) -> Opening:
        """Return what the cluster was opened with, but for its code."""
        settings = self.settings
        return Opening(
            self.computation, settings.get("program") is True, frozenset(),
            settings.get("setup") is True, settings.get("cleans_up") is True,
            ClusterIsolation(self.computation, str(settings.get("isolation")), False),
            Files([], []), settings, b"",
        )  # fmt: skip

    def allocations(self) -> list[NodeAllocate]:
        """Return which nodes the cluster may use, as far as its program could say."""
        return [NodeAllocate(*rule) for rule in rules_in(self.table) or ()]


class AttachableSession(SharedSession):
    """The session of one cluster, which others may attach to."""

    kind = KeptJob  # of its jobs

    def __init__(self, address: tuple[str, int], name: str, key: str) -> None:
        self.claim, self.identity = claim_of(name, key), os.urandom(16).hex()
        self.found: Found | None = None  # where it was attached to
        self.has_own_nodes = False  # it says itself which its cluster may use from now on
        self.collecting = Collecting(self)
        super().__init__(address)

    @property
    def place(self) -> tuple[Any, ...]:
        """Where it is among the sessions of this program."""
        return (*self.address, self.identity)

    @property
    def remote(self) -> "HoldingScheduler":
        """The scheduler; only for calls on the hub."""
        return cast("HoldingScheduler", self.scheduler)

    def _make_scheduler(self, identity: str, name: str) -> "Scheduler":
        from dispy.client.holding import HoldingScheduler
        from dispy.client.shared_offering import SharedOffering

        made = HoldingScheduler(self, self.address, name, self.proof.credentials)
        self.offering = SharedOffering(self, made)
        return cast("Scheduler", made)  # it has what a session asks of one

    def attach(self) -> Found:
        """Take the cluster over, and return what there is. Raises DispyError."""
        found = Found()
        self.hub.call(self._attach, found)
        self.found = found
        self.numbers, self.cluster_numbers = count(found.first), count(found.number)
        return found

    def _attach(self, found: Found) -> None:
        from dispy.client.holding import take_over

        take_over(self, f"{socket.gethostname()}, process {os.getpid()}", found)

    def open(self, cluster: JobCluster, settings: dict[str, Any], content: bytes) -> None:
        """Take in the cluster; with its jobs, where it was attached to."""
        if self.found is not None:
            jobs = [_job(cluster, number, label) for number, label in self.found.jobs]
            attached = cast("AttachedCluster", cluster)
            attached.jobs = jobs
            self.jobs.update((job._number, job) for job in jobs)
            cluster._pending += len(jobs)
        super().open(cluster, settings, content)

    def _look_again(self) -> None:
        super()._look_again()
        self.collecting.tell()

    def opening_for(
        self, node: "RemoteNode", cluster_id: int, settings: dict[str, Any], content: bytes
    ) -> tuple[dict[str, Any], bytes]:
        """Return code for a node with another Python; raises DispyError where it is not here."""
        if self.found is not None:
            raise DispyError(
                f"node {node.name} runs another Python, for which the program that opened the "
                f"cluster has left no code"
            )
        return super().opening_for(node, cluster_id, settings, content)

    # -- the end

    def leave(self, cluster: JobCluster, keep: float | None, timeout: float | None) -> bool:
        """In a greenlet of the hub: leave the cluster once the scheduler has all; or return False.

        keep, timeout: seconds.
        """
        cluster._take_fresh()
        self.collecting.tell()
        if keep is not None:
            self.remote.say(Kind.KEEP, [keep])
        if not self._is_with_scheduler(cluster, timeout):
            return False
        with cluster._guard:
            cluster._open = False
        cluster._take_fresh()  # what was submitted meanwhile
        if not self._is_with_scheduler(cluster, timeout):
            cluster._open = not self.remote.is_left
            return False
        self.collecting.tell()
        self.remote.part()
        self._give_away(cluster, LEFT, is_told=False)
        return True

    def _is_with_scheduler(self, cluster: JobCluster, timeout: float | None) -> bool:
        """Wait until the scheduler has all that it was told of the cluster, and all that jobs
        need of this program."""
        remote, deadline = self.remote, None if timeout is None else monotonic() + timeout
        while not remote.is_left:  # another program may attach meanwhile
            left = STEP_SECONDS if deadline is None else max(0.0, deadline - monotonic())
            left = min(left, STEP_SECONDS)
            if remote.was_heard(left) and remote.questions.has_brought(cluster._number, left):
                return True
            if deadline is not None and monotonic() >= deadline:
                return False
        return False

    def lose(self, why: str) -> None:
        """On the hub: close the cluster here, as the scheduler has said that it is over."""
        for cluster in list(self.clusters.values()):
            with cluster._guard:
                cluster._open = False
            left = cluster._pending
            logger.warning("cluster %s is closed here, with %d jobs: %s", cluster.name, left, why)
            self._give_away(cluster, why, is_told=True)

    def _give_away(self, cluster: JobCluster, why: str, is_told: bool) -> None:
        """End the cluster here and nowhere else. is_told: its callbacks get its jobs."""
        self.remote.is_left = True
        jobs = cluster._unfinished()
        self.forget([job._number for job in jobs])
        for job in jobs:
            self.jobs.pop(job._number, None)
        if is_told:
            cluster._end(jobs, Status.Abandoned, why, None)
        else:
            end_quietly(cluster, jobs, why)
        self.close(cluster)

    def _at_exit(self) -> None:
        if not self.ended:
            leave_at_exit(self)
        super()._at_exit()


def end_quietly(cluster: JobCluster, jobs: Sequence[Any], why: str) -> None:
    """Have whoever waits for these jobs go on, without a callback: they have not failed."""
    for job in jobs:
        job._payload, job.exception = None, why
        job.status = Status.Abandoned
    for listener in list(cluster._listeners):
        listener(jobs)
    cluster._settle(len(jobs), 0)
    for job in jobs:
        if job._finish is not None:
            job._finish.set()


def leave_at_exit(session: AttachableSession) -> None:
    """Leave the cluster of a program that ends, once the scheduler has all that was submitted."""
    release_imports()
    try:
        for cluster in list(session.clusters.values()):
            is_left = session.hub.call(session.leave, cluster, None, PATIENCE_SECONDS)
            if not is_left and cluster._open and not ends_at_once():
                logger.warning(
                    "the program has ended, and the scheduler has not heard of all jobs of %s; "
                    "Ctrl-C ends it at once", cluster.name,
                )  # fmt: skip
                session.hub.call(session.leave, cluster, None, None)
    except KeyboardInterrupt:
        logger.warning("jobs that the scheduler has not heard of are lost")
    with undisturbed():
        session.clusters.clear()  # nobody waits for its jobs here
        session.end()


def _job(cluster: JobCluster, number: int, label: bytes | None) -> KeptJob:
    job = KeptJob(number=number)
    job.submit_time = None
    job._payload = b""  # the scheduler has it
    if label is not None:
        job.id = id_of(label, number)
    job._cluster = cluster
    return job


class AttachedCluster(SharedJobCluster):
    """A cluster that another program has opened. jobs: those that nobody has collected."""

    def __init__(
        self,
        name: str,
        key: str,
        nodes: Any,
        scheduler: str | None,
        port: int | None,
        options: dict[str, Any],
    ) -> None:
        """See `SharedJobCluster.attach`."""
        inside.refuse_to_open()
        said = ("secret", "certfile", "keyfile", "cafile", "insecure")
        proof = {each: options.get(each) or None for each in said}
        self.scheduler_ip_addr, self.scheduler_port = address_of(scheduler, port)
        self.key, self.jobs = key, list[KeptJob]()
        self._own = AttachableSession((self.scheduler_ip_addr, self.scheduler_port), name, key)
        try:
            self._own.proof.use(client_credentials(**proof))
            found = self._own.attach()
            self._own.has_own_nodes = nodes is not None
            precedence = precedence_of(found.table)
            self.exclusive, self.priority = precedence.exclusive, precedence.priority
            self.weight = precedence.weight
            JobCluster.__init__(
                self, cast("Any", found.opening()), found.allocations() if nodes is None else nodes,
                **{**_as_opened(found), "recover_file": False, "local_node": False, **options},
            )  # fmt: skip
        except BaseException:
            self._end_own()
            raise
        self.name = name
        self._calls.kind = self._own.kind


def _as_opened(found: Found) -> dict[str, Any]:
    table = found.table
    return {
        "recover_file": False, "reentrant": table.get("reentrant") is True,
        "retries": table.get("retries"), "pulse_interval": table.get("pulse"),
        "stream": found.settings.get("stream"),
    }  # fmt: skip
