"""Thousands of nodes in one process, whose jobs take no time.

Usage:
  simulated_nodes <first> <count> [--port=<port>] [--cpus=<n>]

Options:
  --port=<port>  at which each listens, at an address of its own [default: 51348]
  --cpus=<n>     that each says it has [default: 1]

The wire is the true one: a connection, proofs where there is a secret, hello, what is held, signs
of life, and results that are kept until they are acknowledged. A job's result is its arguments.

Says "ready" when all listen. Each line that is read is answered by one, JSON: how many nodes have
a link over which they have said what they hold, and how many jobs have run in all, in
how many batches. Ends with its
input.
"""

import json
import os
import resource
import sys
from collections import deque
from random import random
from time import monotonic, time
from typing import Any

import gevent
from docopt import docopt
from gevent import get_hub, socket
from gevent.fileobject import FileObject

from dispy.client.settings import resolve_here
from dispy.model.credentials import Credentials
from dispy.net.credentials import load_credentials
from dispy.net.dialing import listen, make_ready
from dispy.net.link import Link
from dispy.net.secure import NotProven, accept
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import UNUSED_PULSES, Hello
from dispy.protocol.messages import Kind, join_payloads, split_payloads

READ = 1  # libev's name of an event
JOB_SECONDS = 20e-6  # that each says it took
SPARE_SECONDS, UNUSED_SECONDS = 5.0, 30.0  # between words on what it has to spare, as of a node
PULSE_SECONDS = 3.75  # after its last word, where it was told 5 s, and has something to do
LOOK_SECONDS = 1.25  # between two looks at a node
PARTS = 10  # of the nodes, which are looked at in turn


def address_of(number: int) -> str:
    """Return where a simulated node listens: each has an address of its own."""
    return f"127.{10 + number // 62_500}.{number // 250 % 250}.{number % 250 + 1}"


class SimulatedNode:
    """What a node keeps for its only owner."""

    def __init__(self, name: str, cpus: int) -> None:
        details = {"cpus": cpus, "time": time(), "available": [50.0, 1 << 33, 1 << 36, 100.0]}
        self._hello = Hello("node", os.urandom(16).hex(), name, details=details)
        self._cpus = cpus
        self._owed: deque[tuple[int, list[Any], Any]] = deque()  # not acknowledged
        self.batches = 0  # frames of results that were sent
        self._computations: dict[int, None] = {}
        self.link: Link | None = None
        self.settled = False
        self.jobs_run = 0
        self._told = monotonic() - UNUSED_SECONDS * random()  # when, of what it has to spare

    def serve(self, link: Link) -> None:
        """Speak with an owner until its link ends."""
        try:
            link.exchange_hello(self._hello, "client")
        except (FrameRefused, OSError):
            link.close()
            return
        if self.link is not None:
            self.link.close()
        self.link = link
        for _, body, buffers in self._owed:
            link.send(Kind.RESULTS, body, buffers)
        link.send(Kind.HELD, [[], list(self._computations)])
        for computation in self._computations:
            link.send(Kind.READY, [computation, None, {}])
        link.send(Kind.SHARE, [self._cpus, 1])
        self.settled = True
        link.read(self._take)
        if self.link is link:
            self.link, self.settled = None, False

    def give_sign(self, now: float) -> None:
        """Say that it lives, if it is time for that."""
        if self.link is None or not self.settled:
            return
        if now - self._told > (SPARE_SECONDS if self._computations else UNUSED_SECONDS):
            self._told = now
            available = [100 * random(), 1 << 33, 1 << 36, 100.0]  # another one each time
            self.link.send(Kind.STATUS, [{"available": available}])
        elif now - self.link.spoke > PULSE_SECONDS * (1 if self._computations else UNUSED_PULSES):
            self.link.send(Kind.PULSE, [])

    def _take(self, frame: Frame) -> None:
        body, link = frame.body, self.link
        assert link is not None
        if frame.kind == Kind.RUN:
            self._run(link, frame)
        elif frame.kind == Kind.ACKNOWLEDGE:
            while self._owed and self._owed[0][0] <= body[0]:
                self._owed.popleft()
        elif frame.kind == Kind.OPEN:
            self._computations[body[0]] = None
            link.send(Kind.READY, [body[0], None, {}])
        elif frame.kind == Kind.CLOSE:
            self._computations.pop(body[0], None)
            link.send(Kind.CLOSED, [body[0], None, {}])
        elif frame.kind == Kind.RECALL:
            link.send(Kind.RETURNED, [body[0], [], None])  # all have begun
        elif frame.kind == Kind.LIST:
            link.send(Kind.LISTED, [body[1], []])

    def _run(self, link: Link, frame: Frame) -> None:
        """End all jobs at once."""
        computation, jobs, column, _ = frame.body
        self.jobs_run += len(jobs)
        self.batches += 1
        starts, ends = [now := time()] * len(jobs), [now + JOB_SECONDS] * len(jobs)
        column, buffers = split_payloads(join_payloads(column, frame.buffers))
        body = [self.batches, computation, jobs, starts, ends, column, []]
        self._owed.append((self.batches, body, buffers))
        link.send(Kind.RESULTS, body, buffers)


class Simulation:
    """Owns all nodes and their listening sockets."""

    def __init__(self, first: int, count: int, port: int, cpus: int, proof: Credentials) -> None:
        self.nodes = [SimulatedNode(f"node{first + at}", cpus) for at in range(count)]
        self._proof = proof
        self._watchers = []
        for at, node in enumerate(self.nodes):
            listening = listen(address_of(first + at), port)
            watcher = get_hub().loop.io(listening.fileno(), READ)
            watcher.start(self._accept, listening, node)
            self._watchers.append((watcher, listening))
        gevent.spawn(self._beat)

    def _accept(self, listening: socket.socket, node: SimulatedNode) -> None:
        listening.settimeout(0)
        try:
            sock, _ = listening.accept()
        except OSError:
            return
        gevent.spawn(self._serve, sock, node)

    def _serve(self, sock: socket.socket, node: SimulatedNode) -> None:
        try:
            make_ready(sock)
            transport = accept(sock, self._proof)
        except (NotProven, OSError):
            sock.close()
            return
        node.serve(Link(transport))

    def _beat(self) -> None:
        """Give signs of life as nodes do, of a part of the nodes each time."""
        part = 0
        while True:
            gevent.sleep(LOOK_SECONDS / PARTS)
            now = monotonic()
            for node in self.nodes[part::PARTS]:
                node.give_sign(now)
            part = (part + 1) % PARTS

    def answer(self) -> dict[str, int]:
        """Return what is told of all nodes."""
        return {
            "settled": sum(node.settled for node in self.nodes),
            "jobs_run": sum(node.jobs_run for node in self.nodes),
            "batches": sum(node.batches for node in self.nodes),
        }


def main() -> None:
    options = docopt(__doc__)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    simulation = Simulation(
        int(options["<first>"]), int(options["<count>"]), int(options["--port"]),
        int(options["--cpus"]),
        load_credentials(resolve_here("node", {})),
    )  # fmt: skip
    print("ready", flush=True)
    for _ in FileObject(sys.stdin, "r"):
        print(json.dumps(simulation.answer()), flush=True)


if __name__ == "__main__":
    main()
