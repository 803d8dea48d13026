"""A scheduler in another process, as a session sees it: the methods of the embedded one.

What they do there is said in a conversation (`dispy.protocol.conversation`), and what comes back
is told to the session as its own scheduler would. Nodes are mirrored: the same records, without
links. On the session's hub; nothing waits but the greenlet that keeps the link.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
import gevent.threadpool  # by which names are resolved: too late once the program is ending
from gevent.event import Event

from dispy.client.inquiries import Inquiries
from dispy.client.mirrors import NoClosings, NoKeepers
from dispy.client.remote_calls import batches, for_any_python
from dispy.client.remote_files import RemoteFiles
from dispy.client.rules import rules_of
from dispy.client.told import Told
from dispy.model.credentials import NOTHING, Credentials
from dispy.model.rules import Rule
from dispy.model.statuses import Status
from dispy.net.dialing import connect
from dispy.net.link import Link, LinkEnd
from dispy.net.pulses import Pulses
from dispy.net.secure import NotProven, dial
from dispy.protocol.conversation import Conversation, Said
from dispy.protocol.frames import Buffer, Frame, FrameRefused
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind, Payload, split_payloads
from dispy.scheduler.keeping import Pauses
from dispy.scheduler.nodes import Nodes, RemoteNode

if TYPE_CHECKING:
    from dispy.client.session import Session
    from dispy.scheduler.nodes import RemoteNode

logger = logging.getLogger("dispy.client")

CONNECT_SECONDS = 5.0
RETRY_SECONDS = 3.0  # between attempts, at most
SETTLE_SECONDS = 5.0  # that it may take to do what it is told
PART_SECONDS = 5.0  # that it may take, at the program's end, to hear which clusters are closed
PART_LOOK_SECONDS = 0.01
STOP_SECONDS = 2.0  # that our greenlet may take to end


class RemoteScheduler:
    """Of one session; `address`: host and port of the scheduler."""

    def __init__(
        self,
        session: "Session",
        address: tuple[str, int],
        identity: str,
        name: str,
        credentials: Credentials = NOTHING,
    ) -> None:
        self._session, self.address = session, address
        self.identity, self.name, self.credentials = identity, name, credentials
        self.nodes = Nodes()
        self.closing, self.keepers = NoClosings(), NoKeepers()
        self._files = RemoteFiles(session)
        self.place = self._files.place
        self._conversation, self._token = Conversation(), ""
        self._link: Link | None = None
        self._met = False
        self.trouble = ""  # why there is no link
        self._stopped = False
        self._clusters: dict[int, tuple[str, dict[str, Any], bytes]] = {}  # as they were opened
        self._settling: deque[tuple[int, Event]] = deque()  # who waits until what was heard
        self._told = Told(session, self.nodes, self._clusters, self._files.tell)
        self.questions = Inquiries(
            session, self._told, address[0],
            lambda token, table: self._say(Kind.ASK, [token, table]), self._trouble,
        )  # fmt: skip
        self._keeper = gevent.spawn(self._keep)
        self._pulses = Pulses(lambda: [self._link] if self._link is not None else [])

    # -- the link

    def _keep(self) -> None:
        """Dial the scheduler for as long as this session lives."""
        pauses = Pauses(Random())
        while not self._stopped:
            began = monotonic()
            end = self._serve()
            if self._stopped:
                return
            if end.refused and end.reason != self.trouble:
                logger.error("scheduler at %s, port %d: %s", *self.address, end.reason)
            self.trouble = end.reason
            if monotonic() - began > RETRY_SECONDS:
                pauses.begin()
            gevent.sleep(pauses.next(RETRY_SECONDS))

    def _serve(self) -> LinkEnd:
        try:
            sock = connect(*self.address, CONNECT_SECONDS)
            link = Link(dial(sock, self.credentials, self.address[0]))
        except NotProven as error:
            return LinkEnd(str(error), refused=True)
        except OSError as error:
            return LinkEnd(f"no answer: {error.strerror or error}")
        try:
            details = self._details()
            hello = link.exchange_hello(
                Hello("client", self.identity, self.name, details=details), "scheduler"
            )
            again = self._go_on(hello)
        except (FrameRefused, OSError) as error:
            link.close()
            return LinkEnd(str(error), isinstance(error, FrameRefused))
        self._link, self.trouble = link, ""
        if not self._met:
            logger.info("scheduler %s (%s) found", hello.name, self.address[0])
        self._met = True
        for said in again:
            link.send(Kind.SAID, [said.number, said.kind, said.body], said.buffers)
        self._files.link_made(link)
        end = link.read(self._read, self._turn_over)
        self._link = None
        return end

    def _go_on(self, hello: Hello) -> Iterator[Said]:
        """Return what the scheduler has to hear that says hello; raises FrameRefused."""
        self._take_token(str(hello.details.get("conversation")))
        heard = hello.details.get("heard")
        return self._conversation.again(heard if type(heard) is int else 0)

    def _details(self) -> dict[str, Any]:
        """Return what our hello says besides."""
        return {"heard": self._conversation.arrived, "conversation": self._token}

    def _take_token(self, token: str) -> None:
        """Begin anew with a scheduler that does not know us any more; what it had is lost."""
        before, self._token = self._token, token
        if before in ("", token):
            return
        why = f"the scheduler at {self.address[0]} has forgotten this program: it was restarted"
        self._told.forget_all()
        self._conversation = Conversation()
        for cluster_id, (name, table, content) in self._clusters.items():
            self._say(Kind.CLUSTER, [cluster_id, name, table], [content])
            jobs = [job._number for job in self._session.clusters[cluster_id]._unfinished()]
            if jobs:
                logger.error("%s; %d jobs of %s are lost", why, len(jobs), name)
                self._session.given_up(cluster_id, None, jobs, Status.Abandoned, why)

    def _say(self, kind: int, body: list[Any], buffers: Sequence[Buffer] = ()) -> None:
        said = self._conversation.say(kind, body, buffers)
        if self._link is not None:
            self._link.send(Kind.SAID, [said.number, kind, body], buffers)

    def _read(self, frame: Frame) -> None:
        if frame.kind == Kind.HEARD:
            self._conversation.taken(frame.body[0])
            while self._settling and self._settling[0][0] <= frame.body[0]:
                self._settling.popleft()[1].set()
            return
        if frame.kind != Kind.SAID:
            self._files.read(frame)
            return
        number, kind, body = frame.body
        if self._conversation.is_new(number, may_have_gaps=True):
            self._hear(number, kind, body, frame.buffers)

    def _hear(self, number: int, kind: int, body: list[Any], buffers: Sequence[Buffer]) -> None:
        """Take something that was told, for the first time."""
        self._told.take(kind, body, buffers)

    def _turn_over(self) -> None:
        conversation = self._conversation
        if conversation.confirm(conversation.arrived) and self._link is not None:
            self._link.send(Kind.HEARD, [conversation.arrived])

    # -- what a session asks for

    def open_cluster(
        self,
        cluster_id: int,
        name: str,
        settings: dict[str, Any],
        content: bytes,
        reentrant: bool,
        pulse: float | None,
        retries: int | None = None,
    ) -> None:
        """As `Scheduler.open_cluster`."""
        cluster: Any = self._session.clusters[cluster_id]  # a SharedJobCluster
        table = {
            "settings": settings, "reentrant": reentrant, "pulse": pulse, "retries": retries,
            "nodes": rules_of(cluster), **cluster._place_among_others(),
        }  # fmt: skip
        self._clusters[cluster_id] = name, table, content
        self._say(Kind.CLUSTER, [cluster_id, name, table], [content])

    def allocate(
        self, cluster_id: int, node_id: str, cpus: int, own: dict[str, Any] | None = None
    ) -> None:
        """As `Scheduler.allocate`."""
        if node_id in self.nodes and cluster_id in self._clusters:
            forgiven = (cluster_id, node_id) in self.closing.forgiven
            self.closing.forgiven.discard((cluster_id, node_id))
            if cpus:
                self.nodes[node_id].opened.add(cluster_id)  # until it is told to be closed there
            table = self._files.allotment(cluster_id, node_id, *self._clusters[cluster_id], own)
            table["forgive"] = forgiven
            self._say(Kind.ALLOT, [cluster_id, node_id, cpus, table])

    def change_rules(self, cluster_id: int, rules: list[Rule] | None) -> None:
        """Let a cluster use other nodes, from now on: see `dispy.client.shared_offering`."""
        if cluster_id in self._clusters:
            name, table, content = self._clusters[cluster_id]
            self._clusters[cluster_id] = name, {**table, "nodes": rules}, content
            self._say(Kind.RULES, [cluster_id, {"nodes": rules}])

    def translate(self, cluster_id: int, node: RemoteNode) -> None:
        """Have a node that rules may bring to a cluster get code for its Python, if that differs
        from ours and was not said before."""
        if cluster_id in self._clusters:
            name, table, content = self._clusters[cluster_id]
            said = self._files.translation(cluster_id, node, name, table["settings"], content)[0]
            if said and not said.keys() & table.keys():
                self._clusters[cluster_id] = name, {**table, **said}, content
                self._say(Kind.RULES, [cluster_id, {"nodes": table.get("nodes"), **said}])

    def deallocate(self, cluster_id: int, node_id: str) -> None:
        """As `Scheduler.deallocate`."""
        self._say(Kind.WITHDRAW, [cluster_id, node_id])

    def submit(self, cluster_id: int, jobs: Sequence[int], node_id: str | None = None) -> None:
        """As `Scheduler.submit`: in messages of many jobs."""
        if cluster_id not in self._clusters:
            return
        payloads = list(map(for_any_python, self._session.payloads(jobs)))
        for part in batches(payloads):
            self._submit(cluster_id, node_id, jobs[part], payloads[part], self._session.options)

    def _submit(
        self,
        cluster_id: int,
        node_id: str | None,
        jobs: Sequence[int],
        payloads: Sequence[Payload],
        options: Mapping[int, dict[str, Any]],
    ) -> None:
        column, buffers = split_payloads(payloads)
        extras = [[at, options[job]] for at, job in enumerate(jobs) if job in options]
        self._say(Kind.SUBMIT, [cluster_id, node_id, list(jobs), column, extras], buffers)

    def cancel(self, cluster_id: int, job: int) -> None:
        """As `Scheduler.cancel`."""
        self._say(Kind.CANCEL, [cluster_id, [job]])

    def settle(self) -> None:
        """Wait until the scheduler has heard all that was said, for seconds at most."""
        if self._conversation.kept and self._link is not None:
            heard = Event()
            self._settling.append((self._conversation.last, heard))
            heard.wait(SETTLE_SECONDS)

    def leave(self, cluster_id: int, node_id: str, again: bool, terminate: bool) -> None:
        """As `Scheduler.leave`."""
        table = {"again": again, "terminate": terminate}
        self._say(Kind.DEPART, [cluster_id, node_id, table])

    def close_cluster(self, cluster_id: int) -> None:
        """As `Scheduler.close_cluster`."""
        if self._clusters.pop(cluster_id, None) is not None:
            self._told.forget(cluster_id)
            self.questions.forget(cluster_id)
            self._say(Kind.CLOSE, [cluster_id])

    def is_stuck(self, cluster_id: int) -> bool:
        """As `Scheduler.is_stuck`."""
        return self.questions.is_stuck(cluster_id)

    def explain_waiting(self, cluster_id: int) -> list[str]:
        """As `Scheduler.explain_waiting`; waits for the answer."""
        return self.questions.lines({"cluster": cluster_id}) or [
            f"the scheduler at {self.address[0]}, port {self.address[1]} has no node for it yet"
        ]

    def explain(self, cluster_id: int, job: int) -> list[str]:
        """As `Scheduler.explain`; waits for the answer."""
        return self.questions.lines({"cluster": cluster_id, "job": job})

    def has_ready_node(self, cluster_id: int) -> bool:
        """Whether some node has this cluster's computation ready to run."""
        return any(cluster_id in node.ready for node in self.nodes.values())

    def _trouble(self) -> list[str]:
        """Say why the scheduler cannot be asked; nothing where it can."""
        if self._link is not None:
            return []
        host, port = self.address
        return [
            f"the scheduler at {host}, port {port}: {self.trouble or 'no answer yet'}",
            f"is `dispy scheduler` running there? `dispy doctor {host}` checks the way to it",
        ]

    def was_heard(self, timeout: float | None) -> bool:
        """Wait until the scheduler has all that was said; False after `timeout` seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        while self._conversation.kept or not self._met:
            if deadline is not None and monotonic() >= deadline:
                return False
            gevent.sleep(PART_LOOK_SECONDS)
        return True

    # -- the end

    def part(self) -> None:
        """Wait until the scheduler knows which clusters are closed, for seconds at most."""
        deadline = monotonic() + PART_SECONDS
        while self._conversation.kept and monotonic() < deadline and self._met:
            gevent.sleep(PART_LOOK_SECONDS)

    def stop(self) -> None:
        """End the link; the scheduler keeps what it was given."""
        self._stopped = True
        self._files.stop()
        self._pulses.stop()
        if self._link is not None:
            self._link.close()
        self._keeper.kill(timeout=STOP_SECONDS)

    def disown(self) -> None:
        """In a forked child: give up the link without a word."""
        if self._link is not None:
            self._link.forget()
