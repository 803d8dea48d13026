"""A shared scheduler, as a program sees it that holds a cluster to which others may attach."""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dispy.client.mirrors import node_of
from dispy.client.remote import CONNECT_SECONDS, RemoteScheduler
from dispy.client.rules import rules_of
from dispy.model.credentials import Credentials
from dispy.model.errors import DispyError
from dispy.model.texts import one_line
from dispy.net.dialing import connect
from dispy.net.link import Link
from dispy.net.secure import NotProven, dial
from dispy.protocol.conversation import Said
from dispy.protocol.frames import Buffer, Frame, FrameRefused
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind

if TYPE_CHECKING:
    from dispy.client.attachable import AttachableSession, Found
    from dispy.scheduler.nodes import RemoteNode

logger = logging.getLogger("dispy.client")

_ENDS = frozenset({int(Kind.ENDED), int(Kind.GIVEN_UP)})
_LOST = {"name": "a node that is gone", "port": 0, "cpus": 0}


def _say_nothing(kind: int, body: list[Any]) -> None:
    """There is no link to say it over."""


class HoldingScheduler(RemoteScheduler):
    """Of one session, which has a single cluster."""

    def __init__(
        self,
        session: "AttachableSession",
        address: tuple[str, int],
        name: str,
        credentials: Credentials,
    ) -> None:
        self._holder = session
        found = session.found
        super().__init__(session, address, session.identity, name, credentials)
        self.is_left = False  # the scheduler keeps the cluster, whatever becomes of it here
        if found is not None:
            self._token, self._met = found.token, True
            nodes = [node_of(*said, self._files.tell) for said in found.nodes]
            self._told.expect(nodes, self._lost_node)

    def say(self, kind: int, body: list[Any]) -> None:
        """Say something of the cluster."""
        self._say(kind, body)

    def _lost_node(self, node_id: str) -> "RemoteNode":
        """Return what stands for a node that had jobs, and of which nobody knows any more."""
        return node_of(node_id, _LOST, self._files.tell)

    def _details(self) -> dict[str, Any]:
        begins = self._holder.found is None
        return {**super()._details(), "claim": self._holder.claim, "begins": begins}

    def _go_on(self, hello: Hello) -> Iterator[Said]:
        why = hello.details.get("over")
        if isinstance(why, str):
            self._over(one_line(why))
            raise FrameRefused(one_line(why))
        return super()._go_on(hello)

    def _read(self, frame: Frame) -> None:
        if frame.kind == Kind.OVER:
            self._over(frame.body[0])
        else:
            super()._read(frame)

    def _over(self, why: str) -> None:
        """Dial no more: the cluster is another program's, or is no more."""
        self._stopped = True
        if self._link is not None:
            self._link.close(why)
        self._holder.lose(why)

    def _hear(self, number: int, kind: int, body: list[Any], buffers: Sequence[Buffer]) -> None:
        if kind in _ENDS:
            self._holder.collecting.told(number, body[2])
        super()._hear(number, kind, body, buffers)

    def open_cluster(
        self, cluster_id: int, name: str, settings: dict[str, Any], *rest: Any
    ) -> None:
        """As `Scheduler.open_cluster`; one that was attached to is open."""
        found = self._holder.found
        if found is None:
            super().open_cluster(cluster_id, name, settings, *rest)
        else:
            self._clusters[cluster_id] = name, found.table, b""
            if self._holder.has_own_nodes:
                self.change_rules(cluster_id, rules_of(self._holder.clusters[cluster_id]))

    def submit(self, cluster_id: int, jobs: Sequence[int], node_id: str | None = None) -> None:
        """As `Scheduler.submit`; jobs that have an id of the program's own come with that."""
        super().submit(cluster_id, jobs, node_id)
        table = self._session.jobs
        named = [job for job in map(table.__getitem__, jobs) if job.id is not job._number]
        if named:
            self._holder.collecting.label([job for job in named if job.is_call])

    def close_cluster(self, cluster_id: int) -> None:
        """As `Scheduler.close_cluster`; not where the cluster is left to others."""
        if self.is_left:
            self._clusters.pop(cluster_id, None)
            self._told.forget(cluster_id)
        else:
            super().close_cluster(cluster_id)


class _Taking:
    """Takes what a scheduler tells of a cluster that is attached to."""

    def __init__(self, link: Link, found: "Found") -> None:
        self._link, self._found = link, found
        self.is_whole = False

    def read(self, frame: Frame) -> None:
        found, body = self._found, frame.body
        if frame.kind == Kind.ATTACHED:
            found.number, found.computation, found.table = body
        elif frame.kind == Kind.NODE:
            node_of(body[0], body[1], _say_nothing)  # raises for what is none
            found.nodes.append((body[0], body[1]))
        elif frame.kind == Kind.LEFT:
            labels = dict(body[1])
            found.jobs += [(number, labels.get(at)) for at, number in enumerate(body[0])]
        elif frame.kind == Kind.RESYNCED:
            self.is_whole = True
            self._link.close()
        else:
            raise FrameRefused(f"{Kind(frame.kind).name} is not for whoever attaches")


def take_over(session: "AttachableSession", name: str, found: "Found") -> None:
    """Attach to the session's cluster: fill in what there is; waits. Raises DispyError."""
    host, port = address = session.address
    try:
        sock = connect(*address, CONNECT_SECONDS)
        link = Link(dial(sock, session.proof.credentials, host))
    except NotProven as error:
        raise DispyError(f"cannot attach: {error}") from None
    except OSError as error:
        raise DispyError(
            f"cannot attach: the scheduler at {host}, port {port} does not answer "
            f"({error.strerror or error}); `dispy doctor {host}` checks the way to it"
        ) from None
    try:
        details = {"claim": session.claim, "attach": True}
        ours = Hello("client", session.identity, name, details=details)
        hello = link.exchange_hello(ours, "scheduler")
        token, first = hello.details.get("conversation"), hello.details.get("first")
        if not isinstance(token, str) or type(first) is not int:
            raise FrameRefused("it did not say how to go on")
        found.token, found.first = token, first + 1
        taking = _Taking(link, found)
        end = link.read(taking.read)
        if not taking.is_whole:
            raise FrameRefused(end.reason)
    except (FrameRefused, OSError) as error:
        raise DispyError(f"cannot attach at {host}, port {port}: {error}") from None
    finally:
        link.close()
