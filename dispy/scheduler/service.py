"""The scheduler: drives a `Scheduling` core and the links to its nodes.

Embedded in a client it runs on that client's hub thread. Handlers change the core and never
wait; what they made dirty is placed once, after all that has arrived in this turn of the loop.
The owner of the jobs is told through the methods of `JobsOwner`, in the same greenlet.
"""

import logging
from collections.abc import Sequence
from time import monotonic
from typing import Any

import gevent
from gevent import get_hub
from gevent.socket import socket

from dispy.model.credentials import NOTHING, Credentials
from dispy.model.events import event
from dispy.model.precedence import EQUAL, Precedence
from dispy.model.statuses import Status
from dispy.net.link import Link, LinkEnd
from dispy.net.secure import NotProven, dial
from dispy.net.waking import Awake
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import Hello, NoHello, proven_identity
from dispy.protocol.messages import Kind
from dispy.scheduler.closing import Closing
from dispy.scheduler.columns import differing
from dispy.scheduler.given import Given
from dispy.scheduler.heartbeat import Heartbeat
from dispy.scheduler.keeping import Attempt, Keepers, Served
from dispy.scheduler.nodes import IMITATION, MUTE, Nodes, RemoteNode, of_node
from dispy.scheduler.opening import Openings
from dispy.scheduler.orders import Orders
from dispy.scheduler.owner import JobsOwner
from dispy.scheduler.parting import part
from dispy.scheduler.questions import Questions
from dispy.scheduler.results import Results
from dispy.scheduler.standing import Standing
from dispy.scheduler.status import take_status
from dispy.scheduler.supply import Supply
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Cluster, Node

logger = logging.getLogger("dispy.scheduler")

PROCESSORS_LIMIT = 1 << 16  # of one node: Linux has 8192 at most, and people may say more
NO_CLUSTER = -1
STOP_SECONDS = 2.0  # that greenlets may take to end


class Scheduler:
    """Owns a core, the nodes' links, and the greenlets that keep them."""

    def __init__(
        self,
        owner: JobsOwner,
        identity: str,
        name: str,
        credentials: Credentials = NOTHING,
        core: Scheduling | None = None,
    ) -> None:
        """credentials: by which nodes that are dialled are proven to, and have to prove."""
        self._owner, self.identity, self.name = owner, identity, name
        self.credentials = credentials
        self._core = core or Scheduling()
        self.nodes = Nodes()
        self._heartbeat = Heartbeat(self.nodes)
        self.keepers = Keepers(self.nodes, self._serve_node, self._lost, self._heartbeat.until_lost)
        self._given = Given(self._core, owner.content)
        self._supply = Supply(owner.content, self._given)
        self._awake = Awake()
        orders = Orders(self._core, self.nodes, owner, self._given, self._awake)
        self._perform = orders.perform
        self.closing = orders.closing = Closing(self._core, self.nodes, owner, self._perform)
        self._openings = Openings(
            self._core, owner, self.closing, self._heartbeat, self._perform, self._plan_pass,
            self._given,
        )  # fmt: skip
        self._results = orders.results = Results(
            self._core, owner, self._given, self._awake, self._perform
        )
        self.questions = Questions(self._given.own_jobs)
        self.standing = Standing(
            self._core, owner, self.nodes, self.keepers, self._given, self._openings
        )
        self._pass_pending = False
        self._watching: gevent.Greenlet[..., None] | None = None  # over jobs sent ahead
        self._links: set[Link] = set()  # all that are open, those that say hello included
        self._stopped = False

    # -- clusters and jobs

    def open_cluster(
        self,
        cluster_id: int,
        name: str,
        settings: dict[str, Any],
        content: bytes,
        reentrant: bool,
        pulse: float | None,
        retries: int | None = None,
        precedence: Precedence = EQUAL,
    ) -> None:
        """Take in a cluster; its nodes come by `allocate`."""
        self._openings.add(cluster_id, name, settings, content)
        self._heartbeat.want(cluster_id, pulse)
        width = settings.get("cpus", 1)
        cluster = Cluster(cluster_id, name, reentrant, width, retries, **precedence._asdict())
        self._core.cluster_opened(cluster)

    def allocate(
        self, cluster_id: int, node_id: str, cpus: int, own: dict[str, Any] | None = None
    ) -> None:
        """Let a cluster use `cpus` processors of a node, from now on; 0: it gets no more jobs.

        own: settings for this node alone, where it has not been set up so far.
        """
        if node_id in self.nodes:  # else it was lost while it was being decided
            self._openings.allocate(self.nodes[node_id], cluster_id, cpus, own)

    def refuse(self, cluster_id: int, node_id: str, why: str) -> None:
        """Say that a cluster cannot use a node, for a reason that the node does not know of."""
        if node_id in self.nodes:
            self._openings.answered(self.nodes[node_id], cluster_id, why, {})

    def deallocate(self, cluster_id: int, node_id: str) -> None:
        """Give a node no more jobs of a cluster but those that are for it alone."""
        node = self.nodes.get(node_id)
        self._perform(self._core.cluster_deallocated(node_id, cluster_id), node)
        self._plan_pass()

    def submit(self, cluster_id: int, jobs: Sequence[int], node_id: str | None = None) -> None:
        """Queue jobs, for one node if it is named; they are placed in this turn of the loop."""
        if cluster_id not in self._core.clusters:
            return  # it was closed in between, with all its jobs
        self._given.newest = max(self._given.newest, max(jobs, default=-1))
        options = self._owner.options
        own = [differing(options, jobs, name) for name in ("cpus", "retries", "priority")]
        if node_id is None:
            self._core.jobs_submitted(cluster_id, jobs, *own)
        else:
            self._perform(self._core.jobs_pinned(cluster_id, jobs, node_id, *own))
        self._pass()

    def cancel(self, cluster_id: int, job: int) -> None:
        """Cancel a job: `given_up` is called at once if it was queued; else its node ends it."""
        self._perform(self._core.cancel(cluster_id, job))
        self._plan_pass()  # slots may have been kept for it

    def is_stuck(self, cluster_id: int) -> bool:
        """Whether a cluster has jobs and none of them runs, or is about to."""
        return self._core.is_stuck(cluster_id)

    def explain_waiting(self, cluster_id: int) -> list[str]:
        """Say why waiting jobs of a cluster are not given to any node, one line for each node."""
        return self._core.explain_waiting(cluster_id)

    def has_ready_node(self, cluster_id: int) -> bool:
        """Whether some node has this cluster's computation ready to run."""
        return any(cluster_id in node.ready for node in self.nodes.values())

    def explain(self, cluster_id: int, job: int) -> list[str]:
        """Say why a job waits, or where it is; no lines for a job that is final."""
        return self._core.explain(cluster_id, job, monotonic())

    def release(self, node: RemoteNode, tokens: Sequence[int]) -> None:
        """Tell a node on this machine that nobody looks at these shared buffers any more."""
        node.tell(Kind.RELEASE, [list(tokens)])

    def leave(self, cluster_id: int, node_id: str, again: bool, terminate: bool) -> None:
        """Close a computation on one node, once its jobs there have ended or been stopped."""
        if node_id in self.nodes and cluster_id in self._core.clusters:
            self.closing.leave(self.nodes[node_id], cluster_id, again, terminate)
            self._plan_pass()

    def place(self, cluster_id: int, node_id: str, files: list[Any]) -> str | None:
        """Have a node put files where a cluster's jobs run; wait, and return why it did not."""
        node = self.nodes.get(node_id)
        return "it is gone" if node is None else self._supply.place(node, cluster_id, files)

    def close_cluster(self, cluster_id: int) -> None:
        """Forget a cluster; nodes stop what they still run of it."""
        name, cleans_up = self._openings.forget(cluster_id)
        self._heartbeat.forget(cluster_id)
        self._core.cluster_closed(cluster_id)
        self.closing.close_everywhere(cluster_id, name, cleans_up)
        self._plan_pass()

    # -- nodes

    def want_pulse(self, seconds: float | None) -> None:
        """Want signs of life of all nodes as often as this, whatever clusters want."""
        self._heartbeat.want(NO_CLUSTER, seconds)

    def connect(self, host: str, port: int, found: bool = False) -> None:
        """Keep a link to the node at this address from now on; `found`: nobody named it."""
        self.keepers.keep(host, port, found)

    def forget(self, host: str, port: int) -> None:
        """Let an address go; a node that is connected there stays until it is lost."""
        self.keepers.forget(host, port)

    def adopt(self, sock: socket) -> str:
        """Serve a node on a socket that is connected already; returns how it ended."""
        node, end = self._serve(Link(sock, shares_memory=True), Attempt("127.0.0.1", 0))
        if node is not None:
            self._lost(node, end.reason)
        return end.reason

    def _serve_node(self, sock: socket, attempt: Attempt) -> Served:
        host, port = attempt.host, attempt.port
        try:
            with attempt.within(MUTE):
                transport = dial(sock, self.credentials, host)
        except NotProven as error:
            if self.keepers.unreachable.get((host, port)) != str(error):  # it was said before
                logger.warning("node at %s, port %d is refused: %s", host, port, error)
            return None, LinkEnd(str(error), refused=True)
        except OSError as error:
            return None, LinkEnd(f"no proof: {error.strerror or error}")
        return self._serve(Link(transport), attempt)

    def _serve(self, link: Link, attempt: Attempt) -> Served:
        """Speak with a node until its link ends; return it, and how that ended."""
        if self._stopped:
            link.close()
            return None, LinkEnd("the scheduler has ended")
        self._links.add(link)
        try:
            return self._speak(link, attempt)
        finally:
            self._links.discard(link)
            link.close()

    def _speak(self, link: Link, attempt: Attempt) -> Served:
        host, port, before = attempt.host, attempt.port, attempt.before
        told_pulse = self._heartbeat.pulse_seconds
        ours = Hello("client", self.identity, self.name, details={"pulse": told_pulse})
        try:
            with attempt.within(MUTE):
                hello = link.exchange_hello(ours, "node")
            attempt.greeted()
            of_other_user = link.is_of_other_user()  # raises where the link was reset meanwhile
        except (FrameRefused, OSError) as error:
            link.close()
            # One that goes before it has said all is ending or full, and soon there again.
            refused = isinstance(error, FrameRefused) and not isinstance(error, NoHello)
            return None, LinkEnd(str(error), refused)
        node_id = proven_identity(hello.identity, link.peer_key)
        if before is not None and before.node_id != node_id and before.link is None:
            self._lost(before, "it was restarted")
        node = self.nodes.get(node_id)
        said = hello.details.get("cpus")
        # A peer's nonsense means one.
        cpus = said if type(said) is int and said <= PROCESSORS_LIMIT else 1
        if node is not None and node.link is not None and not node.link.closed:
            link.close()
            self.keepers.elsewhere[host, port] = node.node_id
            there = f"it is node {node.name}, which is connected at {node.ip_addr} already"
            return None, LinkEnd(there)
        if node is None:
            if self.nodes.knows(hello.identity):
                logger.warning(IMITATION, hello.name, host)
            node = RemoteNode(node_id, hello.name, host, port, cpus, hello, link, cpus)
            node.of_other_user = of_other_user
            self.nodes.take_in(node)
            self._given.came(node)
            node.take_available(hello.details.get("available"))
            self._core.node_joined(Node(node.node_id, node.name, max(1, cpus), settled=False))
            if port:  # the local node was announced when it was started
                logger.info(
                    "node %s (%s) found, %d processors", node.name, host, cpus,
                    extra=event("node_found", **of_node(node), processors=cpus),
                )  # fmt: skip
        node.hello, node.cpus = hello, cpus  # of one from before, little may be known
        node.link_made(link, host, port, told_pulse)
        self._core.node_silent(node.node_id)  # the end of the old link may not have been noticed
        self.keepers.unreachable.pop((host, port), None)
        end = link.read(lambda frame: self._from_node(node, frame), self._turn_over)
        if node.link is link:
            self._core.node_silent(node.node_id, end.reason)
            self._plan_pass()  # others may run what this one was reserved for
            self.questions.link_ended(node)
        node.link_ended(link, end.reason)
        return node, end

    def _lost(self, node: RemoteNode, reason: str) -> None:
        if not self.nodes.take_out(node):
            return
        level = logging.WARNING if node.port else logging.DEBUG  # a local node's end is told above
        told = event("node_lost", **of_node(node), why=reason)
        logger.log(level, "node %s (%s) is lost: %s", node.name, node.ip_addr, reason, extra=told)
        if node.link is not None:
            self._owner.when_safe(node.link.close)
        self._owner.node_lost(node, reason)
        self._supply.lost(node)
        self._given.lost(node)
        self.closing.lost(node)
        self._perform(self._core.node_lost(node.node_id, reason, monotonic()), node)
        for cluster_id in node.ready:
            self._owner.node_changed(cluster_id, node, Status.Closed)
        self._plan_pass()

    def _from_node(self, node: RemoteNode, frame: Frame) -> None:
        body = frame.body
        if frame.kind == Kind.RESULTS:
            self._results.take(node, frame)
            return
        if frame.kind == Kind.PROVISIONAL:
            self._results.take_value(node, frame)
            return
        if frame.kind == Kind.SHARE:
            node.share, node.owners = min(body[0], PROCESSORS_LIMIT), body[1]
            self._core.node_shared(node.node_id, node.share, node.owners, monotonic())
        elif frame.kind == Kind.READY:
            if self._given.has_cluster(node, body[0]):
                self._openings.answered(node, *body)
        elif frame.kind == Kind.CLOSED:
            self.closing.closed(node, body[0], self._openings.name_of(body[0]), *body[1:])
        elif frame.kind in (Kind.RETURNED, Kind.FULL):
            cluster_id, jobs, why = body
            jobs = list(self._given.own_jobs(node, cluster_id, jobs))
            take = self._core.node_full if frame.kind == Kind.FULL else self._core.jobs_returned
            self._perform(take(node.node_id, cluster_id, jobs, why, monotonic()), node)
        elif frame.kind == Kind.HELD:
            self._settle(node, *body)
        elif frame.kind in (Kind.OUTPUT, Kind.OFFER):
            if self._given.has_job(node, body[0], body[1]):
                self._from_job(node, frame)
            elif frame.kind == Kind.OFFER:
                node.tell(Kind.TOOK, [body[2], "the job is over for its client"])
        elif frame.kind == Kind.PIECE:
            self._owner.receiving.piece(node, body[0], body[1], body[2], frame.buffers[0])
        elif frame.kind == Kind.FETCH:
            self._supply.fetch(node, *body)
        elif frame.kind == Kind.PROVE:
            self._supply.prove(node, *body)
        elif frame.kind == Kind.PLACED:
            self._supply.placed(node, body[1], body[2])
        elif frame.kind == Kind.STATUS:
            take_status(self._core, node.node_id, body[0])
            if node.take_available(body[0].get("available")):
                self._owner.node_available(node)
        elif frame.kind == Kind.LISTED:
            self.questions.answer(node, *body)
        elif frame.kind == Kind.GOODBYE:
            self._said_goodbye(node, body[0], body[1])
        else:
            raise FrameRefused(f"{Kind(frame.kind).name} is not for a client to receive")

    def _from_job(self, node: RemoteNode, frame: Frame) -> None:
        if frame.kind == Kind.OUTPUT:
            self._owner.output(frame.body[0], node, *frame.body[1:])
        else:
            self._owner.receiving.offered(node, *frame.body)

    def _said_goodbye(self, node: RemoteNode, reason: str, begun: list[int]) -> None:
        """Take out a node that ends; what it had not begun, or never got, is safe to run."""
        self._owner.when_safe(node.acknowledge)  # what it knows to be taken it keeps for nobody
        ran = frozenset(begun)
        for cluster_id, allocation in list(self._core.nodes[node.node_id].allocations.items()):
            jobs = [job for job in allocation.jobs if job not in ran]
            self._perform(
                self._core.jobs_returned(node.node_id, cluster_id, jobs, reason, monotonic()), node
            )
        self._lost(node, reason)

    def _settle(self, node: RemoteNode, jobs: list[int], computations: list[int]) -> None:
        """Compare with what the node holds; only now may it be sent anything."""
        if node.settled:
            raise FrameRefused("HELD a second time on one link")
        node.settled = True
        self._supply.settled(node)
        self._perform(self._core.node_settled(node.node_id, jobs, monotonic()), node)
        self._openings.settled(node, computations)
        if not node.opened:
            self._owner.node_found(node)
        else:
            self._owner.node_back(node)

    # -- carrying out

    def _turn_over(self) -> None:
        """Place what the frames of one read have made dirty."""
        if self._core.is_dirty:
            self._pass()

    def _plan_pass(self) -> None:
        """Place what is dirty once all events of this turn of the loop are in."""
        if not self._pass_pending and self._core.is_dirty:
            self._pass_pending = True
            get_hub().loop.run_callback(self._pass)

    def _pass(self) -> None:
        self._pass_pending = False
        self._perform(self._core.place(monotonic()))
        if self._core.hungry:
            self._owner.hungry(self._core.hungry)
        if self._watching is None and self._core.due is not None:
            self._watching = gevent.spawn(self._watch)

    def _watch(self) -> None:
        """Call jobs back from nodes that fall behind, for as long as some were sent ahead."""
        while (due := self._core.due) is not None:
            gevent.sleep(max(0.0, due - monotonic()))
            self._perform(self._core.place(now := monotonic()))
            self._perform(self._core.time_passed(now))
        self._watching = None

    # -- the end

    def part(self) -> None:
        """Wait until nodes know which clusters are closed, for seconds at most."""
        part(self.nodes, self._given.had_computations)

    def stop(self) -> None:
        """End every link and greenlet; nodes keep what they were given."""
        self._stopped = True
        for link in list(self._links):
            link.close()
        self._supply.stop()
        self._awake.stop()
        self._heartbeat.stop()
        if self._watching is not None:
            self._watching.kill(timeout=STOP_SECONDS)
        self.keepers.stop(STOP_SECONDS)

    def disown(self) -> None:
        """In a forked child: give up the links without a word to the nodes."""
        for link in self._links:
            link.forget()
