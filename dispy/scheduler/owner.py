"""Whom a scheduler works for: who submits jobs to it and gets their results."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from dispy.model.statuses import Status
from dispy.protocol.frames import Buffer
from dispy.protocol.messages import Payload
from dispy.scheduler.nodes import RemoteNode
from dispy.shipping.contents import Content


class FilesTaker(Protocol):
    """Takes the files that jobs send."""

    def offered(
        self, node: RemoteNode, cluster_id: int, job: int, key: bytes, table: dict[str, Any]
    ) -> None:
        """A job sends a file: FETCH it by this key, and answer TOOK in the end."""

    def piece(
        self, node: RemoteNode, key: bytes, offset: int, why: str | None, data: Buffer
    ) -> None:
        """Here is what was asked for, or why there is none."""


class JobsOwner(Protocol):
    """Who submits jobs and gets results: a client, or the scheduler service on its behalf."""

    @property
    def options(self) -> Mapping[int, dict[str, Any]]:
        """What was said of single jobs (limits, dependencies), for those that have some."""

    @property
    def receiving(self) -> FilesTaker:
        """Who takes the files that jobs send."""

    def when_safe(self, then: Callable[[], object]) -> None:
        """Call `then` once all that the owner was told so far outlives this process; at once, if
        it does already, or never will."""

    def hand_over(
        self,
        node: RemoteNode,
        cluster_id: int,
        jobs: Sequence[int],
        send: Callable[[Sequence[Payload | None]], None],
    ) -> None:
        """Call `send` with the packed calls of jobs once it is safe that this node has them.

        None: nobody has that call any more.
        """

    def content(self, digest: bytes) -> Content | None:
        """Return what nodes may ask for under this digest, if it is (still) needed."""

    def refusal(self, node: RemoteNode, text: str) -> str:
        """Return why a node cannot run a computation, with what the owner knows about it."""

    def opening_for(
        self, node: RemoteNode, cluster_id: int, settings: dict[str, Any], content: bytes
    ) -> tuple[dict[str, Any], bytes]:
        """Return settings and code for a node with another Python; raises DispyError."""

    def started(self, cluster_id: int, node: RemoteNode, jobs: Sequence[int]) -> None:
        """These jobs were given to that node."""

    def finished(
        self,
        cluster_id: int,
        node: RemoteNode,
        jobs: Sequence[int],
        starts: Sequence[float],
        ends: Sequence[float],
        results: Sequence[Payload],
        extras: dict[int, dict[str, Any]],
    ) -> None:
        """These jobs are final; `extras` by position, for whatever is not the plain case."""

    def given_up(
        self,
        cluster_id: int,
        node: RemoteNode | None,
        jobs: Sequence[int],
        status: Status,
        reason: str,
    ) -> None:
        """These jobs are final: Abandoned where `node` had them, else Cancelled."""

    def requeued(
        self,
        cluster_id: int,
        node: RemoteNode,
        jobs: Sequence[int],
        why: str,
        cut_short: bool,
        died: bool,
    ) -> None:
        """These jobs wait again; `cut_short`: a run of each was, by its own death if it `died`."""

    def provisional(self, cluster_id: int, node: RemoteNode, job: int, value: Payload) -> None:
        """A job sent a value before its end."""

    def output(
        self, cluster_id: int, node: RemoteNode, job: int, descriptor: int, offset: int, text: bytes
    ) -> None:
        """A running job has written `text` to its descriptor 1 or 2, at this offset (bytes)."""

    def hungry(self, clusters: set[int]) -> None:
        """Jobs of these clusters wait, and their nodes have no room: give them more, if there are;
        take out of the set what was looked at."""

    def node_found(self, node: RemoteNode) -> None:
        """Answer with `allocate` for each cluster that may use it."""

    def node_back(self, node: RemoteNode) -> None:
        """As with `node_found`, for clusters that have come since its link broke."""

    def node_lost(self, node: RemoteNode, why: str) -> None:
        """A node is gone; its jobs are settled in a moment."""

    def node_available(self, node: RemoteNode) -> None:
        """A node has said anew what it has to spare (`RemoteNode.available`)."""

    def node_changed(
        self, cluster_id: int, node: RemoteNode, status: Status, error: str | None = None
    ) -> None:
        """A cluster's computation is ready on that node, or gone from it; `error`: by what."""

    def noted(self, cluster_id: int, node: RemoteNode, level: int, text: str) -> None:
        """Something for a person to read has happened to a cluster on a node; log it at `level`."""

    def node_free(self, cluster_id: int, node: RemoteNode) -> None:
        """Answer with `allocate`: a computation was closed there to be set up again."""

    def cleaned_up(self, cluster_id: int) -> None:
        """A closed cluster's cleanup has ended on all nodes that were its."""
