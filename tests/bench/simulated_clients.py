"""Programs of a shared scheduler, many in one process.

Usage:
  simulated_clients <host> [--port=<port>] [--clients=<n>] [--nodes=<n>] [--jobs=<n>]
                    [--bytes=<n>] [--ahead=<n>] [--hold | --rules] [--alone]

Options:
  --port=<port>  of the scheduler [default: 51349]
  --clients=<n>  how many there are [default: 1]
  --nodes=<n>    that each uses, of all that it is told of [default: 1]
  --rules        leave it to the scheduler which nodes are used
  --jobs=<n>     that each submits [default: 1000]
  --bytes=<n>    of the arguments of each job [default: 20]
  --ahead=<n>    jobs of one client that have no result, at most [default: 20000]
  --alone        submit each job by itself
  --hold         use no nodes: all jobs are to wait

The wire is the true one: a connection, proofs where there is a secret, a conversation; a cluster
of each, its nodes, jobs in batches, and their results, each of which must be the arguments of its
job.

Takes one step for each line that is read: "connect", "open" (a cluster, and be told that its nodes
are ready, or one of them where the scheduler chooses), "run" (all jobs), "close". Answers each by a
line when all clients have done it, JSON: seconds, and the most that one client needed.
"""

import json
import os
import sys
from time import monotonic
from typing import Any

import gevent
from docopt import docopt
from gevent.event import Event
from gevent.fileobject import FileObject
from gevent.pool import Pool

from dispy.client.remote_calls import BATCH_JOBS
from dispy.client.settings import resolve_here
from dispy.model.credentials import Credentials
from dispy.model.statuses import Status
from dispy.net.credentials import load_credentials
from dispy.net.dialing import connect
from dispy.net.link import Link
from dispy.net.pulses import Pulses
from dispy.net.secure import dial
from dispy.protocol.conversation import Conversation
from dispy.protocol.frames import Frame
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind, join_payloads

CLUSTER = 1
DIALS = 32  # at once: a scheduler's door lets in so many strangers of one address
CONNECT_SECONDS = 10.0


class SimulatedClient:
    """One program with one cluster."""

    def __init__(self, number: int, options: dict[str, Any], proof: Credentials) -> None:
        self._number, self._options, self._proof = number, options, proof
        self._identity = os.urandom(16).hex()
        self._conversation = Conversation()
        self.link: Link | None = None
        self._allotted = 0
        self._ready: set[str] = set()
        self._first = self._submitted = self.ended = 0  # the first job of this run; of it, how many
        self._padding = os.urandom(max(0, int(options["--bytes"]) - 8))
        self._jobs, self._wanted = int(options["--jobs"]), int(options["--nodes"])
        self._ahead = int(options["--ahead"])
        self._usable, self._done, self._closed = Event(), Event(), Event()

    # -- the steps

    def connect(self) -> None:
        """Connect."""
        sock = connect(self._options["<host>"], int(self._options["--port"]), CONNECT_SECONDS)
        self.link = Link(dial(sock, self._proof))
        details = {"heard": 0, "conversation": ""}
        ours = Hello("client", self._identity, f"client{self._number}", details=details)
        self.link.exchange_hello(ours, "scheduler")
        gevent.spawn(self._read)

    def open(self) -> None:
        """Open a cluster, and wait until it has its nodes."""
        us = Hello("client", self._identity, "")
        settings = {"python": us.python, "implementation": us.implementation, "cpus": 1}
        chooses = self._options["--rules"] or self._options["--hold"]
        hosts = "*" if self._options["--rules"] else "no such node"
        rules = [[hosts, None, 0]] if chooses else None
        table = {"settings": settings, "reentrant": True, "nodes": rules}
        self._say(Kind.CLUSTER, [CLUSTER, f"simulated{self._number}", table], [b"no code"])
        if self._options["--hold"]:
            return
        if chooses:
            self._wanted = 1
        self._usable.wait()

    def run(self) -> None:
        """Submit all jobs, and wait for their results."""
        self._first += self._submitted
        self._submitted = self.ended = 0
        self._done.clear()
        self._submit()
        if self._options["--hold"]:
            while self._conversation.kept:
                gevent.sleep(0.01)
        else:
            self._done.wait()

    def close(self) -> None:
        """Close the cluster, and wait until that was heard."""
        self._say(Kind.CLOSE, [CLUSTER])
        self._closed.wait()

    # -- the wire

    def _say(self, kind: int, body: list[Any], buffers: Any = ()) -> None:
        said = self._conversation.say(kind, body, buffers)
        assert self.link is not None
        self.link.send(Kind.SAID, [said.number, kind, body], buffers)

    def _submit(self) -> None:
        """Submit as many as may be on their way, in batches as a program does."""
        ahead = self._jobs if self._options["--hold"] else self._ahead
        most = 1 if self._options["--alone"] else BATCH_JOBS
        while True:
            count = min(most, self._jobs - self._submitted,
                        ahead - (self._submitted - self.ended))  # fmt: skip
            if count < min(most, ahead // 4, self._jobs - self._submitted) or count <= 0:
                return
            first = self._first + self._submitted
            jobs = list(range(first, first + count))
            payloads = [self._arguments(job) for job in jobs]
            self._submitted += count
            self._say(Kind.SUBMIT, [CLUSTER, None, jobs, payloads, []])

    def _arguments(self, job: int) -> bytes:
        return job.to_bytes(8, "big") + self._padding

    def _read(self) -> None:
        assert self.link is not None
        end = self.link.read(self._take, self._turn_over)
        if end.reason != "closed here":
            print(f"client {self._number}: {end.reason}", file=sys.stderr, flush=True)
            os._exit(1)

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.HEARD:
            self._conversation.taken(frame.body[0])
            return
        number, kind, body = frame.body
        if not self._conversation.is_new(number, may_have_gaps=True):
            return
        if kind == Kind.ENDED:
            results = join_payloads(body[5], frame.buffers)
            for job, result in zip(body[2], results, strict=True):
                assert result == self._arguments(job), f"the result of job {job} is another one"
            self.ended += len(results)
            assert self.ended <= self._submitted, "more results than jobs"
            if self.ended == self._jobs:
                self._done.set()
            else:
                self._submit()
        elif kind == Kind.NODE:
            if not self._options["--rules"] and self._allotted < self._wanted:
                self._allotted += 1
                table = {"own": None, "forgive": False}
                self._say(Kind.ALLOT, [CLUSTER, body[0], 1 << 16, table])
        elif kind == Kind.CHANGED and body[2] == Status.Initialized:
            self._ready.add(body[1])
            if len(self._ready) == self._wanted:
                self._usable.set()
        elif kind == Kind.CLEANED_UP:
            self._closed.set()
        else:
            expected = (Kind.STARTED, Kind.RESYNC, Kind.RESYNCED)
            assert kind in expected, f"{Kind(kind).name} {body!r:.200}"

    def _turn_over(self) -> None:
        if self._conversation.confirm(self._conversation.arrived) and self.link is not None:
            self.link.send(Kind.HEARD, [self._conversation.arrived])


def main() -> None:
    options = docopt(__doc__)
    proof = load_credentials(resolve_here("client", {}))
    clients = [SimulatedClient(at, options, proof) for at in range(int(options["--clients"]))]
    Pulses(lambda: [client.link for client in clients if client.link is not None])
    for line in FileObject(sys.stdin, "r"):
        step, slowest = line.strip(), 0.0

        def timed(client: SimulatedClient, step: str = step) -> float:
            began = monotonic()
            getattr(client, step)()
            return monotonic() - began

        began = monotonic()
        pool = Pool(DIALS if step == "connect" else None)
        slowest = max(pool.imap_unordered(timed, clients))
        took = {"seconds": monotonic() - began, "slowest": slowest}
        print(json.dumps(took), flush=True)


if __name__ == "__main__":
    main()
