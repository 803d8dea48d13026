"""The client programs of a shared scheduler: who comes and goes, and whose clusters are whose.

A client counts its jobs and clusters itself; here and towards nodes their numbers are led by the
client's slot (`number_here`). What it says is numbered, so that no broken link loses or doubles any
of it (`dispy.protocol.conversation`), and so is what it is told (`dispy.scheduler.outbox`); it may
be away for as long as it is remembered.

On the scheduler's hub; nothing here waits.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import gevent

from dispy.model.events import event
from dispy.model.statuses import Status
from dispy.net.link import Link
from dispy.protocol.messages import Kind
from dispy.scheduler.budget import Budget
from dispy.scheduler.calls import Calls
from dispy.scheduler.client import SLOT_BITS, Client, number_there
from dispy.scheduler.counting import Counts
from dispy.scheduler.durable import Durable
from dispy.scheduler.journal_entries import (
    ClientCame,
    ClientForgotten,
    ClusterClosed,
    ClusterOpened,
    Heard,
    KnownFinals,
)
from dispy.scheduler.kept import KeptOutbox
from dispy.scheduler.names import name_of_cluster
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.outbox import Outbox

if TYPE_CHECKING:
    from dispy.scheduler.client_files import ClientFiles
    from dispy.scheduler.recruiting import Recruiting
    from dispy.scheduler.service import Scheduler

logger = logging.getLogger("dispy.scheduler")


class Clients:
    """Of one scheduler service."""

    def __init__(
        self,
        durable: Durable,
        budget: Budget,
        zombie_seconds: float = 0.0,
        life: int = 1,
    ) -> None:
        """zombie_seconds: for which one that is away is remembered; 0: for ever.

        life: how often the scheduler was begun.
        """
        self.durable, self._budget, self._life = durable, budget, life
        self._zombie_seconds = zombie_seconds
        self.scheduler: Scheduler  # set by whoever makes all of them
        self.files: ClientFiles
        self.recruiting: Recruiting
        self.calls = Calls(durable.journal, budget)
        self.options: dict[int, dict[str, Any]] = {}  # of jobs that have some
        self.opened: dict[int, ClusterOpened] = {}  # clusters, as they were written down
        self.counts = Counts()
        self._clients: dict[str, Client] = {}
        self._slots: dict[int, Client] = {}
        self._counter = count(1)  # 2**22 of them leave numbers below 2**62

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    # -- who is there

    def known(self, client_id: str) -> Client | None:
        """Return the client of this identity."""
        return self._clients.get(client_id)

    def client(self, client_id: str, name: str, token: object, holder: str = "") -> Client:
        """Return the client that has proven this identity; a new one where it is not known.

        token: of the conversation that it remembers. holder: see ClientCame.
        """
        known = self._clients.get(client_id)
        if known is not None and known.token != token:
            self._give_up(known)
            known = None
        if known is None:
            key = os.urandom(16)
            known = self._enter(ClientCame(next(self._counter), client_id, name, key, holder))
            self.durable.record(known.came)
        return known

    def restore(self, came: ClientCame, heard: int, finals: Iterable[KnownFinals]) -> Client:
        """Take in a client that an earlier scheduler had."""
        self._counter = count(max(next(self._counter), came.slot + 1))
        client = self._enter(came, heard, finals)
        self.wait_for(client)
        return client

    def _enter(
        self, came: ClientCame, heard: int = 0, finals: Iterable[KnownFinals] = ()
    ) -> Client:
        resync = partial(self._resync, came.slot)
        kind = KeptOutbox if came.holder else Outbox
        outbox = kind(came.slot, self.durable, self._budget, resync, self._life, finals)
        client = Client(came, outbox, heard)
        self._clients[client.client_id] = self._slots[client.slot] = client
        return client

    def came(self, client: Client, link: Link, heard: int) -> None:
        """Go on over a new link, with a client that has heard so much; raises FrameRefused."""
        client.stop_waiting()
        before = client.outbox.link
        try:
            client.outbox.came(link, heard)
        finally:
            if before is not None:
                before.close("the client has connected anew")
        self.files.came(client)

    def left(self, client: Client, link: Link, why: str) -> None:
        """Take note that a link to a client has ended."""
        if client.outbox.link is not link:
            return
        client.outbox.gone()
        if client.clusters:
            logger.info(
                "client %s is away: %s; its jobs go on", client.name, why,
                extra=event("client_away", client=client.slot, name=client.name, why=why),
            )  # fmt: skip
            self.wait_for(client)
        else:
            told = event("client_left", client=client.slot, name=client.name)
            logger.info("client %s left", client.name, extra=told)
            self._forget(client)

    def wait_for(self, client: Client) -> None:
        """Give a client up that stays away for too long."""
        if self._zombie_seconds:
            client.stop_waiting()
            seconds = max(self._zombie_seconds, client.came.keep)
            client.waited_for = gevent.spawn_later(seconds, self._give_up, client)

    def _give_up(self, client: Client) -> None:
        """Close all that a client has left open: it has been away for too long, or begins anew."""
        logger.warning(
            "client %s did not come back: its jobs are dropped", client.name,
            extra=event("client_dropped", client=client.slot, name=client.name),
        )  # fmt: skip
        link = client.outbox.link
        client.outbox.gone()
        if link is not None:
            link.close()
        self._close_clusters(client)
        self._forget(client)

    def _close_clusters(self, client: Client) -> None:
        for cluster_id in list(client.clusters):
            self.close(client, cluster_id)

    def close(self, client: Client, cluster_id: int) -> None:
        """Close a client's cluster, with its jobs."""
        self.opened.pop(cluster_id, None)
        self.recruiting.closed(cluster_id)
        left = client.clusters.pop(cluster_id)
        named = name_of_cluster(cluster_id)
        logger.info(
            "cluster %s is closed%s", named, f" with {len(left)} jobs" if left else "",
            extra=event("cluster_closed", cluster=named, jobs=len(left)),
        )  # fmt: skip
        self.drop(left)
        self.files.closed(cluster_id)
        self.durable.record(ClusterClosed(cluster_id))
        self.durable.when_safe(partial(self.scheduler.close_cluster, cluster_id))

    def _forget(self, client: Client) -> None:
        client.stop_waiting()
        self.files.gone(client)
        del self._clients[client.client_id], self._slots[client.slot]
        self.durable.record(ClientForgotten(client.slot))

    def turn_over(self, client: Client) -> None:
        """Tell a client how far it has been heard, once for all that came with one read."""
        hearing = client.hearing
        arrived = hearing.arrived
        if arrived == hearing.confirmed:
            return
        self.durable.record(Heard(client.slot, arrived))

        def confirm() -> None:
            link = client.outbox.link
            if hearing.confirm(arrived) and link is not None and hearing is client.hearing:
                link.send(Kind.HEARD, [arrived])

        # Twice: what was said is done when it is safe, and what comes of that is to be told first.
        self.durable.when_safe(lambda: self.durable.when_safe(confirm))

    # -- whose is what

    def links(self) -> list[Link]:
        """Return the links of all clients that are connected."""
        links = (client.outbox.link for client in self._clients.values())
        return [link for link in links if link is not None]

    def of(self, number: int) -> Client | None:
        """Return whose cluster or job this is, if he is still remembered."""
        return self._slots.get(number >> SLOT_BITS)

    def drop(self, jobs: Iterable[int]) -> None:
        """Forget what was kept of jobs that are final."""
        jobs = list(jobs)
        self.calls.drop(jobs)
        with_options = [job for job in jobs if job in self.options] if self.options else []
        for job in with_options:
            del self.options[job]
        self.files.over(jobs, with_options)

    # -- how things stand

    def _resync(self, slot: int) -> None:
        """Tell a client how things stand, from the beginning."""
        client = self._slots[slot]
        client.say(Kind.RESYNC, [])
        client.met.clear()
        if client.wants_all:
            self.tell_all_nodes(client)
        for cluster_id in client.clusters:
            for node, is_ready, jobs in self.scheduler.standing.of(cluster_id):
                client.meet(node.node_id, Kind.NODE, [node.node_id, table_of(node)])
                there = number_there(cluster_id)
                if is_ready:
                    ready = int(Status.Initialized)
                    client.say(Kind.CHANGED, [there, node.node_id, ready, None])
                if jobs:
                    numbers = list(map(number_there, jobs))
                    client.say(Kind.STARTED, [there, node.node_id, numbers])
        client.say(Kind.RESYNCED, [])

    def tell_all_nodes(self, client: Client) -> None:
        """Tell a client of all nodes, as it decides itself which its clusters use."""
        for node in self.scheduler.nodes.values():
            client.meet(node.node_id, Kind.NODE, [node.node_id, table_of(node)])

    def stop(self) -> None:
        """End all links; without a journal nobody will know what clients have left open."""
        for link in self.links():
            link.close()
        for client in list(self._clients.values()):
            client.stop_waiting()
            if self.durable.journal is None:
                self._close_clusters(client)


def table_of(node: RemoteNode) -> dict[str, Any]:
    """Return what clients are told of a node."""
    return {
        "name": node.name, "ip_addr": node.ip_addr, "port": node.port, "cpus": node.cpus,
        "python": node.hello.python, "implementation": node.hello.implementation,
        "platform": node.hello.platform, "version": node.hello.version,
        "identity": node.hello.identity, "available": node.available,
    }  # fmt: skip
