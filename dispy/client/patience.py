"""Says what a cluster's jobs wait for when none of them runs: nothing waits in silence.

Owned by the session, on its hub, which asks it to look twice a second.
"""

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispy.client.job import DispyJob
from dispy.model.statuses import Status

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")

FIRST_SECONDS = 2.0  # of waiting before the first word
AGAIN_SECONDS = 60.0  # between words on the same wait


@dataclass(slots=True)
class Wait:
    """Somebody waits since a second (monotonic), and was told so at another."""

    since: float
    told: float | None = None

    def is_due(self, now: float, first: float, again: float) -> bool:
        """Say whether a word is due, first and then again; it counts as said."""
        due = self.since + first if self.told is None else self.told + again
        if now < due:
            return False
        self.told = now
        return True


class Patience:
    """Remembers since when which cluster waits."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._waits: dict[int, Wait] = {}

    def look(self, now: float) -> None:
        """Warn of clusters that have waited for too long; O(clusters)."""
        session = self._session
        for number in [number for number in self._waits if number not in session.clusters]:
            del self._waits[number]
        for number, cluster in session.clusters.items():
            if session.scheduler.is_stuck(number):
                wait = self._waits.setdefault(number, Wait(now))
                if wait.is_due(now, FIRST_SECONDS, AGAIN_SECONDS):
                    session.explaining(self._warn, cluster, wait, now)
            elif number in self._waits and self._waits.pop(number).told is not None:
                logger.info("jobs of %s go on", cluster.name)

    def _warn(self, cluster: "JobCluster", wait: Wait, now: float) -> None:
        lines = "".join(f"\n    {line}" for line in reasons(self._session, cluster))
        waited = now - wait.since
        logger.warning(
            "jobs of %s (%d) have waited for %.0f s:%s",
            cluster.name,
            cluster._pending,
            waited,
            lines,
        )


def reasons(session: "Session", cluster: "JobCluster") -> list[str]:
    """Say why no job of a cluster runs: node by node, then what the search has met. On the hub."""
    lines = session.scheduler.explain_waiting(cluster._number)
    if session.local.trouble:
        lines.append(session.local.trouble)
    if session.scheduler.has_ready_node(cluster._number):
        return lines
    if session.local.node is not None and not session.scheduler.nodes:
        return ["the local node of this program is still starting"]
    return lines + session.search_lines(cluster)


def why(session: "Session", cluster: "JobCluster", job: DispyJob) -> str:
    """Say why a job waits, or where it is. On the hub."""
    lines = session.scheduler.explain(cluster._number, job._number)
    if job.status == Status.Created and not session.scheduler.has_ready_node(cluster._number):
        lines += [line for line in reasons(session, cluster) if line not in lines]
    return "\n".join(lines) or f"it is {job.status.name}"
