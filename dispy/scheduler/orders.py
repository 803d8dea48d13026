"""Carries out what the core orders: frames to nodes, and words to the owner of the jobs."""

from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from dispy.model.statuses import Status
from dispy.net.waking import Awake
from dispy.protocol.messages import Kind, Payload
from dispy.scheduler.columns import send_jobs
from dispy.scheduler.given import Given
from dispy.scheduler.nodes import Nodes, RemoteNode
from dispy.scheduler.owner import JobsOwner
from dispy.scheduling.actions import (
    Action,
    CancelOnNode,
    Drop,
    GiveUp,
    Leave,
    Recall,
    Requeued,
    RunBatch,
)
from dispy.scheduling.core import Scheduling

if TYPE_CHECKING:
    from dispy.scheduler.closing import Closing
    from dispy.scheduler.results import Results

UNREADABLE = "its arguments cannot be read any more from where the scheduler had kept them"


class Orders:
    """Of one scheduler, on its hub; `closing` and `results` are set by whoever makes all three."""

    closing: "Closing"
    results: "Results"

    def __init__(
        self, core: Scheduling, nodes: Nodes, owner: JobsOwner, given: Given, awake: Awake
    ) -> None:
        self._core, self._nodes, self._owner = core, nodes, owner
        self._given, self._awake = given, awake

    def perform(self, actions: Sequence[Action], node: RemoteNode | None = None) -> None:
        """Carry out orders in turn; `node` is the one that an event was about."""
        for action in actions:
            if isinstance(action, RunBatch):
                self._run(self._nodes[action.node_id], action)
            elif isinstance(action, Requeued):
                assert node is not None
                self._given.taken(node.node_id, action.jobs)
                self._owner.requeued(
                    action.cluster_id, node, action.jobs, action.reason,
                    action.cut_short, action.died,
                )  # fmt: skip
            elif isinstance(action, GiveUp):
                where = None if action.status == Status.Cancelled else node
                if where is not None:
                    self._given.taken(where.node_id, action.jobs)
                self._owner.given_up(
                    action.cluster_id, where, action.jobs, action.status, action.tell()
                )
            elif isinstance(action, CancelOnNode):
                self._nodes[action.node_id].tell(Kind.CANCEL, [action.cluster_id, [action.job]])
            elif isinstance(action, Recall):
                body = [action.cluster_id, list(action.jobs)]
                self._nodes[action.node_id].tell(Kind.RECALL, body)
            elif isinstance(action, Drop):
                self._nodes[action.node_id].tell(Kind.DROP, [list(action.jobs)])
            elif isinstance(action, Leave):
                self.closing.close(action)

    def _run(self, node: RemoteNode, batch: RunBatch) -> None:
        assert node.link is not None, "the core gives nothing to a node without a link"
        cluster_id, jobs = batch.cluster_id, batch.jobs
        options = self.results.with_attempts(cluster_id, jobs, self._owner.options)
        self._given.sent(node.node_id, jobs, options)
        order = node.reserve()  # what it is told later comes after this

        def send(payloads: Sequence[Payload | None]) -> None:
            found = [payload for payload in payloads if payload is not None]
            kept = jobs
            if len(found) < len(jobs):
                kept = tuple(
                    job for job, each in zip(jobs, payloads, strict=True) if each is not None
                )
                self._forfeit(node, cluster_id, set(jobs).difference(kept))
            node.fill(order, lambda link: send_jobs(link, cluster_id, kept, found, options))

        self._owner.hand_over(node, cluster_id, jobs, send)
        self._owner.started(cluster_id, node, jobs)
        self._awake.passed_on(len(jobs), self._core.clusters[cluster_id].duration)

    def _forfeit(self, node: RemoteNode, cluster_id: int, jobs: Iterable[int]) -> None:
        """Give up jobs that cannot be sent to their node: nobody has their arguments any more."""
        gone = self._core.jobs_finished(node.node_id, cluster_id, list(jobs), None, monotonic())
        if gone:
            self._given.taken(node.node_id, gone)
            self._owner.given_up(cluster_id, node, gone, Status.Abandoned, UNREADABLE)
