"""All that goes between clients of a shared scheduler and nodes beside jobs: contents and files.

It is not part of the numbered conversation: whoever asks for it asks again over a new link. The
parts know nothing of each other; this is where what comes from a client is handed to them.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.messages import Kind
from dispy.scheduler.awaiting import Awaiting, GiveUp
from dispy.scheduler.client_contents import ClientContents, ContentsClient
from dispy.scheduler.node_orders import NodeOrders
from dispy.scheduler.placing_orders import PlacingOrders
from dispy.scheduler.relaying import FilesClient, Relay
from dispy.scheduler.translations import Translations

if TYPE_CHECKING:
    from dispy.scheduler.service import Scheduler


class BulkClient(ContentsClient, FilesClient, Protocol):
    """A client as its parts here see it."""


class ClientFiles:
    """Owns the directory of what clients have brought."""

    def __init__(
        self,
        directory: Path,
        scheduler: "Scheduler",
        give_up: GiveUp,
        client_of: Callable[[int], FilesClient | None],
        number_there: Callable[[int], int],
        quota: int | None = None,
        client_disk: int | None = None,
    ) -> None:
        """quota, client_disk: as with `ClientContents`; the others as with the parts."""
        self.contents = ClientContents(directory, quota, client_disk)
        self.awaiting = Awaiting(self.contents, scheduler.submit, give_up)
        self.translations = Translations(self.contents)
        self.orders = NodeOrders(scheduler, self.awaiting, self.translations)
        self.relay = Relay(client_of, number_there)
        self.placings = PlacingOrders(self.contents, scheduler.place)

    def came(self, client: BulkClient) -> None:
        """A client is there over a new link: go on with what is on its way from and to it."""
        self.contents.link_changed(client)
        self.relay.came(client)

    def read(
        self, client: BulkClient, frame: Frame, cluster_here: Callable[[int], int | None]
    ) -> None:
        """Take what is not numbered; raises FrameRefused.

        cluster_here: the number by which an open cluster of the client is known here.
        """
        body: list[Any] = frame.body
        if frame.kind in (Kind.PIECE, Kind.PROVEN):
            self.contents.read(client, frame)
        elif frame.kind == Kind.FETCH:
            self.relay.fetch(client, *body)
        elif frame.kind == Kind.TOOK:
            self.relay.took(client, *body)
        elif frame.kind == Kind.PLACE:
            self.placings.take(client, cluster_here(body[0]), *body)
        else:
            raise FrameRefused(f"{Kind(frame.kind).name} is not for a scheduler to receive")

    def over(self, jobs: Collection[int], with_options: Sequence[int]) -> None:
        """Let go of all that was there for jobs that are final; those alone with options needed
        anything."""
        self.relay.forget(jobs)
        self.awaiting.released(with_options)

    def closed(self, cluster_id: int) -> None:
        """Forget a cluster, whose jobs are forgotten."""
        self.awaiting.closed(cluster_id)
        self.translations.forget(cluster_id)

    def gone(self, client: BulkClient) -> None:
        """Forget a client, whose clusters are closed."""
        self.placings.gone(client)
        self.relay.gone(client)
        self.contents.gone(client)
