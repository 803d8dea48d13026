"""The owner of all jobs of a shared scheduler: tells each client what is its, once it is safe."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dispy.model.statuses import Status
from dispy.protocol.frames import Buffer
from dispy.protocol.messages import Kind, Payload, split_payloads
from dispy.scheduler.calls import Found
from dispy.scheduler.client import SLOT_BITS, number_there
from dispy.scheduler.clients import Clients, table_of
from dispy.scheduler.journal_entries import Given, NodeGone, NodeKnown, Returned
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.owner import FilesTaker
from dispy.shipping.contents import Content

logger = logging.getLogger("dispy.scheduler")


class Telling:
    """The `JobsOwner` of a scheduler service, on its hub."""

    def __init__(self, clients: Clients) -> None:
        self._clients, self._durable = clients, clients.durable
        self.when_safe = clients.durable.when_safe

    @property
    def options(self) -> Mapping[int, dict[str, Any]]:
        """What was said of single jobs."""
        return self._clients.options

    def _tell(
        self, number: int, kind: int, rest: list[Any], buffers: Sequence[Buffer] = ()
    ) -> None:
        """Tell the client whose cluster this is how things stand."""
        client = self._clients.of(number)
        if client is not None:
            client.say(kind, [number_there(number), *rest], buffers)

    # -- jobs on their way

    def hand_over(
        self,
        node: RemoteNode,
        cluster_id: int,
        jobs: Sequence[int],
        send: Callable[[Found], None],
    ) -> None:
        """Call `send` once it is written down that this node has these jobs."""
        self._durable.record(Given(node.node_id, jobs))
        self._durable.when_safe(lambda: self._clients.calls.fetch(jobs, send))

    def started(self, cluster_id: int, node: RemoteNode, jobs: Sequence[int]) -> None:
        """Tell the client where its jobs are, once no kill can take them from there."""

        def tell() -> None:
            there = self._clients.scheduler.standing.jobs_at(cluster_id, node.node_id)
            numbers = [number_there(job) for job in jobs if job in there]
            if numbers:
                self._tell(cluster_id, Kind.STARTED, [node.node_id, numbers])

        self._durable.when_safe(tell)

    def requeued(
        self,
        cluster_id: int,
        node: RemoteNode,
        jobs: Sequence[int],
        why: str,
        cut_short: bool,
        died: bool,
    ) -> None:
        """Tell the client that these jobs wait again."""
        self._durable.record(Returned(jobs, cut_short, died))
        self._clients.files.relay.forget(jobs)
        self._clients.counts.requeued(len(jobs))
        self._tell(cluster_id, Kind.REQUEUED, [node.node_id, list(map(number_there, jobs)), why])

    def provisional(self, cluster_id: int, node: RemoteNode, job: int, value: Payload) -> None:
        """Hand on a value that a job has sent before its end."""
        client = self._clients.of(cluster_id)
        if client is not None:
            (packed,), buffers = split_payloads([value])
            body = [number_there(cluster_id), node.node_id, number_there(job), packed]
            client.outbox.tell(Kind.VALUE, body, buffers, cluster_id, (), len(value))
            self._note(node)  # with it: nothing else says, after a restart, that it was told

    def output(
        self, cluster_id: int, node: RemoteNode, job: int, descriptor: int, offset: int, text: bytes
    ) -> None:
        """Hand on what a running job has written."""
        rest = [node.node_id, number_there(job), descriptor, offset, text]
        self._tell(cluster_id, Kind.WROTE, rest)

    # -- jobs at their end

    def finished(
        self,
        cluster_id: int,
        node: RemoteNode,
        jobs: Sequence[int],
        starts: Sequence[float],
        ends: Sequence[float],
        results: Sequence[Payload],
        extras: Mapping[int, dict[str, Any]],
    ) -> None:
        """Hand results to the client."""
        if self._tells_singly(cluster_id, jobs):
            for at, job in enumerate(jobs):
                extra = {0: extras[at]} if at in extras else {}
                self.finished(
                    cluster_id, node, [job], [starts[at]], [ends[at]], [results[at]], extra
                )
            return
        self._clients.counts.ended(len(jobs), extras.values())
        column, buffers = split_payloads(results)
        numbers = list(map(number_there, jobs))
        told = [[at, extra] for at, extra in extras.items()]
        columns = [node.node_id, numbers, list(starts), list(ends), column, told]
        size = sum(map(len, results)) + sum(map(_bytes_of, extras.values()))
        self._end(cluster_id, jobs, Kind.ENDED, columns, buffers, size)

    def given_up(
        self,
        cluster_id: int,
        node: RemoteNode | None,
        jobs: Sequence[int],
        status: Status,
        reason: str,
    ) -> None:
        """Tell the client that these jobs are final without a result."""
        if self._tells_singly(cluster_id, jobs):
            for each in jobs:
                self.given_up(cluster_id, node, [each], status, reason)
            return
        self._clients.counts.given_up(len(jobs), status)
        where = None if node is None else node.node_id
        rest = [where, list(map(number_there, jobs)), int(status), reason]
        self._end(cluster_id, jobs, Kind.GIVEN_UP, rest, (), len(reason))

    def _tells_singly(self, cluster_id: int, jobs: Sequence[int]) -> bool:
        """Whether each of these jobs may be collected on its own."""
        client = self._clients.of(cluster_id)
        return client is not None and bool(client.holder) and len(jobs) > 1

    def _end(
        self,
        cluster_id: int,
        jobs: Sequence[int],
        kind: int,
        rest: list[Any],
        buffers: Sequence[Buffer],
        size: int,
    ) -> None:
        client = self._clients.of(cluster_id)
        self._clients.drop(jobs)
        if client is None or cluster_id not in client.clusters:
            return  # it was closed meanwhile
        client.clusters[cluster_id].difference_update(jobs)
        body = [number_there(cluster_id), *rest]
        client.outbox.tell(kind, body, buffers, cluster_id, jobs, size + 32 * len(jobs))

    # -- nodes

    def node_found(self, node: RemoteNode) -> None:
        """Tell clients of a node that decide themselves which nodes they use: by ALLOT."""
        self._note(node)
        self._introduce(node)

    def _introduce(self, node: RemoteNode) -> None:
        for client in self._clients:
            if client.wants_all:
                client.meet(node.node_id, Kind.NODE, [node.node_id, table_of(node)])
        self._clients.recruiting.found(node)

    def hungry(self, clusters: set[int]) -> None:
        """Give clusters more nodes that have none left for jobs that wait."""
        self._clients.recruiting.look(clusters)

    def _note(self, node: RemoteNode) -> None:
        place = node.node_id, node.hello.identity, node.name, node.ip_addr, node.port
        self._durable.record(NodeKnown(*place, said=node.said))

    def node_back(self, node: RemoteNode) -> None:
        """Tell clients what it is like: some may know it from an earlier scheduler alone."""
        for client in self._clients:
            if node.node_id in client.met:
                client.say(Kind.NODE, [node.node_id, table_of(node)])
        self._introduce(node)

    def node_lost(self, node: RemoteNode, why: str) -> None:
        """Tell clients that know it."""
        self._durable.record(NodeGone(node.node_id))
        self._clients.recruiting.lost(node)
        for client in self._clients:
            if node.node_id in client.met:
                client.met.discard(node.node_id)
                client.say(Kind.LOST, [node.node_id, why])

    def node_available(self, node: RemoteNode) -> None:
        """Tell those who use it what it has to spare."""
        for slot in {number >> SLOT_BITS for number in node.ready}:
            client = self._clients.of(slot << SLOT_BITS)
            if client is not None:
                client.say(Kind.NODE, [node.node_id, table_of(node)])

    def node_changed(
        self, cluster_id: int, node: RemoteNode, status: Status, error: str | None = None
    ) -> None:
        """Tell a client that its cluster has, or has lost, a node."""
        self._clients.recruiting.answered(cluster_id, node)
        self._tell(cluster_id, Kind.CHANGED, [node.node_id, int(status), error])

    def noted(self, cluster_id: int, node: RemoteNode, level: int, text: str) -> None:
        """Have it in both logs: the program's, whose cluster it is, and ours."""
        logger.log(level, "%s", text)
        self._tell(cluster_id, Kind.NOTED, [node.node_id, level, text])

    def node_free(self, cluster_id: int, node: RemoteNode) -> None:
        """Tell a client that its cluster may be set up there again."""
        self._tell(cluster_id, Kind.FREE, [node.node_id])

    def cleaned_up(self, cluster_id: int) -> None:
        """Tell a client that its closed cluster has been cleaned up everywhere."""
        self._tell(cluster_id, Kind.CLEANED_UP, [])

    # -- what nodes ask for

    def content(self, digest: bytes) -> Content | None:
        """Return what nodes may ask for: what clients need and have brought."""
        return self._clients.files.contents.get(digest)

    @property
    def receiving(self) -> FilesTaker:
        """Return what passes files of jobs on."""
        return self._clients.files.relay

    def refusal(self, node: RemoteNode, text: str) -> str:
        """Return why a node cannot run a computation."""
        return text

    def opening_for(
        self, node: RemoteNode, cluster_id: int, settings: dict[str, Any], content: bytes
    ) -> tuple[dict[str, Any], bytes]:
        """Return what the program has translated for another Python; raises DispyError."""
        return self._clients.files.opening(node, cluster_id, settings)


def _bytes_of(extra: Mapping[str, Any]) -> int:
    """Return about how many bytes a job's extra takes: its output is what may be long."""
    return sum(len(value) for value in extra.values() if isinstance(value, (str, bytes)))
