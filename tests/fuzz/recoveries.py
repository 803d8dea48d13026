"""A recovery, and what the nodes of the program that died may say to it, in any order.

Real links; the dialling, the hub's thread and the disk's are played.
"""

import atexit
import shutil
import tempfile
from typing import Any
from unittest import mock

import gevent
from fuzz import messages
from fuzz.choices import Choices
from fuzz.loop import MEMORY, Failures, Wire, alone, turn
from fuzz.programs import FROM_NODES, PlayedCallbacks, PlayedHub
from gevent import socket

from dispy.client import recovering
from dispy.client import session as sessions
from dispy.client.recovery_form import Content, KnownCluster, Program
from dispy.model.credentials import NOTHING
from dispy.model.statuses import FINAL, Status
from dispy.net.link import Link
from dispy.protocol.messages import Kind
from dispy.scheduler.recovered import RecoveredNode

STEPS = 40  # that one input may take
PATCHES = (
    mock.patch.object(sessions, "Hub", PlayedHub),
    mock.patch.object(sessions, "Callbacks", PlayedCallbacks),
)


class Play:
    """One input: a recovery from two nodes."""

    def __init__(self, choices: Choices, directory: str) -> None:
        self.choices = choices
        self.session = sessions.Session()
        clusters = {number: KnownCluster(number, "work", directory, 10**6) for number in range(3)}
        content = Content(Program("a" * 32, "dead", 1.0), clusters)
        with mock.patch.object(recovering, "get_session", return_value=self.session):
            self.taker = recovering._Recovering(content, NOTHING)
        self.recovery: Any = self.taker._start()
        self.recovery.nodes += [
            RecoveredNode(identity, "", "127.0.0.1", 1, 0, self.taker, self.recovery._event.set)
            for identity in messages.IDENTITIES[:2]
        ]
        self.wires: list[Wire] = []
        self.greenlets: list[Any] = []
        self.ends: dict[int, Any] = {}  # how each job has ended, by its number

    def connect(self, node: Any, identity: str) -> None:
        """Serve a node as whoever has dialled it does."""
        if node.node is not None and node.node.link is not None:
            node.node.link.close()
            turn()
        ours, theirs = socket.socketpair()
        self.wires.append(Wire(ours))
        self.wires[-1].send(messages.hello(self.choices, "node", identity))
        self.greenlets.append(gevent.spawn(self._serve, node, theirs))

    def _serve(self, node: Any, sock: Any) -> None:
        link = Link(sock, reads_always=False)
        self.recovery._speak(node, link)
        if node.node is None or node.node.link is link:
            node.link_ended()

    def step(self) -> None:
        choices = self.choices
        wire, node = choices.of(self.wires), choices.of(self.recovery.nodes)
        match choices.below(12):
            case 0 | 1 | 2 | 3 | 4:
                wire.send(messages.frame(choices, FROM_NODES))
            case 5 | 6:
                self._answer(wire)
            case 7:
                if len(self.wires) < 6:
                    self.connect(node, choices.of(messages.IDENTITIES))
            case 8:
                wire.close()
            case 9:
                self.recovery._look_after_links()
                node.cancel()
            case 10:
                if choices.below(4) == 3:
                    node.frozen = True
                    node.part()
            case _:
                wire.send(choices.raw(choices.byte()))

    def _answer(self, wire: Wire) -> None:
        """Do what a good node would do."""
        for frame in wire.frames():
            if frame.kind == Kind.HELLO:
                times = [0.0, 0.0]
                body = [1, 1, [1, 2], times, times, [b"result"] * 2, []]
                wire.tell(Kind.RESULTS, body)
                wire.tell(Kind.HELD, [[3, 4], [1]])
            elif frame.kind == Kind.CLOSE:
                wire.tell(Kind.CLOSED, [frame.body[0], None, {}])
            elif frame.kind == Kind.LIST:
                wire.tell(Kind.LISTED, [frame.body[1], []])
            elif frame.kind == Kind.ACKNOWLEDGE:
                assert any(node.frozen for node in self.recovery.nodes), "nothing is handed out yet"

    def check(self) -> None:
        """Each job ends once, and is what a user may see."""
        for number, job in self.taker._final.items():
            assert job.status in FINAL
            assert self.ends.setdefault(number, job) is job, "a job has ended twice"
        for number, job in self.taker._interim.items():
            assert job.status == Status.ProvisionalResult
            assert number not in self.taker._final
        for job in [*self.taker._final.values(), *self.taker._interim.values()]:
            assert isinstance(job._exception, (str, type(None)))
            assert isinstance(job._error, (bytes, type(None)))

    def play(self, failures: Failures) -> None:
        for node in self.recovery.nodes:
            self.connect(node, node.node_id)
        turn()
        for _ in range(STEPS):
            if not self.choices.left:
                break
            self.choices.next_step()
            self.step()
            turn()
            self.session.hub.run()
            turn(2)
            failures.look()
            self.check()
        for node in self.recovery.nodes:
            assert isinstance(node.is_done, bool)
            assert all(line.isprintable() for line in recovering._missing(node))

    def end(self) -> None:
        for wire in self.wires:
            wire.close()
        turn(6)
        self.recovery.stop()
        gevent.killall(self.greenlets)
        atexit.unregister(self.session._at_exit)


def play_recovery(choices: Choices) -> None:
    """Nothing but refusals, whatever is said; each job ends once."""
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
        shutil.rmtree(directory)


def fuzz_recovery(data: bytes) -> None:
    """See `play_recovery`."""
    play_recovery(Choices(data))
