"""Ask a TCP port whether a dispy node listens there, as a program would be answered there."""

from dataclasses import dataclass
from time import monotonic, time

import gevent

from dispy.model.credentials import Credentials
from dispy.net.dialing import connect
from dispy.net.link import Link
from dispy.net.secure import dial
from dispy.protocol.handshake import KNOCK, Hello


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


def greet(host: str, port: int, seconds: float, credentials: Credentials) -> Greeting:
    """Return what the node at this address says of itself, once both sides have proven themselves.

    Raises OSError where nobody answers, FrameRefused where it is no node that we understand,
    NotProven where one of us does not accept the other.
    """
    with gevent.Timeout(seconds, TimeoutError("timed out")):
        sock = connect(host, port, seconds)
        start = monotonic()
        if not credentials.protected:
            sock.send(KNOCK)
        link = Link(dial(sock, credentials, host))
        try:
            hello = link.hear_hello("node")
            return Greeting(hello, monotonic() - start, time())
        finally:
            link.close()
