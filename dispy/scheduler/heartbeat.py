"""Signs of life: how often clusters want them, which nodes kept silent, and ours to the nodes.

A silent node's link is cut first, so that another is dialled while the node still counts: a
connection that the network has swallowed wakes up late, or never.
"""

from collections.abc import Mapping, Sequence
from time import monotonic

import gevent

from dispy.net.rhythm import Rhythm
from dispy.protocol.handshake import UNUSED_PULSES
from dispy.protocol.messages import Kind
from dispy.scheduler.nodes import SILENT, RemoteNode

PULSE_SECONDS = 5.0  # between signs of life, where no cluster wants them more often
BEAT_SECONDS = 1.0  # between two looks at a link
TURN_NODES = 500  # that are looked at in one turn of the loop: a millisecond or two
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
        now = monotonic()
        node.expect_pulse(self._wanted.get(cluster_id, PULSE_SECONDS), now)
        node.pulse_since = now  # until now it may have had nothing of ours, and spoken less often

    def stop(self) -> None:
        """End the greenlet."""
        self._greenlet.kill(timeout=STOP_SECONDS)

    def _keep(self) -> None:
        while True:
            beat = min(BEAT_SECONDS, self.pulse_seconds / 2)
            nodes = list(self._nodes.values())
            parts = [nodes[at : at + TURN_NODES] for at in range(0, len(nodes), TURN_NODES)]
            for part in parts or [nodes]:
                gevent.sleep(beat / max(1, len(parts)))
                self._look_at(part, beat)

    def _look_at(self, nodes: Sequence[RemoteNode], beat: float) -> None:
        """Look at some nodes; the next look at them is after a beat."""
        now, late = monotonic(), self.pulse_seconds + BEAT_SECONDS
        self._rhythm.beat(now, late)
        for node in nodes:
            link, pulse = node.link, node.pulse_seconds
            if link is None:
                continue
            if not node.opened:
                pulse *= UNUSED_PULSES
            node.acknowledge()
            # What is no network does not break; nor would it be dialled again.
            most = pulse * (BROKEN_PULSES if node.port else SILENT_PULSES)
            if now - link.heard > most and self._is_silent(node, now, late, most):
                link.cut(SILENT)
            elif now - link.spoke > pulse - beat:  # as often as it was told, at least
                link.send(Kind.PULSE, [])

    def _is_silent(self, node: RemoteNode, now: float, late: float, most: float) -> bool:
        """Say whether silence counts that is too long: we may have slept, or just have asked."""
        return now - self._rhythm.silent_since(node.expected_since(), now, late) > most
