"""All that goes between clients of a shared scheduler and nodes beside jobs: contents and files.

It is not part of the numbered conversation: whoever asks for it asks again over a new link. The
parts know nothing of each other; this is where what comes from a client is handed to them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dispy.model.errors import DispyError
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.messages import Kind
from dispy.scheduler.awaiting import Awaiting, GiveUp
from dispy.scheduler.client import number_here
from dispy.scheduler.client_contents import ClientContents, ContentsClient
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.placing_orders import PlacingOrders
from dispy.scheduler.relaying import FilesClient, Relay
from dispy.shipping.contents import PIECE_SIZE

if TYPE_CHECKING:
    from dispy.scheduler.service import Scheduler

WITHOUT_CODE = (
    "node {node} runs {python}, another Python than the program, whose code with its source text "
    "has not come from there"
)


class BulkClient(ContentsClient, FilesClient, Protocol):
    """A client as the parts here see it."""

    clusters: dict[int, set[int]]  # open ones


class ClientFiles:
    """Owns the directory of what clients have brought."""

    def __init__(
        self,
        directory: Path,
        scheduler: "Scheduler",
        give_up: GiveUp,
        client_of: Callable[[int], FilesClient | None],
        quota: int | None = None,
        client_disk: int | None = None,
        outlive_power: bool = False,
        largest: int = 0,
    ) -> None:
        """quota, client_disk, outlive_power: as with `ClientContents`; else as with the parts.

        largest: bytes of a file that may come, either way; 0: any.
        """
        self.contents = ClientContents(directory, quota, client_disk, outlive_power)
        self.awaiting = Awaiting(self.contents, scheduler.submit, give_up, scheduler.refuse)
        self.relay = Relay(client_of)
        self.contents.largest = self.relay.largest = largest
        self.placings = PlacingOrders(self.contents, scheduler.place)

    def came(self, client: BulkClient) -> None:
        """A client is there over a new link: go on with what is on its way from and to it."""
        self.contents.link_changed(client)
        self.relay.came(client)

    def read(self, client: BulkClient, frame: Frame) -> None:
        """Take what is not numbered; raises FrameRefused."""
        body: list[Any] = frame.body
        if frame.kind in (Kind.PIECE, Kind.PROVEN):
            self.contents.read(client, frame)
        elif frame.kind == Kind.FETCH:
            self.relay.fetch(client, *body)
        elif frame.kind == Kind.TOOK:
            self.relay.took(client, *body)
        elif frame.kind == Kind.PLACE:
            here = number_here(client.slot, body[0])
            self.placings.take(client, here if here in client.clusters else None, *body)
        else:
            raise FrameRefused(f"{Kind(frame.kind).name} is not for a scheduler to receive")

    def opening(
        self, node: RemoteNode, cluster_id: int, settings: Mapping[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        """Return settings and code for a node with another Python; raises DispyError.

        Its program alone can translate code, and has done so when it let the cluster use the node.
        The disk is read here: code is some kilobytes, and the same for all nodes.
        """
        digest = self.awaiting.code_of(cluster_id)
        content = None if digest is None else self.contents.get(digest)
        why = settings.get("untranslated") or self.awaiting.why_untranslated(cluster_id)
        if why is not None or content is None:
            raise DispyError(why or WITHOUT_CODE.format(node=node.name, python=node.python))
        pieces = [content.read(at, PIECE_SIZE) for at in range(0, content.size, PIECE_SIZE)]
        own = {name: value for name, value in settings.items() if name != "code"}
        return {**own, "source": True}, b"".join(pieces)

    def may_open(self, node: RemoteNode, cluster_id: int, settings: Mapping[str, Any]) -> bool:
        """Whether it is known with which code a cluster is opened on a node: it is the program's,
        or the program has said what other Pythons get."""
        ours = f"{settings.get('implementation')} {settings.get('python')}"
        if not node.hello.python or node.python == ours:
            return True
        awaiting = self.awaiting
        return bool(awaiting.code_of(cluster_id) or awaiting.why_untranslated(cluster_id))

    def over(self, jobs: Collection[int], with_options: Sequence[int]) -> None:
        """Let go of all that was there for jobs that are final; those alone with options needed
        anything."""
        self.relay.forget(jobs)
        self.awaiting.released(with_options)

    def closed(self, cluster_id: int) -> None:
        """Forget a cluster, whose jobs are forgotten."""
        self.awaiting.closed(cluster_id)

    def gone(self, client: BulkClient) -> None:
        """Forget a client, whose clusters are closed."""
        self.placings.gone(client)
        self.relay.gone(client)
        self.contents.gone(client)
