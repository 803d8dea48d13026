"""A shared scheduler, and what its clients and nodes may say to it, in any order.

Real links over socket pairs, a real service with its scheduler and core; only its door is missing.
"""

from typing import Any

import gevent
from fuzz import messages
from fuzz.choices import Choices
from fuzz.loop import Failures, Wire, alone, turn
from gevent import socket

from dispy.net.link import Link
from dispy.protocol.frames import FrameRefused
from dispy.protocol.messages import Kind
from dispy.scheduler.keeping import Attempt
from dispy.scheduler.serving import SchedulerService

STEPS = 40  # that one input may take
IN_SAID = [
    Kind.CLUSTER, Kind.SUBMIT, Kind.SUBMIT, Kind.ALLOT, Kind.WITHDRAW, Kind.DEPART, Kind.ASK,
    Kind.CANCEL, Kind.CLOSE, Kind.STARTED, Kind.RULES,
    Kind.LABEL, Kind.COLLECTED, Kind.KEEP,
]  # fmt: skip
FROM_CLIENTS = [Kind.HEARD, Kind.PULSE, Kind.SAID, Kind.OPEN, Kind.FETCH]
REQUESTS = ["status", "nodes", "explain", "cancel", "drain", "drain", "none"]
FROM_NODES = [Kind.READY, Kind.RESULTS, Kind.RETURNED, Kind.HELD, Kind.SHARE, Kind.GOODBYE]


class Play:
    """One input: a service, its clients and a node."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.service = SchedulerService("s", "127.0.0.1", 0)
        self.clients: list[tuple[Wire, list[int]]] = []  # and the number of what they say next
        self.operators: list[Wire] = []
        self.greenlets: list[Any] = []
        ours, theirs = socket.socketpair()
        self.node = Wire(ours)
        self.node.send(messages.hello(choices, "node", messages.IDENTITIES[0]))
        attempt = Attempt("127.0.0.1", 51348)
        link = Link(theirs)
        self.greenlets.append(gevent.spawn(self.service.scheduler._serve, link, attempt))

    def connect(self, identity: str) -> None:
        """Serve a client as the door does."""
        self.clients.append((self._come("client", identity), [1]))

    def _come(self, role: str, identity: str) -> Wire:
        ours, theirs = socket.socketpair()
        wire = Wire(ours)
        wire.send(messages.hello(self.choices, role, identity))
        self.greenlets.append(gevent.spawn(self._serve, theirs))
        return wire

    def _ask(self) -> None:
        """Ask something as an operator, who may come anew for it, and may ask too early."""
        if not self.operators or self.choices.below(3) == 0:
            self.operators.append(self._come("operator", messages.IDENTITIES[1]))
        of = messages.table(self.choices, messages.TABLES[Kind.REQUEST])
        self.operators[-1].tell(Kind.REQUEST, [1, self.choices.of(REQUESTS), of])

    def _serve(self, sock: Any) -> None:
        link = Link(sock, reads_always=False)
        try:
            hello = link.hear_hello("client", "operator")
        except (FrameRefused, OSError):
            link.close()
        else:
            self.service.serve(link, hello)
            link.close()

    def step(self) -> None:
        choices = self.choices
        wire, number = choices.of(self.clients)
        match choices.below(16):
            case 14 | 15:
                self._ask()
            case 0:
                number[0] = choices.below(6)
            case 1:
                wire.send(messages.frame(choices, FROM_CLIENTS))
            case 2:
                if len(self.clients) < 5:
                    self.connect(choices.of(messages.IDENTITIES))
            case 3:
                wire.close()
            case 4 | 5:
                self._answer()
            case 6:
                self.node.send(messages.frame(choices, FROM_NODES))
            case 7:
                self._open_well(wire, number)
            case _:
                wire.send(messages.said(choices, number[0], IN_SAID))
                number[0] += 1

    def _open_well(self, wire: Wire, number: list[int]) -> None:
        """Open a cluster on the node and submit to it."""
        cluster = self.choices.below(3)
        nodes = [*self.service.scheduler.nodes, "n"]
        for kind, body, buffers in (
            (Kind.CLUSTER, [cluster, "c", {"settings": {}}], [b"code"]),
            (Kind.ALLOT, [cluster, nodes[0], 2, {}], []),
            (Kind.SUBMIT, [cluster, None, [number[0] + 7], [b"call"], []], []),
        ):
            wire.tell(Kind.SAID, [number[0], int(kind), body], buffers)
            number[0] += 1

    def _answer(self) -> None:
        """Do what a good node would do."""
        for frame in self.node.frames():
            if frame.kind == Kind.OPEN:
                self.node.tell(Kind.READY, [frame.body[0], None, {}])
            elif frame.kind == Kind.HELLO:
                self.node.tell(Kind.HELD, [[], []])
                self.node.tell(Kind.SHARE, [2, 1])
            elif frame.kind == Kind.RUN:
                cluster, jobs = frame.body[0], frame.body[1]
                times = [0.0] * len(jobs)
                body = [self.choices.whole(), cluster, jobs, times, times, [b"r"] * len(jobs), []]
                self.node.tell(Kind.RESULTS, body)

    def check(self) -> None:
        """What is kept of jobs is of jobs that clients have, and the core contradicts nothing."""
        for wire in [*(wire for wire, _ in self.clients), *self.operators]:
            wire.frames()  # each says what may be said
        clients = self.service.clients
        kept = {job for each in clients._clients.values() for own in each.clusters.values()
                for job in own}  # fmt: skip
        assert clients.calls._held.keys() == kept
        assert set(clients.options) <= kept
        self.service.scheduler._core.check_invariants()

    def play(self, failures: Failures) -> None:
        self.connect(messages.IDENTITIES[0])
        turn()
        for _ in range(STEPS):
            if not self.choices.left:
                break
            self.choices.next_step()
            self.step()
            turn()
            failures.look()
            self.check()

    def end(self) -> None:
        for wire in [*(wire for wire, _ in self.clients), *self.operators]:
            wire.close()
        self.node.close()
        turn(6)
        self.service.stop()
        gevent.killall(self.greenlets)


def play_sharing(choices: Choices) -> None:
    """Nothing but refusals, whatever is said; nothing is kept of jobs that are no more."""
    with alone(), Failures() as failures:
        play = Play(choices)
        try:
            play.play(failures)
        finally:
            play.end()
        failures.look()


def fuzz_sharing(data: bytes) -> None:
    """As play_sharing."""
    play_sharing(Choices(data))
