"""Ask a TCP port whether a dispy node listens there: it says so before it is told anything."""

import socket
from dataclasses import dataclass
from time import monotonic, time

from dispy.protocol.frames import FrameRefused
from dispy.protocol.handshake import Hello, accept_hello, hello_decoder


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a node said; `delay` is how long that took from the connection on, in seconds."""

    hello: Hello
    delay: float
    heard_at: float  # seconds since the epoch

    def clock_ahead(self) -> float | None:
        """Return by how many seconds its clock is ahead of ours; None: it did not say."""
        said = self.hello.details.get("time")
        if not isinstance(said, (int, float)):
            return None
        return float(said) - (self.heard_at - self.delay / 2)


def greet(host: str, port: int, seconds: float) -> Greeting:
    """Return what the node at this address says of itself.

    Raises OSError where nobody answers, FrameRefused where it is no node that we understand.
    """
    with socket.create_connection((host, port), timeout=seconds) as sock:
        start = monotonic()
        decoder = hello_decoder()
        while (frame := decoder.next_frame()) is None:
            sock.settimeout(max(0.01, start + seconds - monotonic()))
            data = sock.recv(65536)
            if not data:
                raise FrameRefused("it closed the connection without a word")
            decoder.feed(data)
        return Greeting(accept_hello(frame, "node"), monotonic() - start, time())
