"""A program, and what its nodes may say to it, in any order.

A real session with its scheduler, its core and a cluster, over real links; only the hub's thread
and the search for nodes are played. The fuzzer is all nodes, and the user who submits and steers.
"""

import atexit
import contextlib
import shutil
import tempfile
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any
from unittest import mock

import gevent
from fuzz import messages
from fuzz.choices import Choices
from fuzz.loop import MEMORY, Failures, Wire, alone, turn
from gevent import socket

from dispy.client import cluster as clusters
from dispy.client import opening
from dispy.client import session as sessions
from dispy.client.cluster import JobCluster
from dispy.client.isolation import ClusterIsolation
from dispy.client.opening import Opening
from dispy.client.search import Search, Wanted
from dispy.model.statuses import FINAL, Status
from dispy.net.link import Link
from dispy.protocol.messages import Kind
from dispy.scheduler.keeping import Attempt
from dispy.scheduler.nodes import RemoteNode
from dispy.shipping.contents import Content

STEPS = 40  # that one input may take
FROM_NODES = [
    Kind.READY, Kind.RESULTS, Kind.RETURNED, Kind.HELD, Kind.SHARE, Kind.PROVISIONAL, Kind.STATUS,
    Kind.GOODBYE, Kind.CLOSED, Kind.PLACED, Kind.OFFER, Kind.OUTPUT, Kind.LISTED, Kind.FETCH,
    Kind.PIECE, Kind.PULSE, Kind.FULL, Kind.PROVE,
]  # fmt: skip
TEXTS = (str, bytes, type(None))  # that output of a job may be


class PlayedHub:
    """Stands in for the hub's thread: what is posted runs when the input's next step is over."""

    def __init__(self, look_again: Callable[[], None]) -> None:
        self._look_again = look_again
        self._posted: deque[Callable[[], Any]] = deque()

    def post(self, call: Callable[[], Any]) -> None:
        self._posted.append(call)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.run()
        return function(*arguments)

    def run(self) -> None:
        while self._posted:
            self._posted.popleft()()

    def end(self) -> None:
        self._posted.clear()


class PlayedCallbacks:
    """Stands in for a thread that calls in order."""

    is_current = False

    def __init__(self, name: str = "") -> None:
        pass

    def start(self) -> None:
        pass

    def put(self, function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)


def look_for_nothing(session: Any, allocations: Any, port: Any, *more: Any) -> Search:
    return Search(Wanted(allocations, port, *more))


def compute(number: int) -> int:
    return number


def taken(*_: Any) -> None:
    """A callback."""


@cache
def _opening() -> Opening:
    """Pack the function once."""
    names = (
        "isolation", "setup_timeout", "stream", "max_result_size", "timeout", "cpu_time", "memory",
        "grace", "env", "nice", "jobs_per_worker", "worker_growth",
    )  # fmt: skip
    chosen = {**dict.fromkeys(names), "cpus": 1}
    return _make_opening(compute, [], taken, taken, None, chosen)


_make_opening = opening.make_opening


def _opening_again(*_: Any) -> Opening:
    return _opening()._replace(isolation=ClusterIsolation("compute", None, True))


NO_DISCOVERY: Any = mock.Mock()
PATCHES = (
    mock.patch.object(sessions, "Hub", PlayedHub),
    mock.patch.object(sessions, "Callbacks", PlayedCallbacks),
    mock.patch.object(clusters, "look_for_nodes", look_for_nothing),
    mock.patch.object(opening, "make_opening", _opening_again),
)


class Play:
    """One input: a session with one cluster, and its nodes."""

    def __init__(self, choices: Choices, directory: str) -> None:
        self.choices = choices
        self.session = sessions.Session()
        self.session._discovery = NO_DISCOVERY
        with mock.patch.object(clusters, "get_session", return_value=self.session):
            callback = taken if choices.below(2) else None
            self.cluster = JobCluster(
                compute, ["*"], reentrant=bool(choices.below(2)), job_status=callback,
                cluster_status=callback, insecure=True, local_node=False,
                stream=bool(choices.below(2)), max_file_size=10**6, recover_file=False,
            )  # fmt: skip
        self.cluster.directory = directory
        if self.session.terminal is not None:
            self.session.terminal = self.cluster._terminal = mock.Mock()
        self.jobs: list[Any] = []
        self.wires: list[Wire] = []
        self.known: dict[str, RemoteNode] = {}  # that were served, by the identity they were given
        self.greenlets: list[Any] = []
        self.session.contents.hold_for(
            self, [Content.of_memory(content) for content in messages.CONTENTS.values()]
        )

    @property
    def scheduler(self) -> Any:
        return self.session.scheduler

    def connect(self, identity: str) -> None:
        """Serve a node as the keeper of its address does."""
        ours, theirs = socket.socketpair()
        wire = Wire(ours)
        self.wires.append(wire)
        wire.send(messages.hello(self.choices, "node", identity))
        shares_memory = bool(self.choices.below(2))
        self.greenlets.append(gevent.spawn(self._serve, theirs, identity, shares_memory))

    def _serve(self, sock: Any, identity: str, shares_memory: bool) -> None:
        link = Link(sock, shares_memory=shares_memory)
        before = self.known.get(identity)
        node, _ = self.scheduler._serve(link, Attempt("127.0.0.1", 51348, before))
        if node is not None:
            self.known[identity] = node

    def step(self) -> None:
        choices, wire = self.choices, self.choices.of(self.wires)
        match choices.below(16):
            case 0 | 1 | 2 | 3 | 4:
                wire.send(messages.frame(choices, FROM_NODES))
            case 5 | 6 | 7:
                self._answer(wire)
            case 8 | 9:
                with contextlib.suppress(AttributeError):
                    self.jobs.append(self.cluster.submit(choices.byte()))
            case 10 | 11:
                self._steer()
            case 12:
                if len(self.wires) < 6:
                    self.connect(choices.of(messages.IDENTITIES))
            case 13:
                wire.close()
            case 14:
                self._pass_time()
            case _:
                wire.send(choices.raw(choices.byte()))

    def _answer(self, wire: Wire) -> None:
        """Do what a good node would do."""
        for frame in wire.frames():
            if frame.kind == Kind.OPEN:
                wire.tell(Kind.READY, [frame.body[0], None, {}])
            elif frame.kind == Kind.HELLO:
                wire.tell(Kind.HELD, [[], []])
                wire.tell(Kind.SHARE, [2, 1])
            elif frame.kind == Kind.CLOSE:
                wire.tell(Kind.CLOSED, [frame.body[0], None, {}])
            elif frame.kind == Kind.LIST:
                wire.tell(Kind.LISTED, [frame.body[1], [1]])
            elif frame.kind == Kind.RUN:
                self._do_jobs(wire, frame.body)
            elif frame.kind == Kind.FETCH:
                key, offset, length = frame.body
                body, piece = [key, offset, None], bytes(min(length, 70_000))
                wire.tell(Kind.PIECE, body, [piece])

    def _do_jobs(self, wire: Wire, body: list[Any]) -> None:
        choices, jobs = self.choices, body[1]
        if choices.below(4) == 3:
            return
        ends = [choices.real() for _ in jobs]
        extras = []
        if choices.below(2):
            extras = [messages.extra(choices, Kind.RESULTS, len(jobs))]
        results: list[Any] = [b"result"] * len(jobs)
        body = [choices.whole(), body[0], jobs, [0.0] * len(jobs), ends, results, extras]
        wire.tell(Kind.RESULTS, body)

    def _steer(self) -> None:
        cluster, choices = self.cluster, self.choices
        view = choices.of([*cluster._nodes.values(), None])
        if view is None:
            if self.jobs:
                cluster.cancel(choices.of(self.jobs))
            return
        match choices.below(7):
            case 0:
                cluster.close_node(view, bool(choices.below(2)))
            case 1:
                cluster.resetup_node(view, bool(choices.below(2)))
            case 2:
                cluster.deallocate_node(view)
            case 3:
                cluster.set_node_cpus(view, choices.below(4) - 1)
            case 4:
                with contextlib.suppress(AttributeError):
                    self.jobs.append(cluster.submit_node(view, 1))
            case 5:
                cluster.allocate_node(view.ip_addr)
            case _:
                node_id = choices.of([*self.scheduler.nodes, ""])
                files = [["a", messages.DIGESTS[0], 0, 0o644, 0]]
                number = cluster._number
                self.greenlets.append(gevent.spawn(self.scheduler.place, number, node_id, files))

    def _pass_time(self) -> None:
        """Take nodes for lost that are away, and look at those that fall behind."""
        scheduler, now = self.scheduler, gevent.get_hub().loop.now()
        match self.choices.below(3):
            case 0:
                scheduler._perform(scheduler._core.time_passed(now + self.choices.below(200)))
            case 1:
                for node in list(scheduler.nodes.values()):
                    if node.link is None:
                        scheduler._lost(node, "it is silent")
            case _:
                self.session._look_again()
                for job in self.jobs:
                    if job is not None:
                        scheduler.explain(self.cluster._number, job._number)

    def check(self) -> None:
        """The core contradicts itself nowhere, and what a user sees is what may be there."""
        core = self.scheduler._core
        for _ in range(50):
            if not core.is_dirty:
                break
            turn(1)
        assert not core.is_dirty, "nobody places what waits"
        core.check_invariants()
        for job in self.jobs:
            if job is None:
                continue
            assert type(job.status) is Status
            assert (job.status in FINAL) == (job._number not in self.session.jobs), job.status
            assert isinstance(job.stdout, TEXTS)
            assert isinstance(job.stderr, TEXTS)
            assert isinstance(job.exception, (str, type(None)))
            assert isinstance(job._error, (bytes, type(None)))
            assert isinstance(job.start_time, (float, int, type(None)))
        assert self.cluster._pending == sum(
            job is not None and job.status not in FINAL for job in self.jobs
        ), "jobs are miscounted"

    def play(self, failures: Failures) -> None:
        self.connect(messages.IDENTITIES[0])
        turn()
        for _ in range(STEPS):
            if not self.choices.left:
                break
            self.choices.next_step()
            self.step()
            self.session.hub.run()
            turn()
            self.session.hub.run()
            turn(2)
            failures.look()
            self.check()

    def end(self) -> None:
        for wire in self.wires:
            wire.close()
        turn(6)
        self.scheduler.stop()
        gevent.killall(self.greenlets)
        atexit.unregister(self.session._at_exit)


def play_program(choices: Choices) -> None:
    """Nothing but refusals, whatever is said; each job is pending or final, and once."""
    directory = tempfile.mkdtemp(prefix="dispy-fuzz-", dir=MEMORY)
    try:
        with alone(*PATCHES), Failures() as failures:
            play = Play(choices, directory)
            try:
                play.play(failures)
            finally:
                play.end()
            failures.look()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fuzz_program(data: bytes) -> None:
    """As play_program."""
    play_program(Choices(data))
