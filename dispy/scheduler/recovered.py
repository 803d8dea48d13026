"""One node of a program that died: what it has for that program, as it comes over a link.

Nothing is acknowledged here: until the recovery as a whole is done, another one can have it all.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from dispy.net.link import Link
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import Hello, proven_identity
from dispy.protocol.messages import Kind, Payload, join_payloads
from dispy.scheduler.columns import select
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.owner import FilesTaker

DIED = "the program that had it has died, and a recovery does not have it"


class Taker(Protocol):
    """Who gets what is recovered; told on the hub."""

    @property
    def clusters(self) -> Collection[int]:
        """The numbers of those whose jobs are wanted."""

    @property
    def receiving(self) -> FilesTaker:
        """Who takes the files that jobs send."""

    def is_final(self, job: int) -> bool:
        """Whether this job's end was taken already."""

    def has_died(self, job: int) -> bool:
        """Whether that was the death of its process, after which it may have been run again."""

    def finished(
        self,
        cluster_id: int,
        node: RemoteNode,
        jobs: list[int],
        starts: list[float],
        ends: list[float],
        results: list[Payload],
        extras: dict[int, dict[str, Any]],
    ) -> None:
        """These jobs are final; `extras` by position."""

    def provisional(self, cluster_id: int, node: RemoteNode, job: int, value: Payload) -> None:
        """A job that is not final has sent this value."""

    def abandoned(self, node: RemoteNode, job: int, reason: str) -> None:
        """A job will not come to its end any more."""


@dataclass(slots=True)
class RecoveredNode:
    """Everything is of one hub. `changed` is called when it may not be waited for any more."""

    node_id: str  # that it had when it got the jobs
    name: str
    host: str
    port: int
    taken: int  # the last number of its results that an earlier recovery has handed out
    taker: Taker
    changed: Callable[[], None]
    node: RemoteNode | None = None  # as it is now, once it was reached
    settled: bool = False  # it has said on its present link what it holds
    held: set[int] = field(default_factory=set)  # jobs that have not ended there
    computations: set[int] = field(default_factory=set)  # that are open there
    seen: int = 0  # the last number of what it owes
    given_up: str = ""  # why it is not waited for
    has_ended: bool = False  # by its own word
    trouble: str = "it is being dialled"  # why there is no link to it
    away_since: float = field(default_factory=monotonic)
    was_restarted: bool = False
    knew: bool = False  # it had something of the program, or has heard of it at least
    cancelling: bool = False  # what still runs there is not wanted
    frozen: bool = False  # nothing more is taken: what was taken is being handed out
    has_more: bool = False  # since then results have come, for the next recovery
    parting: bool = False  # it is told what may be forgotten
    parted: bool = False  # it has heard that
    _values: dict[int, int] = field(default_factory=dict)  # job -> number of its newest value

    @property
    def is_waited_for(self) -> bool:
        """Whether it may still have something."""
        return not self.given_up and (not self.settled or bool(self.held))

    @property
    def is_done(self) -> bool:
        """Whether nothing is left of it for another recovery."""
        return self.has_ended or (self.parted and not self._keeps_something)

    @property
    def may_part(self) -> bool:
        """Whether it can still be told something that it does not know."""
        if self.given_up or not (self.settled or self.seen):
            return False
        return not self.parted or (bool(self.computations) and not self._keeps_something)

    @property
    def _keeps_something(self) -> bool:
        return bool(self.held) or self.has_more

    @property
    def where(self) -> str:
        """The node in words."""
        return f"node {self.name} at {self.host}, port {self.port}"

    def give_up(self, reason: str) -> None:
        """Wait for it no more."""
        self.given_up = reason
        if self.node is not None and self.node.link is not None:
            self.node.link.close()
        self.changed()

    def is_silent(self, seconds: float) -> bool:
        """Whether there is a link to it over which nothing came for so long."""
        link = self.node.link if self.node is not None else None
        return link is not None and monotonic() - link.heard > seconds

    def connected(self, link: Link, hello: Hello) -> None:
        """Take a new link, over which it has said who it is."""
        node_id = proven_identity(hello.identity, link.peer_key)
        if self.node is None or self.node.node_id != node_id:
            if self.node is not None or self.node_id != node_id:
                self._restarted()
            self.node = RemoteNode(node_id, hello.name, self.host, self.port, 1, hello, link)
            self.name = hello.name
        self.node.link, self.settled, self.parted = link, False, False

    def _restarted(self) -> None:
        """It is another process now: what the one before ran has gone with it."""
        self.was_restarted, self.taken, self.seen = True, 0, 0
        self._values.clear()
        if self.node is not None:
            self._lose(self.held, f"{self.where} was restarted while it had this job")

    def link_ended(self) -> None:
        """Take note that there is no link, if there was one."""
        if self.settled:
            self.away_since = monotonic()
        self.settled = False
        if self.node is not None:
            self.node.link = None
        self.changed()

    def take(self, frame: Frame) -> None:
        """Take what it says; raises FrameRefused for what no node of ours says here."""
        body, node = frame.body, self.node
        assert node is not None, "it has said hello"
        if frame.kind == Kind.RESULTS:
            self._take_results(node, frame)
        elif frame.kind == Kind.PROVISIONAL:
            self._take_value(node, frame)
        elif frame.kind == Kind.HELD:
            self._settle(node, *body)
        elif frame.kind in (Kind.RETURNED, Kind.FULL):
            _, jobs, why = body
            why = f"{self.where} has given it back: {why or 'it was asked to'}"
            self._lose(self.held.intersection(jobs), why)
        elif frame.kind == Kind.GOODBYE:
            self._lose(self.held, f"{self.where} has ended: {body[0]}")
            self.has_ended = True
            self.give_up(f"it has ended: {body[0]}")
        elif frame.kind in (Kind.OFFER, Kind.PIECE) and self.frozen:
            return  # the file is for the next recovery
        elif frame.kind == Kind.OFFER:
            if body[1] in self.held:
                self.taker.receiving.offered(node, *body)
            else:
                node.tell(Kind.TOOK, [body[2], "the job is over for its client"])
        elif frame.kind == Kind.PIECE:
            self.taker.receiving.piece(node, body[0], body[1], body[2], frame.buffers[0])
        elif frame.kind == Kind.FETCH:
            assert node.link is not None, "it came over that"
            node.link.send(Kind.PIECE, [body[0], body[1], DIED], [b""])
        elif frame.kind == Kind.PROVE:
            node.tell(Kind.PROVEN, [body[0], body[1], b""])
        elif frame.kind == Kind.CLOSED:
            self.computations.discard(body[0])
            self.changed()
        elif frame.kind == Kind.LISTED:
            self.parted = self.parting
            self.changed()
        elif frame.kind not in (Kind.READY, Kind.SHARE, Kind.STATUS, Kind.OUTPUT, Kind.PLACED):
            raise FrameRefused(f"{Kind(frame.kind).name} is not for a client to receive")

    def _take_results(self, node: RemoteNode, frame: Frame) -> None:
        sequence, cluster_id, jobs, starts, ends, column, extras = frame.body
        if sequence <= max(self.seen, self.taken):
            return  # sent again over a new link, or handed out by an earlier recovery
        if self.frozen:
            self.has_more = True
            return
        self.seen = sequence
        self.held.difference_update(jobs)
        if cluster_id in self.taker.clusters:
            results = join_payloads(column, frame.buffers)
            taker = self.taker
            wanted = {job for job in jobs if not taker.is_final(job) or taker.has_died(job)}
            columns, extras = select(wanted, (jobs, starts, ends, results), extras)
            if wanted:
                jobs, starts, ends, results = columns
                self.taker.finished(cluster_id, node, jobs, starts, ends, results, dict(extras))
        self.changed()

    def _take_value(self, node: RemoteNode, frame: Frame) -> None:
        """Take a value that a job has sent before its end.

        The newest one is told on each link, though it was acknowledged to the program that died.
        """
        sequence, cluster_id, job, value = frame.body
        if self.frozen:
            return
        self.seen = max(self.seen, sequence)
        is_wanted = cluster_id in self.taker.clusters and not self.taker.is_final(job)
        if is_wanted and sequence >= self._values.get(job, 0):
            self._values[job] = sequence
            payload = join_payloads([value], frame.buffers)[0]
            self.taker.provisional(cluster_id, node, job, payload)

    def _settle(self, node: RemoteNode, jobs: list[int], computations: list[int]) -> None:
        if self.settled:
            raise FrameRefused("HELD a second time on one link")
        self.settled = True
        self.knew = self.knew or bool(computations or self.seen)
        self._lose(self.held.difference(jobs), f"{self.where} has it no more")
        self.held, self.computations = set(jobs), set(computations)
        if self.cancelling:
            self.cancel()
        if self.parting:
            self.part()
        self.changed()

    def _lose(self, jobs: Collection[int], reason: str) -> None:
        assert self.node is not None, "it has told of them"
        for job in list(jobs):
            self.held.discard(job)
            if not self.frozen and not self.taker.is_final(job):
                self.taker.abandoned(self.node, job, reason)
        self.changed()

    def lose_all_but(self, held: Collection[int]) -> None:
        """Abandon jobs of which there is a value here, and which no node has any more."""
        if self.node is not None:
            self._lose(set(self._values).difference(held), f"it has not ended, and {self.where} "
                       f"has it no more: it was restarted meanwhile")  # fmt: skip

    def cancel(self) -> None:
        """Have all that runs there end, and reported as any cancelled job is."""
        self.cancelling = True
        if self.node is not None and self.settled and self.held:
            for number in self.computations:  # it has not said which job is of which
                self.node.tell(Kind.CANCEL, [number, sorted(self.held)])

    def part(self) -> None:
        """Tell it what may be forgotten: the results that came, and what no job needs any more."""
        self.parting = True
        if self.node is None or not self.settled:
            return
        if handed_out := max(self.seen, self.taken):
            self.node.tell(Kind.ACKNOWLEDGE, [handed_out])
        if not self._keeps_something:
            for number in self.computations:
                self.node.tell(Kind.CLOSE, [number])
        self.node.tell(Kind.LIST, [0, 0])  # its answer says that it has read all of that
