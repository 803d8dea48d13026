"""What nodes ask a scheduler for: contents that its owner has, by their digest."""

from collections.abc import Callable

from dispy.net.pieces import PieceSender
from dispy.scheduler.nodes import RemoteNode
from dispy.shipping.contents import Content


class Supply:
    """Answers the nodes of a scheduler; `find` is its owner's."""

    def __init__(self, find: Callable[[bytes], Content | None]) -> None:
        self._find = find
        self._senders: dict[str, PieceSender] = {}  # by node; each belongs to one link

    def fetch(self, node: RemoteNode, key: bytes, offset: int, length: int) -> None:
        """Answer a node's FETCH; raises FrameRefused."""
        sender = self._senders.get(node.node_id)
        if sender is None or sender.link is not node.link:
            assert node.link is not None, "a frame came over it"
            sender = self._senders[node.node_id] = PieceSender(
                node.link, self._find, f"node {node.name}"
            )
        sender.fetch(key, offset, length)

    def lost(self, node: RemoteNode) -> None:
        """Forget a node."""
        self._senders.pop(node.node_id, None)
