"""A shared scheduler, and what its clients and nodes may say to it, in any order.

Real links over socket pairs, a real service with its scheduler and core; only its door is missing.
"""

from collections import Counter, defaultdict
from typing import Any
from unittest import mock

import gevent
from fuzz import messages
from fuzz.choices import Choices
from fuzz.loop import MEMORY, Failures, Wire, alone, turn
from gevent import socket

from dispy.net.link import Link
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.messages import Kind
from dispy.scheduler.keeping import Attempt
from dispy.scheduler.serving import Keeping, SchedulerService

STEPS = 40  # that one input may take
IN_SAID = [
    Kind.CLUSTER, Kind.SUBMIT, Kind.SUBMIT, Kind.ALLOT, Kind.WITHDRAW, Kind.DEPART, Kind.ASK,
    Kind.CANCEL, Kind.CLOSE, Kind.STARTED, Kind.RULES,
    Kind.LABEL, Kind.COLLECTED, Kind.KEEP,
]  # fmt: skip
FROM_CLIENTS = [
    Kind.HEARD, Kind.PULSE, Kind.SAID, Kind.OPEN, Kind.FETCH, Kind.PIECE, Kind.PROVEN, Kind.PLACE,
    Kind.TOOK,
]  # fmt: skip
FROM_NODES = [
    Kind.READY, Kind.RESULTS, Kind.RETURNED, Kind.HELD, Kind.SHARE, Kind.GOODBYE, Kind.OFFER,
    Kind.PIECE, Kind.FETCH, Kind.PROVE, Kind.PLACED,
]  # fmt: skip
REQUESTS = ["status", "nodes", "explain", "cancel", "drain", "drain", "none"]


class Play:
    """One input: a service, its clients and a node."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.service = SchedulerService("s", "127.0.0.1", 0, keeping=Keeping(store_size=6000))
        self.told: dict[Wire, list[Frame]] = defaultdict(list)  # what clients are yet to answer
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
        match choices.below(19):
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
                for _ in range(3):  # it is set up, and its jobs go there
                    turn()
                    self._answer()
            case 8 | 9:
                self._bring(wire)
            case 10:
                self._offer(wire)
            case _:
                wire.send(messages.said(choices, number[0], IN_SAID))
                number[0] += 1

    def _open_well(self, wire: Wire, number: list[int]) -> None:
        """Open a cluster on the node and submit to it."""
        choices = self.choices
        cluster = choices.below(3)
        nodes = [*self.service.scheduler.nodes, "n"]
        settings: dict[str, Any] = {}
        for node in self.service.scheduler.nodes.values():
            settings = {"implementation": node.hello.implementation, "python": node.hello.python}
        if choices.below(2):
            settings["files"] = messages.manifest(choices)
        extras = [[0, {"needs": messages.needs(choices)}]] if choices.below(2) else []
        for kind, body, buffers in (
            (Kind.CLUSTER, [cluster, "c", {"settings": settings}], [b"code"]),
            (Kind.ALLOT, [cluster, nodes[0], 2, {}], []),
            (Kind.SUBMIT, [cluster, None, [number[0] + 7], [b"call"], extras], []),
        ):
            wire.tell(Kind.SAID, [number[0], int(kind), body], buffers)
            number[0] += 1

    def _bring(self, wire: Wire) -> None:
        """Answer as a good client what it is asked for, and order something."""
        node_id = next(iter(self.service.scheduler.nodes), "n")
        files = {"files": messages.manifest(self.choices), "node": node_id}
        wire.tell(Kind.PLACE, [self.choices.below(3), self.choices.below(3), files])
        frames, self.told[wire] = [*self.told[wire], *wire.frames()], []
        for frame in frames:
            if frame.kind == Kind.FETCH:
                digest, offset, length = frame.body
                content = messages.CONTENTS.get(digest)
                why = "it is not there" if content is None else None
                piece = (content or b"")[offset : offset + length]
                wire.tell(Kind.PIECE, [digest, offset, why], [piece])
            elif frame.kind == Kind.OFFER:
                wire.tell(Kind.FETCH, [frame.body[2], 0, 1 + self.choices.below(100)])
                wire.tell(Kind.FETCH, [frame.body[2], 9, 9])

    def _offer(self, wire: Wire) -> None:
        """Have the node offer a file of a job that it has, which the client takes, or not."""
        turn()
        for node in self.service.scheduler._core.nodes.values():
            for allocation in node.allocations.values():
                for job in list(allocation.jobs)[:1]:
                    table = {"name": b"f", "size": 5, "mode": 0o600, "modified": 0}
                    key = b"k" * (1 + self.choices.below(3))
                    cluster = allocation.cluster.cluster_id
                    self.node.tell(Kind.OFFER, [cluster, job, key, table])
        turn()
        self._bring(wire)
        turn()
        if self.choices.below(2):
            self._answer()
        for known in list(self.service.clients.files.relay._offers):
            if self.choices.below(2):
                wire.tell(Kind.TOOK, [known, None])

    def _answer(self) -> None:
        """Do what a good node would do."""
        for frame in self.node.frames():
            if frame.kind == Kind.OPEN:
                self.node.tell(Kind.READY, [frame.body[0], None, {}])
            elif frame.kind == Kind.HELLO:
                self.node.tell(Kind.HELD, [[], []])
                self.node.tell(Kind.SHARE, [2, 1])
            elif frame.kind == Kind.FETCH:
                data = b"x" * self.choices.below(frame.body[2] + 2)
                self.node.tell(Kind.PIECE, [*frame.body[:2], None], [data[: 1 << 16]])
            elif frame.kind == Kind.PLACE:
                self.node.tell(Kind.PLACED, [*frame.body[:2], None])
            elif frame.kind == Kind.RUN and self.choices.below(2):
                cluster, jobs = frame.body[0], frame.body[1]
                times = [0.0] * len(jobs)
                body = [self.choices.whole(), cluster, jobs, times, times, [b"r"] * len(jobs), []]
                self.node.tell(Kind.RESULTS, body)

    def check(self) -> None:
        """What is kept of jobs is of jobs that clients have, and the core contradicts nothing."""
        for wire, _ in self.clients:
            self.told[wire] += wire.frames()  # each says what may be said
        for wire in self.operators:
            wire.frames()
        clients = self.service.clients
        kept = {job for each in clients._clients.values() for own in each.clusters.values()
                for job in own}  # fmt: skip
        assert clients.calls._held.keys() == kept
        assert set(clients.options) <= kept
        self._check_files(kept)
        self.service.scheduler._core.check_invariants()

    def _check_files(self, kept: set[int]) -> None:
        """Contents and files of jobs are there for jobs that are; counts are what they count."""
        files, clients = self.service.clients.files, self.service.clients
        for known, offer in files.relay._offers.items():
            assert offer.job in kept, known
        for way in files.relay._ways.values():
            assert way._ahead >= 0
        needed: dict[int, Counter[bytes]] = defaultdict(Counter)
        for user, use in files.contents._uses.items():
            assert not isinstance(user, int) or user in kept
            needed[use.slot].update(use.digests)
        for slot, own in files.contents._clients.items():
            assert slot in clients._slots
            assert own.needed == needed[slot]
            assert own.marked <= set(own.needed)
        assert sum(map(len, needed.values())) == sum(
            len(own.needed) for own in files.contents._clients.values()
        )
        waiting = {job for cluster in files.awaiting._clusters.values()
                   for job in (*cluster.ready, *cluster.lacking)}  # fmt: skip
        assert waiting <= kept
        assert set(files.awaiting._clusters) == {
            number for each in clients._clients.values() for number in each.clusters
        }

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
        users = self.service.clients.files.contents._uses
        assert not [user for user in users if isinstance(user, int)], "no job is left"


def play_sharing(choices: Choices) -> None:
    """Nothing but refusals, whatever is said; nothing is kept of jobs that are no more."""
    nobody_waits = mock.patch("dispy.scheduler.parting.PART_SECONDS", 0.0)
    in_memory = mock.patch("tempfile.tempdir", MEMORY)
    with alone(nobody_waits, in_memory), Failures() as failures:
        play = Play(choices)
        try:
            play.play(failures)
        finally:
            play.end()
        failures.look()


def fuzz_sharing(data: bytes) -> None:
    """As play_sharing."""
    play_sharing(Choices(data))
