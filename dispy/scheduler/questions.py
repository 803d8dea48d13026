"""What a scheduler asks a node, and who waits for the answer: which jobs run there."""

from collections.abc import Callable, Sequence
from itertools import count

from dispy.protocol.messages import Kind
from dispy.scheduler.nodes import RemoteNode

Answered = Callable[[list[int] | None], None]  # jobs, or None: the node does not answer


class Questions:
    """Each is answered once: by its node, or with None when the link to that ends.

    own: returns those of some jobs of a cluster that a node has.
    """

    def __init__(self, own: Callable[[RemoteNode, int, Sequence[int]], Sequence[int]]) -> None:
        self._own = own
        self._tokens = count(1)
        self._waiting: dict[int, tuple[RemoteNode, int, Answered]] = {}

    def ask(self, node: RemoteNode | None, cluster_id: int, answered: Answered) -> None:
        """Ask a node for a cluster's jobs that run there now."""
        if node is None or node.link is None:
            answered(None)
            return
        token = next(self._tokens)
        self._waiting[token] = (node, cluster_id, answered)
        node.link.send(Kind.LIST, [cluster_id, token])

    def answer(self, node: RemoteNode, token: int, jobs: list[int]) -> None:
        """Take a node's answer; one that nobody waits for is passed over."""
        if token in self._waiting and self._waiting[token][0] is node:
            _, cluster_id, answered = self._waiting.pop(token)
            answered(list(self._own(node, cluster_id, jobs)))

    def link_ended(self, node: RemoteNode) -> None:
        """Have nobody wait for a node that cannot answer any more."""
        for token in [token for token, (asked, *_) in self._waiting.items() if asked is node]:
            self._waiting.pop(token)[2](None)
