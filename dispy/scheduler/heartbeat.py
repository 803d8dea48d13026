"""Signs of life: how often clusters want them, which nodes kept silent, and ours to the nodes."""

import logging
from collections.abc import Mapping
from time import monotonic

import gevent

from dispy.protocol.messages import Kind
from dispy.scheduler.nodes import RemoteNode

logger = logging.getLogger("dispy.scheduler")

PULSE_SECONDS = 5.0  # between signs of life, where no cluster wants them more often
BEAT_SECONDS = 0.5  # between looks at all links
SILENT_PULSES = 5  # that a node may miss, as in dispy 4
STOP_SECONDS = 2.0  # that the greenlet may take to end


class Heartbeat:
    """Owns the greenlet that looks at all links of its scheduler's nodes, on the same hub."""

    def __init__(self, nodes: Mapping[str, RemoteNode]) -> None:
        self._nodes = nodes
        self._wanted: dict[int, float] = {}  # by cluster, where it said so
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

    @property
    def patience(self) -> float:
        """For how many seconds a node may be silent, or gone, before it is lost."""
        return self.pulse_seconds * SILENT_PULSES

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
            for node in self._nodes.values():
                if node.link is None:
                    continue
                node.acknowledge()
                if node.silent_for(now) > node.pulse_seconds * SILENT_PULSES:
                    logger.warning("node %s has been silent for too long", node.name)
                    node.link.close()
                elif now - node.link.spoke > self.pulse_seconds / 2:
                    node.link.send(Kind.PULSE, [])
