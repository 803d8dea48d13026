"""Signs of life: how often clusters want them, which nodes kept silent, and ours to the nodes.

A silent node's link is cut first, so that another is dialled while the node still counts: a
connection that the network has swallowed wakes up late, or never.
"""

from collections.abc import Mapping
from time import monotonic

import gevent

from dispy.net.rhythm import Rhythm
from dispy.protocol.messages import Kind
from dispy.scheduler.nodes import SILENT, RemoteNode

PULSE_SECONDS = 5.0  # between signs of life, where no cluster wants them more often
BEAT_SECONDS = 0.5  # between looks at all links
BROKEN_PULSES = 3  # that a node may miss before its link is cut
SILENT_PULSES = 5  # before it is lost, as in dispy 4
STOP_SECONDS = 2.0  # that the greenlet may take to end


class Heartbeat:
    """Owns the greenlet that looks at all links of its scheduler's nodes, on the same hub."""

    def __init__(self, nodes: Mapping[str, RemoteNode]) -> None:
        self._nodes = nodes
        self._wanted: dict[int, float] = {}  # by cluster, where it said so
        self._rhythm = Rhythm(monotonic())
        self._greenlet = gevent.spawn(self._keep)

    def want(self, cluster_id: int, seconds: float | None) -> None:
        """Take note of how often a cluster wants signs of life; None: it does not mind."""
        if seconds is not None:
            self._wanted[cluster_id] = seconds

    def forget(self, cluster_id: int) -> None:
        """Let a closed cluster want nothing any more."""
        self._wanted.pop(cluster_id, None)

    @property
    def pulse_seconds(self) -> float:
        """Between signs of life: what the most careful cluster wants."""
        return min([PULSE_SECONDS, *self._wanted.values()])

    def until_lost(self, heard: float) -> float:
        """Return in how many seconds a node is lost that was last heard at this one (monotonic).

        Its silence while we slept does not count.
        """
        now, pulse = monotonic(), self.pulse_seconds
        since = self._rhythm.silent_since(heard, now, pulse + BEAT_SECONDS)
        return since + pulse * SILENT_PULSES - now

    def expect(self, node: RemoteNode, cluster_id: int) -> None:
        """Expect signs of life as often as this cluster wants them: the node is told now."""
        node.expect_pulse(self._wanted.get(cluster_id, PULSE_SECONDS), monotonic())

    def stop(self) -> None:
        """End the greenlet."""
        self._greenlet.kill(timeout=STOP_SECONDS)

    def _keep(self) -> None:
        while True:
            gevent.sleep(min(BEAT_SECONDS, self.pulse_seconds / 2))
            now = monotonic()
            late = self.pulse_seconds + BEAT_SECONDS
            self._rhythm.beat(now, late)
            for node in self._nodes.values():
                if node.link is None:
                    continue
                node.acknowledge()
                since = self._rhythm.silent_since(node.expected_since(), now, late)
                # What is no network does not break; nor would it be dialled again.
                pulses = BROKEN_PULSES if node.port else SILENT_PULSES
                if now - since > node.pulse_seconds * pulses:
                    node.link.cut(SILENT)
                elif now - node.link.spoke > node.pulse_seconds / 2:  # as it was told
                    node.link.send(Kind.PULSE, [])
