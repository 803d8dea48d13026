"""What a program and its shared scheduler exchange beside the numbered conversation: bulk.

The scheduler fetches contents by digest, and offers files that jobs send; the program orders files
to be put on nodes. Whatever was not answered over one link is asked again over the next, so none
of it is numbered. On the session's hub.
"""

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from gevent.event import AsyncResult

from dispy.client.mirrors import MirroredNode
from dispy.model.errors import DispyError
from dispy.net.link import Link
from dispy.net.pieces import PieceSender
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.messages import Kind
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.possession import Prover
from dispy.shipping.contents import Content

if TYPE_CHECKING:
    from dispy.client.session import Session

KEY_NODES = 1000  # keys of files whose node is remembered: answers to offers may cross


@dataclass(slots=True)
class _Order:
    body: list[Any]  # of PLACE
    answer: "AsyncResult[str | None]" = field(default_factory=AsyncResult)


class RemoteFiles:
    """Of one session and its link to a scheduler, as it changes."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._link: Link | None = None  # the newest, perhaps closed
        self._sender: PieceSender | None = None
        self._prover: Prover | None = None
        self._orders: dict[int, _Order] = {}  # by token, not answered so far
        self._tokens = count(1)
        self._nodes: dict[bytes, MirroredNode] = {}  # of files that are offered, by key

    # -- the link

    def link_made(self, link: Link) -> None:
        """Go on over a new link, on which all that is numbered has been said again."""
        self._link = link
        self._sender = PieceSender(link, self._session.content, "the scheduler")
        self._prover = Prover(link, self._session.content)
        for order in self._orders.values():
            link.send(Kind.PLACE, order.body)

    def tell(self, kind: int, body: list[Any]) -> None:
        """Send what is not numbered; it is lost while the link is broken."""
        if self._link is not None:
            self._link.send(kind, body)

    def read(self, frame: Frame) -> None:
        """Take what is not numbered; raises FrameRefused."""
        assert self._sender is not None, "a frame came over its link"
        assert self._prover is not None, "a frame came over its link"
        body = frame.body
        if frame.kind == Kind.FETCH:
            self._sender.fetch(*body)
        elif frame.kind == Kind.PROVE:
            self._prover.prove(*body)
        elif frame.kind == Kind.OFFER:
            self._offered(*body)
        elif frame.kind == Kind.PIECE:
            node = self._nodes.get(body[0])
            if node is not None:
                self._session.receiving.piece(node, body[0], body[1], body[2], frame.buffers[0])
        elif frame.kind == Kind.PLACED:
            order = self._orders.get(body[1])
            if order is not None:
                order.answer.set(body[2])
        else:
            raise FrameRefused(f"{Kind(frame.kind).name} is not for a client to receive")

    # -- files that jobs send

    def _offered(self, cluster_id: int, job: int, key: bytes, table: dict[str, Any]) -> None:
        node = self._session.scheduler.nodes.get(str(table.get("node")))
        if not isinstance(node, MirroredNode):
            self.tell(Kind.TOOK, [key, "the node is lost for its client"])
            return
        self._nodes.pop(key, None)
        self._nodes[key] = node
        if len(self._nodes) > KEY_NODES:
            self._forget_keys()
        self._session.receiving.offered(node, cluster_id, job, key, table)

    def _forget_keys(self) -> None:
        """Keep the nodes of files that are still on their way."""
        arriving = self._session.receiving.arriving
        self._nodes = {k: node for k, node in self._nodes.items() if (node.node_id, k) in arriving}

    # -- files that are sent to nodes

    def place(self, cluster_id: int, node_id: str, files: list[Any]) -> str | None:
        """As `Scheduler.place`: waits in the calling greenlet."""
        token = next(self._tokens)
        order = _Order([cluster_id, token, {"files": files, "node": node_id}])
        self._orders[token] = order
        self.tell(Kind.PLACE, order.body)
        try:
            why: str | None = order.answer.get()
            return why
        finally:
            del self._orders[token]

    def stop(self) -> None:
        """Free whoever waits."""
        for order in self._orders.values():
            order.answer.set("the program ends")

    # -- nodes with another Python

    def allotment(
        self,
        cluster_id: int,
        node_id: str,
        name: str,
        opened: dict[str, Any],
        content: bytes,
        own: dict[str, Any] | None,
    ) -> dict[str, Any]:
        """Return what ALLOT says of a node: its own settings, and what else it needs to get.

        name, opened, content: as the cluster was opened.
        """
        own = own or {}
        node, settings = self._session.scheduler.nodes[node_id], {**opened["settings"], **own}
        said, told = self.translation(cluster_id, node, name, settings, content)
        return {"own": {**{key: told[key] for key in own}, **said}}

    def translation(
        self,
        cluster_id: int,
        node: RemoteNode,
        name: str,
        settings: dict[str, Any],
        content: bytes,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what the scheduler is told of code for a node, and the settings to go with it.

        Nothing if it runs our Python; else where that code lies, or why there is none.
        """
        if node.python == f"{settings.get('implementation')} {settings.get('python')}":
            return {}, settings
        session = self._session
        try:
            told, code = session.opening_for(node, cluster_id, settings, content)
        except DispyError as error:
            return {"untranslated": str(error)}, settings
        made = Content.of_memory(code, f"the code of {name}, with its source text")
        if session.contents.get(made.digest) is None:
            session.contents.hold_for(session.clusters[cluster_id], [made])  # until it is closed
        return {"code": [made.digest, made.size]}, told
