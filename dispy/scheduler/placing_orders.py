"""Files that clients send to a node while their clusters run (`send_file`).

An order is fetched from its client, then given to the node, then answered; a client that has not
heard the answer orders again over a new link. To put the same files there twice changes nothing, so
nothing of this outlives a scheduler.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent

from dispy.model.errors import DispyError
from dispy.protocol.messages import Kind
from dispy.scheduler.client_contents import ClientContents, ContentsClient

ORDERS_LIMIT = 64  # of one client at once

Place = Callable[[int, str, list[Any]], str | None]  # cluster, node, files; waits; why not


@dataclass(slots=True)
class _Order:
    client: ContentsClient
    body: list[Any]  # the beginning of its answer: cluster, token
    place: Callable[[], str | None]
    waits: "gevent.Greenlet[..., None] | None" = None


class PlacingOrders:
    """Of all clients. place: has a node put files where a cluster's jobs run."""

    def __init__(self, contents: ClientContents, place: Place) -> None:
        self._contents, self._place = contents, place
        self._orders: dict[tuple[str, int, int], _Order] = {}  # also the user of the contents
        self._counts: Counter[int] = Counter()

    def take(
        self, client: ContentsClient, cluster_id: int | None, said: int, token: int,
        table: dict[str, Any],
    ) -> None:  # fmt: skip
        """Take a PLACE, unless it is being done. said: as what the client knows the cluster."""
        user = ("place", client.slot, token)
        if user in self._orders:
            return
        node_id, files = table.get("node"), table.get("files")
        if cluster_id is None or not isinstance(node_id, str) or not isinstance(files, list):
            self._tell(client, [said, token], "the scheduler does not know its cluster")
            return
        if self._counts[client.slot] >= ORDERS_LIMIT:
            self._tell(client, [said, token], f"{ORDERS_LIMIT} others are being sent already")
            return
        try:
            wanted = self._contents.wanted({"files": files})
        except DispyError as error:
            self._tell(client, [said, token], str(error))
            return
        order = _Order(client, [said, token], lambda: self._place(cluster_id, node_id, files))
        self._orders[user] = order
        self._counts[client.slot] += 1
        if self._contents.need(client, user, wanted, lambda why: self._came(user, why)):
            self._came(user, None)

    def _came(self, user: tuple[str, int, int], why: str | None) -> None:
        if why is not None:
            self._answer(user, why)
        else:
            self._orders[user].waits = gevent.spawn(self._carry_out, user)

    def _carry_out(self, user: tuple[str, int, int]) -> None:
        why = self._orders[user].place()
        if user in self._orders:
            self._answer(user, why)

    def _answer(self, user: tuple[str, int, int], why: str | None) -> None:
        order = self._forget(user)
        self._tell(order.client, order.body, why)

    def _forget(self, user: tuple[str, int, int]) -> _Order:
        order = self._orders.pop(user)
        self._counts[order.client.slot] -= 1
        self._contents.release(user)
        return order

    def _tell(self, client: ContentsClient, body: list[Any], why: str | None) -> None:
        client.tell(Kind.PLACED, [*body, why])

    def gone(self, client: ContentsClient) -> None:
        """Forget what a client has ordered."""
        for user in [user for user, order in self._orders.items() if order.client is client]:
            waits = self._forget(user).waits
            if waits is not None:
                waits.kill(block=False)
        del self._counts[client.slot]
