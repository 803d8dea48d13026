"""What a shared scheduler tells a program: of its jobs, and of nodes, which are mirrored here.

A scheduler that was restarted, or that could not keep all it had to say, tells anew how things
stand: what it does not name from RESYNC to RESYNCED is not so any more.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Container, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

from dispy.client.mirrors import Speak, node_of
from dispy.model.statuses import Status
from dispy.model.texts import legible, one_line
from dispy.protocol.frames import Buffer, FrameRefused
from dispy.protocol.messages import Kind, join_payloads
from dispy.scheduler.columns import select
from dispy.scheduler.nodes import Nodes, RemoteNode

if TYPE_CHECKING:
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")

LOST_NODES = 1000  # that may still be named
CANCELS_KEPT = 1000  # reasons that were logged
SCHEDULER_LOG = logging.getLogger("dispy.scheduler")  # of what a program's own one would say
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
WAITS_AGAIN = "the scheduler was restarted, or has lost its node meanwhile"
UNMET = {"name": "a node that is gone", "port": 0, "cpus": 0}

Answer = Callable[[dict[str, Any]], object]


class Told:
    """Takes it for a session, on its hub. nodes: the mirrors. clusters: those that are open.

    speak: says something to a node of the scheduler.
    """

    def __init__(
        self,
        session: "Session",
        nodes: Nodes,
        clusters: Container[int],
        speak: Speak,
    ) -> None:
        self._session, self._nodes, self._clusters = session, nodes, clusters
        self._speak = speak
        self.answers: dict[int, Answer] = {}  # who waits for an ANSWER, by token
        self.news: dict[int, float] = {}  # cluster -> second (monotonic) of news of its jobs
        self._gone: dict[str, RemoteNode] = {}
        # Of each cluster, jobs that are on nodes, and on which.
        self._running: dict[int, dict[int, RemoteNode]] = defaultdict(dict)
        self._cancelled: set[tuple[int, str]] = set()  # clusters, and why, as it was logged
        self._stand_in: Callable[[str], RemoteNode] | None = None  # for nodes nobody knows of
        self._early: list[tuple[int, list[Any], Sequence[Buffer]]] = []
        self._standing: tuple[set[str], set[int]] | None = None  # nodes and jobs named so far
        self._handlers: dict[int, Callable[[list[Any], Sequence[Buffer]], None]] = {
            Kind.NODE: self._node,
            Kind.LOST: self._lost,
            Kind.STARTED: self._started,
            Kind.ENDED: self._ended,
            Kind.GIVEN_UP: self._given_up,
            Kind.REQUEUED: self._requeued,
            Kind.VALUE: self._value,
            Kind.WROTE: self._wrote,
            Kind.CHANGED: self._changed,
            Kind.FREE: self._free,
            Kind.CLEANED_UP: self._cleaned_up,
            Kind.ANSWER: self._answered,
            Kind.NOTED: self._noted,
            Kind.RESYNC: self._resync,
            Kind.RESYNCED: self._resynced,
        }

    def take(self, kind: int, body: list[Any], buffers: Sequence[Buffer]) -> None:
        """Take something that was told; raises FrameRefused."""
        handler = self._handlers.get(kind)
        if handler is None:
            raise FrameRefused(f"{Kind(kind).name} is not for a client to receive")
        handler(body, buffers)

    def expect(self, nodes: Sequence[RemoteNode], stand_in: Callable[[str], RemoteNode]) -> None:
        """Take what jobs have come to on nodes that have not been told of, or never will be."""
        self._gone.update((node.node_id, node) for node in nodes)
        self._stand_in = stand_in

    def has_running(self, cluster_id: int) -> bool:
        """Whether jobs of a cluster are on nodes."""
        return bool(self._running.get(cluster_id))

    def forget(self, cluster_id: int) -> None:
        """Forget a cluster that is closed."""
        self._running.pop(cluster_id, None)
        self.news.pop(cluster_id, None)
        for node in self._nodes.values():
            node.opened.discard(cluster_id)
            node.ready.discard(cluster_id)

    def forget_all(self) -> None:
        """Forget all nodes: the scheduler begins anew."""
        for node in list(self._nodes.values()):
            self._lose(node)
        self._running.clear()

    # -- how things stand

    def _resync(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        self._standing = set(), set()

    def _resynced(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        if self._standing is None:
            raise FrameRefused("RESYNCED without RESYNC")
        (nodes, jobs), self._standing = self._standing, None
        for cluster_id, running in list(self._running.items()):
            left: dict[str, list[int]] = defaultdict(list)
            for job in running.keys() - jobs:
                left[running[job].node_id].append(job)
            for mine in left.values():
                self._wait_again(cluster_id, running[mine[0]], mine, WAITS_AGAIN)
        for node in [node for node_id, node in self._nodes.items() if node_id not in nodes]:
            self._lose(node)
        early, self._early = self._early, []
        for kind, told, buffers in early:
            if told[1] not in self._nodes and told[1] not in self._gone:
                self._gone[told[1]] = node_of(told[1], UNMET, self._speak)
            self.take(kind, told, buffers)

    def _keep_early(self, kind: int, body: list[Any], buffers: Sequence[Buffer]) -> None:
        """Keep what comes of a node before that is told of: what lasts comes first after a restart
        of the scheduler, then how things stand."""
        if body[0] in self._clusters:
            self._early.append((kind, body, buffers))

    def _lose(self, node: RemoteNode, why: str = "the scheduler has it no more") -> None:
        if node.opened:  # else it is nothing to this program
            SCHEDULER_LOG.warning("node %s (%s) is lost: %s", node.name, node.ip_addr, why)
        for cluster_id in list(node.ready):  # of which a restarted scheduler need not know
            node.ready.discard(cluster_id)
            self._session.node_changed(cluster_id, node, Status.Closed)
        self._nodes.take_out(node)
        self._gone[node.node_id] = node
        if len(self._gone) > LOST_NODES:
            del self._gone[next(iter(self._gone))]
        self._session.node_lost(node, why)

    # -- nodes

    def _node(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        node_id, table = body
        if self._standing is not None:
            self._standing[0].add(node_id)
        node, known = node_of(node_id, table, self._speak), self._nodes.get(node_id)
        if known is not None:
            if node.hello.python:  # else a restarted scheduler has yet to meet it
                known.hello, known.cpus = node.hello, node.cpus
            if known.take_available(table.get("available")):
                self._session.node_available(known)
            return
        node.settled = True
        self._nodes.take_in(node)
        self._session.node_found(node)

    def _lost(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        node = self._nodes.get(body[0])
        if node is not None:
            self._lose(node, legible(body[1]))

    def _of(self, body: list[Any]) -> tuple[int, RemoteNode] | None:
        """Return the cluster and the node that a message begins with; None: they are no more."""
        node = self._nodes.get(body[1]) or self._gone.get(body[1])
        if node is None and self._stand_in is not None:
            node = self._gone[body[1]] = self._stand_in(body[1])
        return None if node is None or body[0] not in self._clusters else (body[0], node)

    def _own(self, jobs: Sequence[int]) -> list[int]:
        return [job for job in jobs if job in self._session.jobs]

    def _started(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        if (of := self._of(body)) is None or not (jobs := self._own(body[2])):
            return
        cluster_id, node = of
        running = self._running[cluster_id]
        if self._standing is not None:
            self._standing[1].update(jobs)
            moved = [job for job in jobs if job in running and running[job] is not node]
            for job in moved:
                self._wait_again(cluster_id, running[job], [job], WAITS_AGAIN)
        jobs = [job for job in jobs if job not in running]  # a RESYNC may have said it already
        running.update(dict.fromkeys(jobs, node))
        self._start(cluster_id, node, jobs)

    def _ended(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        of, (jobs, starts, ends, column, extras) = self._of(body), body[2:]
        if of is None:
            self._keep_early(Kind.ENDED, body, buffers)
            return
        results = join_payloads(column, buffers)
        own = self._own(jobs)
        if len(own) < len(jobs):
            columns, extras = select(set(own), (jobs, starts, ends, results), extras)
            jobs, starts, ends, results = columns
        if jobs:
            self._stop_running(*of, jobs)
            of[1].received_before += sum(map(len, results))
            self._session.finished(*of, jobs, starts, ends, results, dict(extras))

    def _given_up(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        cluster_id, node_id, jobs, status, reason = body
        if cluster_id not in self._clusters or not (jobs := self._own(jobs)):
            return
        if status not in (Status.Abandoned, Status.Cancelled, Status.Terminated):
            raise FrameRefused("GIVEN_UP names no final status")
        of = None if node_id is None else self._of([cluster_id, node_id])
        node = None if of is None else of[1]
        if node is not None:
            self._stop_running(cluster_id, node, jobs)
        for job in jobs:
            self._running[cluster_id].pop(job, None)
        self._tell_cancelled(cluster_id, jobs, status, reason)
        self._session.given_up(cluster_id, node, jobs, Status(status), reason)

    def _tell_cancelled(
        self, cluster_id: int, jobs: Sequence[int], status: int, reason: str
    ) -> None:
        """Log, once for each reason, that jobs were cancelled by somebody else than their user."""
        cluster = self._session.clusters[cluster_id]
        if status != Status.Cancelled or cluster._was_cancelled(self._session.jobs[jobs[0]]):
            return
        if (cluster_id, reason) not in self._cancelled:
            if len(self._cancelled) >= CANCELS_KEPT:
                self._cancelled.clear()
            self._cancelled.add((cluster_id, reason))
            logger.warning("jobs of %s end Cancelled: %s", cluster.name, one_line(reason))

    def _requeued(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        if (of := self._of(body)) is not None:
            running = self._running[of[0]]
            self._wait_again(*of, [job for job in self._own(body[2]) if job in running], body[3])

    def _wait_again(self, cluster_id: int, node: RemoteNode, jobs: Sequence[int], why: str) -> None:
        if jobs:
            self._stop_running(cluster_id, node, jobs)
            self._session.requeued(cluster_id, node, jobs, why)

    def _stop_running(self, cluster_id: int, node: RemoteNode, jobs: Sequence[int]) -> None:
        """Take jobs off a node; that they were there may not have been told."""
        running = self._running[cluster_id]
        missed = [job for job in jobs if running.pop(job, None) is None]
        self.news[cluster_id] = monotonic()
        if missed:
            self._start(cluster_id, node, missed)

    def _start(self, cluster_id: int, node: RemoteNode, jobs: Sequence[int]) -> None:
        """Have jobs run; what travels for them counts as sent to their node."""
        self.news[cluster_id] = monotonic()
        node.sent_before += sum(map(len, self._session.payloads(jobs)))
        self._session.started(cluster_id, node, jobs)

    def _value(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        if (of := self._of(body)) is None:
            self._keep_early(Kind.VALUE, body, buffers)
            return
        if not self._own([body[2]]):
            return
        (cluster_id, node), job = of, body[2]
        (value,) = join_payloads([body[3]], buffers)
        if job not in self._running[cluster_id]:  # that may not have been told
            self._running[cluster_id][job] = node
            self._session.started(cluster_id, node, [job])
        self._session.provisional(cluster_id, node, job, value)

    def _wrote(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        if (of := self._of(body)) is not None:
            self._session.output(*of, *body[2:])

    def _changed(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        if (of := self._of(body)) is None:
            return
        (cluster_id, node), (status, error) = of, body[2:]
        if status == Status.Initialized:
            if cluster_id in node.ready:
                return  # told again
            node.opened.add(cluster_id)
            node.ready.add(cluster_id)
        elif status == Status.Closed:
            if node.node_id in self._gone and error is None:
                return  # it was closed when that was lost
            node.opened.discard(cluster_id)
            node.ready.discard(cluster_id)
        else:
            raise FrameRefused("CHANGED names no status of a node")
        if error is not None:
            error = self._session.refusal(node, error)
        self._session.node_changed(cluster_id, node, Status(status), error)

    def _noted(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        cluster_id, node_id, level, text = body
        node = self._nodes.get(node_id) or self._gone.get(node_id)
        if level not in LEVELS:
            raise FrameRefused(f"NOTED has no level {level}")
        if node is None:
            return
        text = self._session.refusal(node, legible(text))
        self._session.noted(cluster_id, node, level, text)

    def _free(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        if (of := self._of(body)) is not None:
            self._session.node_free(*of)

    def _cleaned_up(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        self._session.cleaned_up(body[0])

    def _answered(self, body: list[Any], buffers: Sequence[Buffer]) -> None:
        answer = self.answers.pop(body[0], None)
        if answer is not None:
            answer(body[1])
