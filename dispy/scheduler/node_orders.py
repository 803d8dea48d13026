"""What clients order about nodes of their clusters: which these may use, and which they leave.

An order waits with its cluster for what all nodes need of that. On the scheduler's hub.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from dispy.scheduler.awaiting import Awaiting
from dispy.scheduler.client_contents import ContentsClient
from dispy.scheduler.translations import Translations

if TYPE_CHECKING:
    from dispy.scheduler.service import Scheduler

# Settings that one node may have of its own. What else a client says there is nothing that it has
# been asked for: files, say, that it has not shown to have.
OWN = ("setup_args",)


class NodeOrders:
    """Of all clients; `number` is that of an open cluster, as it is known here."""

    def __init__(
        self, scheduler: "Scheduler", awaiting: Awaiting, translations: Translations
    ) -> None:
        self._scheduler, self._awaiting = scheduler, awaiting
        self._translations = translations

    def allot(self, client: ContentsClient, number: int, body: list[Any]) -> None:
        """Let a cluster use some processors of a node (ALLOT)."""
        _, node_id, slots, table = body
        said = table.get("own")
        own = {name: said[name] for name in OWN if name in said} if isinstance(said, dict) else {}
        code = self._translations.note(number, node_id, table)
        if code.contents:
            self._awaiting.need_code(client, number, code)

        def allot() -> None:
            node = self._scheduler.nodes.get(node_id)
            if node is not None and table.get("forgive"):
                self._scheduler.closing.forgive(node, number)
            self._scheduler.allocate(number, node_id, slots, own or None)

        self._awaiting.order(number, allot)

    def withdraw(self, number: int, body: list[Any]) -> None:
        """Give a node no more jobs of a cluster (WITHDRAW)."""
        self._awaiting.order(number, partial(self._scheduler.deallocate, number, body[1]))

    def depart(self, number: int, body: list[Any]) -> None:
        """Close a cluster on a node, and perhaps set it up again (DEPART)."""
        _, node_id, table = body
        again, terminate = bool(table.get("again")), bool(table.get("terminate"))
        leave = partial(self._scheduler.leave, number, node_id, again, terminate)
        self._awaiting.order(number, leave)
