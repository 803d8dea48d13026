"""Signs of life between a client program and a shared scheduler, the same on both sides."""

from collections.abc import Callable, Iterable
from time import monotonic

import gevent

from dispy.net.link import Link
from dispy.net.rhythm import Rhythm
from dispy.protocol.messages import Kind

PULSE_SECONDS = 5.0  # between them, where nothing else is said
BEAT_SECONDS = 1.0  # between looks at all links
BROKEN_PULSES = 3  # that the other side may miss before the link is cut
LATE_SECONDS = 5.0  # of a beat, after which we have slept ourselves
SILENT = "it fell silent"


class Pulses:
    """Owns a greenlet; `links`: those that there are, each time it looks."""

    def __init__(self, links: Callable[[], Iterable[Link]]) -> None:
        self._links = links
        self._rhythm = Rhythm(monotonic())
        self._greenlet = gevent.spawn(self._keep)

    def _keep(self) -> None:
        while True:
            gevent.sleep(BEAT_SECONDS)
            now = monotonic()
            self._rhythm.beat(now, LATE_SECONDS)
            for link in list(self._links()):
                since = self._rhythm.silent_since(link.last_sign, now, LATE_SECONDS)
                if now - since > PULSE_SECONDS * BROKEN_PULSES:
                    link.cut(SILENT)
                elif now - link.spoke > PULSE_SECONDS / 2:
                    link.send(Kind.PULSE, [])

    def stop(self) -> None:
        """End it."""
        self._greenlet.kill(block=False)
