"""A crowd of connections that prove nothing, in a process of its own: `python crowd.py HOST ...`.

Says "crowded" when each has been connected once; ends with its standard input, and says how often
it was dropped.
"""

import argparse
import contextlib
import errno
import heapq
import resource
import selectors
import socket
import sys
import threading
import time
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path

from OpenSSL import SSL

sys.path.insert(0, str(Path(__file__).parent.parent))
from system.hostile import OTHER, Peer, context

HELLO = bytes.fromhex("16030105dc010005d80303") + bytes(1500)  # what a TLS handshake begins like


class Member:
    """One of the crowd, which connects again `pause` seconds after it was dropped."""

    def __init__(self, source: str) -> None:
        self.source, self.sent = source, 0
        self.sock: socket.socket | None = None


class Crowd:
    def __init__(self, place: tuple[str, int], size: int, sources: int, pause: float) -> None:
        first = [f"127.77.{n // 250}.{n % 250 + 1}" for n in range(sources)]
        self.members = [Member(source) for source in islice(cycle(first), size)]
        self.place, self.pause = place, pause
        self.selector = selectors.DefaultSelector()
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        self.due = [(0.0, number) for number in range(size)]
        self.met: set[int] = set()
        self.drops = 0

    def run(self, sends: bool) -> None:
        """Send a byte a second on each connection, until standard input ends."""
        said = False
        while True:
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                _, number = heapq.heappop(self.due)
                self.act(number, now, sends)
            if not said and len(self.met) == len(self.members):
                said = True
                print("crowded", flush=True)
            wait = max(0.0, self.due[0][0] - time.monotonic()) if self.due else None
            for key, _ in self.selector.select(wait):
                if key.fileobj is sys.stdin:
                    print("dropped", self.drops, flush=True)
                    return
                self.drop(key.data)

    def act(self, number: int, now: float, sends: bool) -> None:
        member = self.members[number]
        if member.sock is None:
            self.connect(number)
        elif sends and member.sent < len(HELLO):
            with contextlib.suppress(OSError):
                member.sock.send(HELLO[member.sent : member.sent + 1])
            member.sent += 1
        if member.sock is None or sends:
            heapq.heappush(self.due, (now + 1, number))

    def connect(self, number: int) -> None:
        member = self.members[number]
        sock = socket.socket()
        sock.setblocking(False)
        member.sent = 0
        try:
            sock.bind((member.source, 0))
            sock.connect(self.place)
        except OSError as error:
            if error.errno != errno.EINPROGRESS:
                sock.close()
                return
        self.met.add(number)
        member.sock = sock
        self.selector.register(sock, selectors.EVENT_READ, number)

    def drop(self, number: int) -> None:
        member = self.members[number]
        sock, member.sock = member.sock, None
        if sock is None:
            return
        self.selector.unregister(sock)
        sock.close()
        self.drops += 1
        heapq.heappush(self.due, (time.monotonic() + self.pause, number))


class Guessers:
    """Threads that try one secret after the other, which they have not."""

    def __init__(self, place: tuple[str, int], size: int) -> None:
        self.place, self.size, self.answers, self.said = place, size, 0, threading.Event()
        self.context = context()

    def run(self) -> None:
        """Guess until standard input ends."""
        for _ in range(self.size):
            threading.Thread(target=self.guess, daemon=True).start()
        self.said.wait()
        print("crowded", flush=True)
        sys.stdin.read()
        print("dropped", self.answers, flush=True)

    def guess(self) -> None:
        while True:
            with (
                contextlib.suppress(OSError, SSL.Error),
                closing(socket.create_connection(self.place)) as sock,
            ):
                peer = Peer(sock)
                peer.encrypt(self.context)
                assert not peer.prove(OTHER)
                self.answers += 1
                if self.answers >= self.size:
                    self.said.set()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("--port", type=int, default=51348)
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--sources", type=int, default=1, help="addresses that it comes from")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds before coming again")
    parser.add_argument("--silent", action="store_true", help="send nothing")
    parser.add_argument("--guess", action="store_true", help="prove another secret, at once")
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    place = asked.host, asked.port
    if asked.guess:
        Guessers(place, asked.size).run()
        return
    Crowd(place, asked.size, asked.sources, asked.pause).run(not asked.silent)


if __name__ == "__main__":
    main()
