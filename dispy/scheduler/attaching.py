"""Clusters that outlive their programs: who knows name and key of one may attach to it.

Such a cluster is all that its client has, and the client is known by a digest of name and key
(`dispy.protocol.claims`), not by its program. One program at a time is its holder. Another one
that attaches becomes the holder, with a conversation of its own, and is told what there is and
what nobody has collected; the one before is told that it has lost it.

On the scheduler's hub; nothing here waits but the greenlet of whoever attaches.
"""

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from time import monotonic
from typing import Any

from gevent.event import Event

from dispy.net.link import Link
from dispy.protocol.admission import Purse, network_of
from dispy.protocol.claims import kept_of, said_in
from dispy.protocol.conversation import Conversation
from dispy.protocol.frames import FrameRefused
from dispy.protocol.handshake import Hello, proven_identity
from dispy.protocol.messages import Kind
from dispy.scheduler.client import Client, number_there
from dispy.scheduler.clients import Clients, table_of
from dispy.scheduler.journal_entries import ClusterOpened, Heard
from dispy.scheduler.kept import KeptOutbox

logger = logging.getLogger("dispy.scheduler")

ATTEMPTS = 10  # that a network may make at once to attach; then one in so many seconds
ATTEMPT_SECONDS = 1.0
NETWORKS = 1000  # whose attempts are counted
JOBS_AT_ONCE = 2048  # in one message; each label has LABEL_LIMIT bytes at most
LABEL_LIMIT = 512
NUMBERS_AHEAD = 1 << 20  # of jobs, that a program may use before it is written down again


class Attaching:
    """Of one scheduler service."""

    def __init__(self, clients: Clients, name: str) -> None:
        """name: of the scheduler."""
        self._clients, self._name = clients, name
        self._purses: OrderedDict[str, Purse] = OrderedDict()  # by network, the last used last

    # -- who holds what

    def client(self, claim: bytes, hello: Hello, holder: str) -> Client | None:
        """Return the client of a program that says which cluster it has, or opens.

        holder: its identity. None: another program has that cluster, or nobody has any more; it is
        told. Raises FrameRefused where there is another one of that name and key.
        """
        identity, token = kept_of(claim), hello.details.get("conversation")
        known, begins = self._clients.known(identity), hello.details.get("begins") is True
        if known is None or known.holder == holder:
            is_same = known is not None and known.token == token
            return (
                self._clients.client(identity, hello.name, token, holder)
                if begins or is_same
                else None
            )
        if token:
            return None
        raise FrameRefused(
            f"scheduler {self._name} has a cluster of this name and key: attach to it "
            f"(SharedJobCluster.attach), or open one with another key"
        )

    def tell_over(self, link: Link, claim: bytes, ours: Hello) -> None:
        """Tell a program that comes back that it has its cluster no more."""
        known = self._clients.known(kept_of(claim))
        ours.details.update(over=_GONE if known is None else _taken_by(known.name))
        link.send(Kind.HELLO, ours.body())

    # -- attaching

    def hand_over(self, link: Link, hello: Hello, ours: Hello) -> None:
        """Make a program the holder of a cluster, and tell it what there is; raises FrameRefused.

        It comes back over another link, with the token that it gets, for all that follows.
        """
        if not self._may_try(network_of(link.peer_address)):
            raise FrameRefused(
                f"scheduler {self._name} lets nobody of your address attach for some seconds, "
                f"as there were too many attempts: try again"
            )
        claim = said_in(hello.details)
        client = None if claim is None else self._clients.known(kept_of(claim))
        opened = None if client is None else self._opened(client)
        if client is None or opened is None:
            raise FrameRefused(
                f"scheduler {self._name} has no cluster of this name with this key: one of them is "
                f"wrong, or the cluster is closed, or was given up after its zombie_interval"
            )
        self._take_over(client, hello, proven_identity(hello.identity, link.peer_key))
        safe = Event()
        self._clients.durable.when_safe(safe.set)
        safe.wait()
        if client.holder == proven_identity(hello.identity, link.peer_key):  # it still has it
            details = {**ours.details, "conversation": client.token, "first": client.came.used}
            link.send(Kind.HELLO, replace(ours, details=details).body())
            self._tell_all(link, client, opened)

    def _may_try(self, network: str) -> bool:
        purse = self._purses.setdefault(network, Purse(ATTEMPTS))
        self._purses.move_to_end(network)
        if len(self._purses) > NETWORKS:
            self._purses.popitem(last=False)
        return purse.pay(1 / ATTEMPT_SECONDS, monotonic())

    def _opened(self, client: Client) -> ClusterOpened | None:
        """Return how a client's cluster was opened; None: it has none."""
        return next((self._clients.opened.get(number) for number in client.clusters), None)

    def _take_over(self, client: Client, hello: Hello, holder: str) -> None:
        before, outbox = client.outbox.link, client.outbox
        assert isinstance(outbox, KeptOutbox), "it has a holder"
        logger.info("client %s: program %s attaches to its cluster", client.name, hello.name)
        client.come(replace(client.came, name=hello.name, key=os.urandom(16), holder=holder))
        client.hearing = Conversation()
        self._clients.durable.record(client.came)
        self._clients.durable.record(Heard(client.slot, 0))
        outbox.begin_anew()
        if before is not None:
            before.send(Kind.OVER, [_taken_by(hello.name)])
            before.close("another program has attached")
        self._clients.wait_for(client)

    def _tell_all(self, link: Link, client: Client, opened: ClusterOpened) -> None:
        table = {**opened.options, "settings": opened.settings}
        link.send(Kind.ATTACHED, [number_there(opened.number), opened.name, table])
        for node in self._clients.scheduler.nodes.values():
            link.send(Kind.NODE, [node.node_id, table_of(node)])
        for jobs in _in_parts(client):
            labels = [
                [at, client.labels[job]] for at, job in enumerate(jobs) if job in client.labels
            ]
            link.send(Kind.LEFT, [list(map(number_there, jobs)), labels])
        link.send(Kind.RESYNCED, [])
        link.wait_sent()

    # -- what a holder says

    def submits(self, client: Client, newest: int) -> None:
        """Take note of the highest number of a job, as whoever attaches counts on from there."""
        if client.holder and newest > client.came.used:
            self._note(client, used=newest + NUMBERS_AHEAD)

    def keep(self, client: Client, seconds: float) -> None:
        """Remember a client for so long while it is away."""
        if not client.holder or not 0 <= seconds < float("inf"):
            raise FrameRefused("KEEP is for clusters that others may attach to, and for seconds")
        self._note(client, keep=float(seconds))

    def _note(self, client: Client, **changed: Any) -> None:
        client.come(replace(client.came, **changed))
        self._clients.durable.record(client.came)


_GONE = "the scheduler has no such cluster any more: it was closed, or given up"


def _taken_by(name: str) -> str:
    return f"another program ({name}) has attached to the cluster, and has its jobs now"


def _in_parts(client: Client) -> Iterator[list[int]]:
    outbox = client.outbox
    assert isinstance(outbox, KeptOutbox), "it has a holder"
    jobs = set(outbox.jobs).union(*client.clusters.values())
    rest = iter(sorted(jobs))
    while part := list(islice(rest, JOBS_AT_ONCE)):
        yield part
