"""What nodes get from a scheduler beside jobs: contents that they ask for, and files on order."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from gevent.event import AsyncResult

from dispy.net.pieces import PieceSender
from dispy.protocol.messages import Kind
from dispy.scheduler.given import Given
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.possession import Prover
from dispy.shipping.contents import Content


@dataclass(slots=True)
class _Order:
    """Files that a node is to put into a computation's directory."""

    node_id: str
    body: list[Any]  # of PLACE
    answer: "AsyncResult[str | None]" = field(default_factory=AsyncResult)


class Supply:
    """Answers the nodes of a scheduler; `find` is its owner's."""

    def __init__(self, find: Callable[[bytes], Content | None], given: Given) -> None:
        self._find, self._given = find, given
        self._senders: dict[str, PieceSender] = {}  # by node; each belongs to one link
        self._provers: dict[str, Prover] = {}  # in the same way
        self._orders: dict[int, _Order] = {}  # by token, not answered so far
        self._tokens = count(1)

    def fetch(self, node: RemoteNode, key: bytes, offset: int, length: int) -> None:
        """Answer a node's FETCH; raises FrameRefused."""
        sender = self._senders.get(node.node_id)
        if sender is None or sender.link is not node.link:
            assert node.link is not None, "a frame came over it"
            sender = self._senders[node.node_id] = PieceSender(
                node.link, partial(self._find_for, node), f"node {node.name}"
            )
        sender.fetch(key, offset, length)

    def prove(self, node: RemoteNode, digest: bytes, nonce: bytes) -> None:
        """Answer a node's PROVE; raises FrameRefused."""
        prover = self._provers.get(node.node_id)
        if prover is None or prover.link is not node.link:
            assert node.link is not None, "a frame came over it"
            prover = Prover(node.link, partial(self._find_for, node))
            self._provers[node.node_id] = prover
        prover.prove(digest, nonce)

    def _find_for(self, node: RemoteNode, digest: bytes) -> Content | None:
        return self._find(digest) if self._given.may_fetch(node, digest) else None

    def place(self, node: RemoteNode, cluster_id: int, files: list[Any]) -> str | None:
        """Have a node put files into a computation's directory; return why it did not.

        Waits in the calling greenlet until the node has answered or is lost.
        """
        self._given.named(node.node_id, [entry[1] for entry in files])
        token = next(self._tokens)
        order = _Order(node.node_id, [cluster_id, token, {"files": files}])
        self._orders[token] = order
        if node.settled:
            node.tell(Kind.PLACE, order.body)
        try:
            why: str | None = order.answer.get()
            return why
        finally:
            del self._orders[token]

    def placed(self, node: RemoteNode, token: int, why: str | None) -> None:
        """Take a node's answer to `place`."""
        order = self._orders.get(token)
        if order is not None and order.node_id == node.node_id:
            order.answer.set(why)

    def settled(self, node: RemoteNode) -> None:
        """Order again over a new link what was not answered over the old one."""
        for order in self._orders.values():
            if order.node_id == node.node_id:
                node.tell(Kind.PLACE, order.body)

    def lost(self, node: RemoteNode) -> None:
        """Forget a node."""
        self._senders.pop(node.node_id, None)
        self._provers.pop(node.node_id, None)
        for order in self._orders.values():
            if order.node_id == node.node_id:
                order.answer.set("the node was lost")

    def stop(self) -> None:
        """Free whoever waits."""
        for order in self._orders.values():
            order.answer.set("the program ends")
