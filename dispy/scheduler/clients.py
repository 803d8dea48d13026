"""The client programs of a shared scheduler: whose jobs are whose, and what each is told.

To the scheduler this is the one owner of all jobs. A client counts its jobs and clusters itself;
here and towards nodes their numbers are led by the client's slot (`number_here`). What is said
either way goes through a conversation (`dispy.protocol.conversation`), so no broken link loses or
doubles any of it, and a client may be away for as long as it is remembered.

On the scheduler's hub; nothing here waits.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import gevent

from dispy.model.errors import DispyError
from dispy.model.statuses import Status
from dispy.net.link import Link
from dispy.protocol.conversation import Conversation
from dispy.protocol.frames import Buffer, Frame, FrameRefused, Shared
from dispy.protocol.messages import Kind, Payload, join_payloads, split_payloads
from dispy.scheduler.claims import check_claims, standing_of
from dispy.scheduler.nodes import RemoteNode
from dispy.shipping.contents import Content

if TYPE_CHECKING:
    from dispy.scheduler.service import Scheduler

logger = logging.getLogger("dispy.scheduler")

SLOT_BITS = 40  # of a number, those that the client counts with
NUMBERS = 1 << SLOT_BITS


def number_here(slot: int, number: int) -> int:
    """Return the number by which a client's job or cluster is known here; raises FrameRefused."""
    if not 0 <= number < NUMBERS:
        raise FrameRefused(f"{number} is no number of a job or cluster")
    return slot << SLOT_BITS | number


def number_there(number: int) -> int:
    """Return the number by which the client knows it."""
    return number & (NUMBERS - 1)


class Client:
    """One program, connected or not."""

    def __init__(self, slot: int, client_id: str, name: str) -> None:
        self.slot, self.client_id, self.name = slot, client_id, name
        self.token = os.urandom(16).hex()  # of the conversation: who forgets the other begins anew
        self.conversation = Conversation()
        self.link: Link | None = None
        self.clusters: dict[int, set[int]] = {}  # open ones and their jobs that are not final
        self.waited_for: gevent.Greenlet[..., None] | None = None  # what gives it up

    def say(self, kind: int, body: list[Any], buffers: Sequence[Buffer] = ()) -> None:
        """Tell it, now or when it is back."""
        said = self.conversation.say(kind, body, buffers)
        if self.link is not None:
            self.link.send(Kind.SAID, [said.number, kind, body], buffers)

    def came(self, link: Link, heard: int) -> None:
        """Go on over a new link, with a client that has heard so much; raises FrameRefused."""
        again = self.conversation.again(heard)
        before, self.link = self.link, link
        if self.waited_for is not None:
            self.waited_for.kill(block=False)
            self.waited_for = None
        if before is not None:
            before.close("the client has connected anew")
        for said in again:
            link.send(Kind.SAID, [said.number, said.kind, said.body], said.buffers)


class Clients:
    """The `JobsOwner` of a scheduler service."""

    def __init__(self, zombie_seconds: float = 0.0) -> None:
        """zombie_seconds: for which one that is away is remembered; 0: for ever."""
        self._zombie_seconds = zombie_seconds
        self.scheduler: Scheduler  # set by whoever makes both
        self.options: dict[int, dict[str, Any]] = {}
        self.receiving = NoFiles()
        self._clients: dict[str, Client] = {}
        self._slots: dict[int, Client] = {}
        self._counter = count(1)  # 2**22 of them leave numbers below 2**62
        self._payloads: dict[int, Payload] = {}
        self._handlers: dict[int, Callable[[Client, list[Any], Sequence[Buffer]], None]] = {
            Kind.CLUSTER: self._open,
            Kind.SUBMIT: self._submit,
            Kind.CANCEL: self._cancel,
            Kind.CLOSE: self._close,
            Kind.ALLOT: self._allot,
            Kind.WITHDRAW: self._withdraw,
            Kind.DEPART: self._depart,
            Kind.ASK: self._answer,
        }

    # -- clients

    def client(self, client_id: str, name: str, token: object) -> Client:
        """Return the client that has proven this identity; a new one where it is not known.

        token: of the conversation that it remembers.
        """
        known = self._clients.get(client_id)
        if known is not None and known.token != token:
            self._give_up(known)
            known = None
        if known is None:
            known = Client(next(self._counter), client_id, name)
            self._clients[client_id] = self._slots[known.slot] = known
            for node in self.scheduler.nodes.values():
                if node.settled:
                    known.say(Kind.NODE, [node.node_id, table_of(node)])
        return known

    def links(self) -> list[Link]:
        """Return the links of all clients that are connected."""
        return [client.link for client in self._clients.values() if client.link is not None]

    def read(self, client: Client, frame: Frame) -> None:
        """Take what a client says; raises FrameRefused."""
        if frame.kind == Kind.HEARD:
            client.conversation.taken(frame.body[0])
            return
        if frame.kind != Kind.SAID:
            raise FrameRefused(f"{Kind(frame.kind).name} is not for a scheduler to receive")
        number, kind, body = frame.body
        handler = self._handlers.get(kind)
        if handler is None:
            raise FrameRefused(f"{Kind(kind).name} is not for a scheduler to receive")
        if client.conversation.is_new(number):
            handler(client, body, frame.buffers)

    def turn_over(self, client: Client) -> None:
        """Tell a client how far it has been heard, once for all that came with one read."""
        conversation = client.conversation
        if conversation.confirm(conversation.arrived) and client.link is not None:
            client.link.send(Kind.HEARD, [conversation.arrived])

    def left(self, client: Client, link: Link, why: str) -> None:
        """Take note that a link to a client has ended."""
        if client.link is link:
            client.link = None
            if client.clusters:
                logger.info("client %s is away: %s; its jobs go on", client.name, why)
                if self._zombie_seconds:
                    client.waited_for = gevent.spawn_later(
                        self._zombie_seconds, self._give_up, client
                    )
            else:
                logger.info("client %s left", client.name)
                self._forget(client)

    def _give_up(self, client: Client) -> None:
        """Close all that a client has left open: it has been away for too long, or begins anew."""
        logger.warning("client %s did not come back: its jobs are dropped", client.name)
        link, client.link = client.link, None
        if link is not None:
            link.close()
        self._close_clusters(client)
        self._forget(client)

    def _close_clusters(self, client: Client) -> None:
        for cluster_id in list(client.clusters):
            self._drop(client.clusters.pop(cluster_id))
            self.scheduler.close_cluster(cluster_id)

    def stop(self) -> None:
        """End all links, then close what clients have left open."""
        for link in self.links():
            link.close()
        for client in list(self._clients.values()):
            self._close_clusters(client)

    def _forget(self, client: Client) -> None:
        del self._clients[client.client_id], self._slots[client.slot]

    def of(self, number: int) -> Client | None:
        """Return whose cluster or job this is."""
        return self._slots.get(number >> SLOT_BITS)

    def all(self) -> list[Client]:
        """Return all that are known, connected or not."""
        return list(self._clients.values())

    def _tell(
        self, number: int, kind: int, rest: list[Any], buffers: Sequence[Buffer] = ()
    ) -> None:
        """Tell the client whose cluster this is."""
        client = self.of(number)
        if client is not None:
            client.say(kind, [number_there(number), *rest], buffers)

    # -- what clients say

    def _own_cluster(self, client: Client, number: int) -> int:
        here = number_here(client.slot, number)
        if here not in client.clusters:
            raise FrameRefused(f"cluster {number} is not open")
        return here

    def _open(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        number, name, table = body
        here = number_here(client.slot, number)
        if here in client.clusters:
            raise FrameRefused(f"cluster {number} is open already")
        settings, retries, pulse = table.get("settings"), table.get("retries"), table.get("pulse")
        if not isinstance(settings, dict):
            raise FrameRefused("CLUSTER has no settings")
        check_claims(settings)
        client.clusters[here] = set()
        (code,) = buffers
        assert not isinstance(code, Shared), "nobody passes memory to a scheduler"
        self.scheduler.open_cluster(
            here, name, settings, bytes(code), bool(table.get("reentrant")),
            float(pulse) if isinstance(pulse, (int, float)) and pulse > 0 else None,
            retries if type(retries) is int else None, standing_of(table),
        )  # fmt: skip

    def _submit(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        number, node_id, jobs, column, extras = body
        here = self._own_cluster(client, number)
        numbers = [number_here(client.slot, job) for job in jobs]
        unfinished = client.clusters[here]
        if not self._payloads.keys().isdisjoint(numbers):
            raise FrameRefused("SUBMIT has a job that was submitted before")
        for _, options in extras:
            check_claims(options)
        unfinished.update(numbers)
        self._payloads.update(zip(numbers, join_payloads(column, buffers), strict=True))
        for at, options in extras:
            self.options[numbers[at]] = options
        self.scheduler.submit(here, numbers, node_id)

    def _cancel(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        cluster = number_here(client.slot, body[0])
        for job in body[1]:
            here = number_here(client.slot, job)
            if here in client.clusters.get(cluster, ()):
                self.scheduler.cancel(cluster, here)

    def _close(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        here = self._own_cluster(client, body[0])
        self._drop(client.clusters.pop(here))
        self.scheduler.close_cluster(here)

    def _allot(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        number, node_id, slots, table = body
        here, own = self._own_cluster(client, number), table.get("own")
        own = check_claims(own) if isinstance(own, dict) and own else None
        node = self.scheduler.nodes.get(node_id)
        if node is not None and table.get("forgive"):
            self.scheduler.closing.forgive(node, here)
        self.scheduler.allocate(here, node_id, slots, own)

    def _withdraw(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        self.scheduler.deallocate(self._own_cluster(client, body[0]), body[1])

    def _depart(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        number, node_id, table = body
        here = self._own_cluster(client, number)
        again, terminate = bool(table.get("again")), bool(table.get("terminate"))
        self.scheduler.leave(here, node_id, again, terminate)

    def _answer(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        token, asked = body
        cluster, job, node_id = (asked.get(name) for name in ("cluster", "job", "node"))
        known = type(cluster) is int and number_here(client.slot, cluster) in client.clusters
        if not known:
            client.say(Kind.ANSWER, [token, {}])
            return
        here = number_here(client.slot, cluster)
        if isinstance(node_id, str):

            def answered(jobs: list[int] | None) -> None:
                client.say(Kind.ANSWER, [token, {"jobs": list(map(number_there, jobs or []))}])

            self.scheduler.questions.ask(self.scheduler.nodes.get(node_id), here, answered)
        elif type(job) is int:
            lines = self.scheduler.explain(here, number_here(client.slot, job))
            client.say(Kind.ANSWER, [token, {"lines": lines}])
        else:
            client.say(Kind.ANSWER, [token, {"lines": self.scheduler.explain_waiting(here)}])

    def _final(self, cluster_id: int, jobs: Sequence[int]) -> None:
        client = self.of(cluster_id)
        if client is not None and cluster_id in client.clusters:
            client.clusters[cluster_id].difference_update(jobs)
        self._drop(jobs)

    def _drop(self, jobs: Iterable[int]) -> None:
        take, options = self._payloads.pop, self.options
        for job in jobs:
            take(job, None)
            if options:
                options.pop(job, None)

    # -- what the scheduler tells, as the owner of its jobs

    def payloads(self, jobs: Sequence[int]) -> list[Payload]:
        """Return the packed calls of jobs."""
        return [self._payloads[job] for job in jobs]

    def content(self, digest: bytes) -> Content | None:
        """Return what nodes may ask for: nothing so far."""
        return None

    def refusal(self, node: RemoteNode, text: str) -> str:
        """Return why a node cannot run a computation."""
        return text

    def opening_for(
        self, node: RemoteNode, cluster_id: int, settings: dict[str, Any], content: bytes
    ) -> tuple[dict[str, Any], bytes]:
        """Raise DispyError: code for another Python is made by its program."""
        raise DispyError(
            f"node {node.name} runs {node.python}, another Python than the program, which a shared "
            f"scheduler cannot translate for it: run that node with the program's Python"
        )

    def payloads_for(self, node: RemoteNode, jobs: Sequence[int]) -> list[Payload]:
        """Return calls for a node with another Python, which has no cluster."""
        return self.payloads(jobs)

    def started(self, cluster_id: int, node: RemoteNode, jobs: Sequence[int]) -> None:
        """Tell the client where its jobs are."""
        self._tell(cluster_id, Kind.STARTED, [node.node_id, list(map(number_there, jobs))])

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
        self._final(cluster_id, jobs)
        column, buffers = split_payloads(results)
        numbers = list(map(number_there, jobs))
        told = [[at, extra] for at, extra in extras.items()]
        columns = [node.node_id, numbers, list(starts), list(ends), column, told]
        self._tell(cluster_id, Kind.ENDED, columns, buffers)

    def given_up(
        self,
        cluster_id: int,
        node: RemoteNode | None,
        jobs: Sequence[int],
        status: Status,
        reason: str,
    ) -> None:
        """Tell the client that these jobs are final without a result."""
        self._final(cluster_id, jobs)
        where = None if node is None else node.node_id
        numbers = list(map(number_there, jobs))
        self._tell(cluster_id, Kind.GIVEN_UP, [where, numbers, int(status), reason])

    def requeued(self, cluster_id: int, node: RemoteNode, jobs: Sequence[int], why: str) -> None:
        """Tell the client that these jobs wait again."""
        self._tell(cluster_id, Kind.REQUEUED, [node.node_id, list(map(number_there, jobs)), why])

    def provisional(self, cluster_id: int, node: RemoteNode, job: int, value: Payload) -> None:
        """Hand on a value that a job has sent before its end."""
        (packed,), buffers = split_payloads([value])
        self._tell(cluster_id, Kind.VALUE, [node.node_id, number_there(job), packed], buffers)

    def output(
        self, cluster_id: int, node: RemoteNode, job: int, descriptor: int, offset: int, text: bytes
    ) -> None:
        """Hand on what a running job has written."""
        rest = [node.node_id, number_there(job), descriptor, offset, text]
        self._tell(cluster_id, Kind.WROTE, rest)

    def node_found(self, node: RemoteNode) -> None:
        """Tell all clients of a node; each answers with ALLOT for clusters that may use it."""
        self._tell_all(Kind.NODE, [node.node_id, table_of(node)])

    def node_back(self, node: RemoteNode) -> None:
        """Nothing: clients know the node, and have answered."""

    def node_lost(self, node: RemoteNode) -> None:
        """Tell all clients."""
        self._tell_all(Kind.LOST, [node.node_id])

    def node_available(self, node: RemoteNode) -> None:
        """Tell those who use it what it has to spare."""
        users = {number >> SLOT_BITS for number in node.ready}
        for slot in users:
            if slot in self._slots:
                self._slots[slot].say(Kind.NODE, [node.node_id, table_of(node)])

    def node_changed(
        self, cluster_id: int, node: RemoteNode, status: Status, error: str | None = None
    ) -> None:
        """Tell a client that its cluster has, or has lost, a node."""
        self._tell(cluster_id, Kind.CHANGED, [node.node_id, int(status), error])

    def node_free(self, cluster_id: int, node: RemoteNode) -> None:
        """Tell a client that its cluster may be set up there again."""
        self._tell(cluster_id, Kind.FREE, [node.node_id])

    def cleaned_up(self, cluster_id: int) -> None:
        """Tell a client that its closed cluster has been cleaned up everywhere."""
        self._tell(cluster_id, Kind.CLEANED_UP, [])

    def _tell_all(self, kind: int, body: list[Any]) -> None:
        for client in self._clients.values():
            client.say(kind, body)


class NoFiles:
    """Takes no files of jobs so far."""

    def offered(
        self, node: RemoteNode, cluster_id: int, job: int, key: bytes, table: dict[str, Any]
    ) -> None:
        """Refuse it."""
        node.tell(Kind.TOOK, [key, "files of jobs do not go through a shared scheduler yet"])

    def piece(
        self, node: RemoteNode, key: bytes, offset: int, why: str | None, data: Buffer
    ) -> None:
        """Pass over what was not asked for."""


def table_of(node: RemoteNode) -> dict[str, Any]:
    """Return what clients are told of a node."""
    return {
        "name": node.name, "ip_addr": node.ip_addr, "port": node.port, "cpus": node.cpus,
        "python": node.hello.python, "implementation": node.hello.implementation,
        "platform": node.hello.platform, "version": node.hello.version,
        "identity": node.hello.identity, "available": node.available,
    }  # fmt: skip
