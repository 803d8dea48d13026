"""A node, and what clients, nurseries and workers may say to it, in any order.

Real links over socket pairs, a real `Node` with its core, files and store; only the processes of
a computation are played: their ends of the sockets are the fuzzer's, too.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import gevent
from fuzz import messages
from fuzz.choices import Choices
from fuzz.loop import MEMORY, Failures, Wire, alone, turn
from gevent import socket

from dispy.net import possession
from dispy.net.link import Link
from dispy.node import nurseries
from dispy.node.confinement import Confinement
from dispy.node.nursery import NurseryProcess
from dispy.node.service import Node
from dispy.protocol.frames import FrameRefused
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.shipping.possession import new_proof

STEPS = 40  # that one input may take
FROM_CLIENTS = [
    Kind.OPEN, Kind.RUN, Kind.CANCEL, Kind.DROP, Kind.RECALL, Kind.CLOSE, Kind.ACKNOWLEDGE,
    Kind.RELEASE, Kind.LIMIT, Kind.PLACE, Kind.TOOK, Kind.LIST, Kind.FETCH, Kind.PIECE, Kind.PULSE,
    Kind.PROVEN,
]  # fmt: skip
FROM_NURSERIES = [Kind.LOADED, Kind.BEGUN, Kind.CLEANED, Kind.FORKED, Kind.DIED, Kind.NOT_FORKED]
CLEANED = messages.TABLES[Kind.CLEANED]
FROM_WORKERS = [Kind.DONE, Kind.GIVEN_BACK, Kind.INTERIM, Kind.FILE, Kind.RETIRE]


class PlayedNursery(NurseryProcess):
    """One without a process: the fuzzer has the other ends of its sockets."""

    made: list["PlayedNursery"] = []

    def _start(self, theirs: Any) -> None:
        self.wire = Wire(theirs)
        self.workers: list[tuple[Wire, int]] = []  # and a copy of its journal
        self.unborn: list[int] = []  # workers that the node does not know to run
        PlayedNursery.made.append(self)

    def fork(self, worker_id: int, files: Sequence[int]) -> Link:
        ours, theirs = socket.socketpair()
        self.unborn.append(worker_id)
        self.workers.append((Wire(theirs), os.dup(files[0])))
        return Link(ours, shares_memory=True)

    def interrupt(self) -> None:
        self.wire.close()

    kill = interrupt

    def end(self) -> None:
        super().end()
        self.close()

    def close(self) -> None:
        self.wire.close()
        for wire, journal in self.workers:
            wire.close()
            os.close(journal)
        self.workers.clear()


class Play:
    """One input: a node, its clients and its processes."""

    def __init__(self, choices: Choices, directory: Path) -> None:
        self.choices, PlayedNursery.made = choices, []
        self.node = Node("n", 2, directory, max_file_size=100_000, store_size=20_000)
        self.clients: list[Wire] = []
        self._nobodys = PlayedNursery(Confinement())  # so that there is always one to mean
        self._jobs = 1  # the next one's number
        self.greenlets: list[Any] = []

    def connect(self, identity: str) -> None:
        """Serve a client as a listener does."""
        ours, theirs = socket.socketpair()
        wire = Wire(ours)
        self.clients.append(wire)
        wire.send(messages.hello(self.choices, "client", identity))
        self.greenlets.append(gevent.spawn(self._serve, theirs))

    def _serve(self, sock: Any) -> None:
        link = Link(sock, reads_always=False)
        try:
            ours = Hello("node", self.node.identity, "n", details={"cpus": 2})
            hello = link.exchange_hello(ours, "client")
        except (FrameRefused, OSError):
            link.close()
        else:
            self.node.serve(link, hello)

    def step(self) -> None:
        choices = self.choices
        client = choices.of(self.clients)
        nursery = choices.of([*PlayedNursery.made, self._nobodys])
        match choices.below(20):
            case 0:
                self._open_well(client)
            case 1 | 2:
                self._run_well(client)
            case 3:
                self._load_well(nursery)
            case 4 | 5:
                self._say_as_worker(nursery)
            case 6:
                self._answer(client)
            case 7 | 8 | 9 | 10 | 11 | 12:
                client.send(messages.frame(choices, FROM_CLIENTS))
            case 13 | 14:
                nursery.wire.send(messages.frame(choices, FROM_NURSERIES))
            case 15:
                if len(self.clients) < 5:
                    self.connect(choices.of(messages.IDENTITIES))
            case 16:
                self._end_one(client, nursery)
            case 17 | 18:
                self._pass_time()
            case _:
                client.send(choices.raw(choices.byte()))

    # -- what good peers do

    def _open_well(self, client: Wire) -> None:
        """Open a computation, perhaps with wishes."""
        settings = messages.whole_table(self.choices, Kind.OPEN)
        body = [self.choices.below(3), "compute", settings]
        client.tell(Kind.OPEN, body, [b"code"])

    def _run_well(self, client: Wire) -> None:
        """Submit jobs that have not been submitted before."""
        choices = self.choices
        jobs = [self._jobs + number for number in range(1 + choices.below(6))]
        self._jobs += len(jobs)
        extras = [messages.extra(choices, Kind.RUN, len(jobs)) for _ in range(choices.below(3))]
        client.tell(Kind.RUN, [choices.below(3), jobs, [b"call"] * len(jobs), extras])

    def _load_well(self, nursery: PlayedNursery) -> None:
        """Load what was sent, clean up what was asked for, and fork workers."""
        for frame in nursery.wire.frames():
            if frame.kind == Kind.LOAD:
                nursery.wire.tell(Kind.BEGUN, [])
                nursery.wire.tell(Kind.LOADED, [None, {}])
            elif frame.kind == Kind.CLEAN:
                nursery.wire.tell(Kind.CLEANED, [None, messages.table(self.choices, CLEANED)])
        for worker_id in nursery.unborn:
            nursery.wire.tell(Kind.FORKED, [worker_id, 2**22 + worker_id])
        nursery.unborn.clear()

    def _say_as_worker(self, nursery: PlayedNursery) -> None:
        if nursery.workers:
            wire, journal = self.choices.of(nursery.workers)
            match self.choices.below(8):
                case 7:
                    os.pwrite(journal, self.choices.raw(200), self.choices.below(64))
                case 0 | 1 | 2 | 3:
                    self._do_jobs(wire)
                case _:
                    wire.send(messages.frame(self.choices, FROM_WORKERS))

    def _do_jobs(self, wire: Wire) -> None:
        """Answer for the jobs that a worker was given last."""
        for frame in wire.frames():
            if frame.kind == Kind.JOBS:
                jobs = frame.body[0]
                ends = [self.choices.real() for _ in jobs]
                extras = [messages.extra(self.choices, Kind.DONE, len(jobs))]
                extras = extras if self.choices.seldom() else []
                done = [jobs, [0.0] * len(jobs), ends, [b"result"] * len(jobs), extras]
                wire.tell(Kind.DONE, done)

    def _answer(self, client: Wire) -> None:
        """Send the pieces that the node asks a client for, and prove what it has."""
        for frame in client.frames():
            if frame.kind == Kind.FETCH:
                key, offset, length = frame.body
                content = messages.CONTENTS.get(key, b"z" * 5000)[offset : offset + length]
                body = [key, offset, "why" if self.choices.seldom() else None]
                client.tell(Kind.PIECE, body, [content])
            elif frame.kind == Kind.PROVE:
                digest, nonce = frame.body
                proof = new_proof(nonce)
                proof.update(messages.CONTENTS.get(digest, b""))
                proven = self.choices.of([proof.digest(), b"", b"p" * 32, b"p" * 70_000])
                client.tell(Kind.PROVEN, [digest, nonce, proven])

    def _end_one(self, client: Wire, nursery: PlayedNursery) -> None:
        match self.choices.below(4):
            case 0:
                client.close()
            case 1 | 2 if nursery.workers:
                wire, _ = self.choices.of(nursery.workers)
                wire.close()
            case 3:
                nursery.wire.close()

    def _pass_time(self) -> None:
        """Do once what the node's watch does from time to time."""
        running = self.node._running
        now = gevent.get_hub().loop.now() + self.choices.below(200)
        running.perform(self.node._core.time_passed(now))
        for worker in list(running.workers.values()):
            worker.supervise(now, 0.1, bool(self.choices.below(2)))

    def play(self, failures: Failures) -> None:
        self.connect(messages.IDENTITIES[0])
        turn()
        PlayedNursery.made.remove(self._nobodys)
        for _ in range(STEPS):
            if not self.choices.left:
                break
            self.choices.next_step()
            self.step()
            turn()
            failures.look()
            self.node._core.check_invariants()

    def end(self) -> None:
        for wire in self.clients:
            wire.close()
        for nursery in PlayedNursery.made:
            nursery.close()
        self._nobodys.end()
        turn(6)
        self.node.stop("enough")
        gevent.killall(self.greenlets)


def play_node(choices: Choices) -> None:
    """Nothing but refusals, whatever is said; the core's promises hold; no file lies outside."""
    directory = Path(tempfile.mkdtemp(prefix="dispy-fuzz-", dir=MEMORY))
    own = directory / "a/b/node"
    own.mkdir(parents=True)
    played = mock.patch.multiple(nurseries, NurseryProcess=PlayedNursery, ADOPTS_ORPHANS=False)
    try:
        challenges = mock.patch.object(possession, "CHALLENGE_SIZE", 1000)
        with alone(played, challenges), Failures() as failures:
            play = Play(choices, own)
            try:
                play.play(failures)
            finally:
                play.end()
            failures.look()
        outside = [path for path in directory.rglob("*") if own not in (path, *path.parents)]
        assert set(outside) <= {directory / "a", directory / "a/b"}, "a file lies outside"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def fuzz_node(data: bytes) -> None:
    """As play_node."""
    play_node(Choices(data))
