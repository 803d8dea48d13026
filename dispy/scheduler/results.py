"""Results and provisional values that a node sends: each batch is taken once, and of it what is
that node's."""

from collections.abc import Callable, Sequence
from time import monotonic, time

from dispy.net.waking import Awake
from dispy.protocol.frames import Buffer, Frame, Shared
from dispy.protocol.messages import join_payloads
from dispy.scheduler.cancels import tell_who_cancelled
from dispy.scheduler.columns import select
from dispy.scheduler.failing import Failures
from dispy.scheduler.given import Given
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.owner import JobsOwner
from dispy.scheduling.actions import Action
from dispy.scheduling.core import Scheduling

# Of results at most before a node may forget them; else with the beat.
ACKNOWLEDGE_FRAMES = 64
ACKNOWLEDGE_BYTES = 4 * 1024 * 1024  # of one with buffers, which keeps memory of the node


class Results:
    """Works on its scheduler's core; `perform` carries out orders about a node."""

    def __init__(
        self,
        core: Scheduling,
        owner: JobsOwner,
        given: Given,
        awake: Awake,
        perform: Callable[[Sequence[Action], RemoteNode], None],
    ) -> None:
        self._core, self._owner, self._given, self._awake = core, owner, given, awake
        self._failures = Failures(core, owner, perform)
        self.with_attempts = self._failures.with_attempts

    def _is_new(self, node: RemoteNode, frame: Frame) -> bool:
        """Take note of a number; False: it came before, and again after a broken link."""
        return self._core.results_arrived(node.node_id, frame.body[0])

    def _taken(self, node: RemoteNode, frame: Frame) -> None:
        """Let a node forget what it has sent, once that is safe here."""
        sequence, size = frame.body[0], sum(map(_size_of, frame.buffers))

        def forget() -> None:
            node.results_seen = sequence
            node.unacknowledged_bytes += size
            if (
                sequence - node.acknowledged >= ACKNOWLEDGE_FRAMES
                or node.unacknowledged_bytes >= ACKNOWLEDGE_BYTES
            ):
                node.acknowledge()

        self._owner.when_safe(forget)

    def take_value(self, node: RemoteNode, frame: Frame) -> None:
        """Take a value that a job has sent before its end (PROVISIONAL)."""
        _, cluster_id, job, value = frame.body
        if not self._is_new(node, frame):
            return
        node.said = frame.body[0]
        if self._given.has_job(node, cluster_id, job):
            (payload,) = join_payloads([value], frame.buffers)
            self._owner.provisional(cluster_id, node, job, payload)
        self._taken(node, frame)

    def take(self, node: RemoteNode, frame: Frame) -> None:
        """Take a node's RESULTS: the core's jobs end, and the owner is told."""
        if self._is_new(node, frame):
            self._take(node, frame)
            self._taken(node, frame)

    def _take(self, node: RemoteNode, frame: Frame) -> None:
        _, cluster_id, jobs, starts, ends, column, extras = frame.body
        results = join_payloads(column, frame.buffers)
        own = self._given.own_jobs(node, cluster_id, jobs)
        if len(own) < len(jobs):
            columns, extras = select(set(own), (jobs, starts, ends, results), extras)
            jobs, starts, ends, results = columns
        if not jobs:
            return
        seconds = max(0.0, sum(ends) - sum(starts))
        # Jobs that ended without having run, or by a worker's death, say nothing of durations.
        mean = seconds / len(jobs) or None
        self._awake.passed_back(len(jobs), seconds)
        if extras or self._failures.are_counted(node.node_id, cluster_id):
            self._failures.take(node, cluster_id, jobs, extras, mean)
        if extras and (cluster := self._core.clusters.get(cluster_id)) and cluster.cancelling:
            tell_who_cancelled(cluster, jobs, extras)
        counted = self._core.jobs_finished(node.node_id, cluster_id, jobs, mean, monotonic())
        if len(counted) < len(jobs):  # some wait again, or are named twice
            columns, extras = select(set(counted), (jobs, starts, ends, results), extras)
            jobs, starts, ends, results = columns
        node.jobs_done += len(jobs)
        node.run_seconds += seconds
        node.update_time = time()
        # Last, because it wakes threads that wait for the lock that this one holds.
        if jobs:
            self._owner.finished(cluster_id, node, jobs, starts, ends, results, dict(extras))


def _size_of(buffer: Buffer) -> int:
    return buffer.size if isinstance(buffer, Shared) else memoryview(buffer).nbytes
