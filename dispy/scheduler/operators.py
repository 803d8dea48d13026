"""Operators of a shared scheduler: who asks what there is and why jobs wait, and steers it.

Each comes over a link of its own, and has proven what clients prove. One request at a time; an
answer comes in parts, and between two of them everybody else is served: ten thousand nodes hold
nobody up, nor does an operator that reads slowly.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from time import time
from typing import Any

import gevent

from dispy import __version__
from dispy.model.errors import DispyError
from dispy.model.texts import one_line
from dispy.net.link import Link
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.scheduler.clients import Clients
from dispy.scheduler.drained import Drained
from dispy.scheduler.operations import Operations
from dispy.scheduler.service import Scheduler
from dispy.scheduler.views import view_of_client, view_of_cluster, view_of_node, views_of_owners

logger = logging.getLogger("dispy.scheduler")

PART = 100  # rows of one part of an answer: a few milliseconds
NEXT_TURN = 1e-6  # seconds; a timer, because the loop looks for others' bytes before it
Part = dict[str, Any]


class Operators:
    """Serves their links; used on the scheduler's hub."""

    def __init__(
        self,
        scheduler: Scheduler,
        clients: Clients,
        address: str,
        trouble: Callable[[], str],
        directory: str | None,
    ) -> None:
        """address: where clients find the scheduler. trouble: says why it does nothing now.

        directory: where it is kept which nodes are drained; None: nowhere.
        """
        self._trouble = trouble
        self._scheduler, self._clients = scheduler, clients
        self._core = scheduler._core
        self._address = address
        self._began = time()
        drained = Drained(directory, self._core)
        self._operations = Operations(scheduler, clients, drained)
        self._links: set[Link] = set()
        self._requests: dict[str, Callable[[Part, str], Iterator[Part]]] = {
            "status": self._status,
            "nodes": self._nodes,
            "explain": self._explain,
            "cancel": self._cancel,
            "drain": self._drain,
        }

    def links(self) -> list[Link]:
        """Return the links of all that are connected."""
        return list(self._links)

    def serve(self, link: Link, hello: Hello) -> None:
        """Answer an operator until its link ends; in the calling greenlet."""
        ours = Hello("scheduler", self._scheduler.identity, self._scheduler.name)
        link.send(Kind.HELLO, ours.body())
        who = name_of(hello)
        answering: list[gevent.Greenlet[..., None]] = []

        def read(frame: Frame) -> None:
            if frame.kind != Kind.REQUEST:
                raise FrameRefused(f"{Kind(frame.kind).name} is not for a scheduler to receive")
            if answering and not answering[-1].dead:
                raise FrameRefused("a second request came before the first was answered")
            answering[:] = [gevent.spawn(self._answer, link, who, *frame.body)]

        self._links.add(link)
        try:
            link.read(read)
        finally:
            self._links.discard(link)
            gevent.killall(answering)

    def _answer(self, link: Link, who: str, token: int, what: str, of: Part) -> None:
        request = self._requests.get(what)
        try:
            if request is None:
                raise DispyError(f"this scheduler does not know the request {what!r:.40}")
            for part in request(of, who):
                link.send(Kind.RESPONSE, [token, 1, part])
                link.wait_sent()
                gevent.sleep(NEXT_TURN)  # everybody else first
            link.send(Kind.RESPONSE, [token, 0, {}])
        except DispyError as error:
            link.send(Kind.RESPONSE, [token, 0, {"error": str(error)}])

    # -- requests; each yields the parts of its answer, whose lists are joined

    def _status(self, of: Part, who: str) -> Iterator[Part]:
        totals: dict[str, int] = {}
        nodes = self._views_of_nodes()
        for rows in _portions(nodes):
            for row in rows:
                _count(totals, row)
            yield {"nodes": rows} if of.get("nodes") is True else {}
        clusters = list(self._core.clusters.values())
        slots = totals.get("slots", 0)
        waiting = on_nodes = 0
        clients = self._clients
        for rows in _portions(
            view_of_cluster(cluster, clients.of(cluster.cluster_id), slots, clients.files.awaiting)
            for cluster in clusters
            if cluster.cluster_id in self._core.clusters
        ):
            waiting += sum(row["waiting"] for row in rows)
            on_nodes += sum(row["on_nodes"] for row in rows)
            yield {"clusters": rows}
        known = list(clients)
        for rows in _portions(map(view_of_client, known)):
            yield {"clients": rows}
        totals |= {
            "jobs_waiting": waiting, "jobs_on_nodes": on_nodes, "clusters": len(clusters),
            "clients": len(known),
            "nodes_without_room": len(self._scheduler.keepers.waiting_for_room),
            "clients_away": sum(1 for client in known if client.outbox.link is None),
        }  # fmt: skip
        owners = views_of_owners(self._core.clusters.values(), slots, clients.files.awaiting)
        totals |= {f"jobs_{name}": count for name, count in clients.counts.all().items()}
        yield {"scheduler": self._view(), "owners": owners, "totals": totals}

    def _view(self) -> Part:
        return {
            "name": self._scheduler.name, "address": self._address, "version": __version__,
            "policy": self._core.policy.name, "up_seconds": round(time() - self._began, 1),
            "trouble": self._trouble(),
        }  # fmt: skip

    def _views_of_nodes(self) -> Iterator[Part]:
        for node_id in list(self._scheduler.nodes):
            remote, node = self._scheduler.nodes.get(node_id), self._core.nodes.get(node_id)
            if remote is not None and node is not None:  # it was lost meanwhile
                yield view_of_node(remote, node)

    def _nodes(self, of: Part, who: str) -> Iterator[Part]:
        for rows in _portions(self._views_of_nodes()):
            yield {"nodes": rows}

    def _explain(self, of: Part, who: str) -> Iterator[Part]:
        yield {"lines": self._operations.explain(_text(of, "job"))}

    def _cancel(self, of: Part, who: str) -> Iterator[Part]:
        count = 0
        for portion in self._operations.cancel(_text(of, "what"), who):
            count += portion
            yield {}
        yield {"cancelled": count}

    def _drain(self, of: Part, who: str) -> Iterator[Part]:
        node = self._operations.drain(_text(of, "node"), who, of.get("off") is True)
        yield {"node": view_of_node(node, self._core.nodes[node.node_id])}

    def stop(self) -> None:
        """End all links."""
        for link in self.links():
            link.close()


def name_of(hello: Hello) -> str:
    """Return who an operator says it is ("ann@head"), as it may go into logs and reasons."""
    said = hello.details.get("owner")
    return one_line(said[:100]) if isinstance(said, str) and said else one_line(hello.name)


def _text(of: Part, name: str) -> str:
    value = of.get(name)
    if not isinstance(value, str) or not value.strip():
        raise DispyError("nothing was named")
    return one_line(value[:1000])


def _count(totals: dict[str, int], row: Part) -> None:
    """Add a node's row to what there is in all."""
    counts = {
        "nodes": 1, f"nodes_{row['state'].replace(' ', '_')}": 1, "slots": row["slots"],
        "processors": row["processors"], "busy": row["busy"], "jobs_done": row["jobs_done"],
    }  # fmt: skip
    for name, count in counts.items():
        totals[name] = totals.get(name, 0) + count


def _portions(rows: Iterator[Part]) -> Iterator[Sequence[Part]]:
    """Yield rows in parts of an answer; one at least, so that the list is there."""
    first = True
    while (portion := list(islice(rows, PART))) or first:
        yield portion
        first = False
