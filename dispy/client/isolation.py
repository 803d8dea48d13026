"""How far a cluster's jobs are kept apart from each other, and what that costs."""

import logging
from typing import Any

logger = logging.getLogger("dispy.client")


class ClusterIsolation:
    """What a cluster has chosen, or its `setup` has chosen for it."""

    def __init__(self, name: str, said: str | None, has_setup: bool) -> None:
        """`name` is the computation's; `said` is "worker", "job" or None."""
        self.word = said or ("job" if has_setup else "worker")
        self._name = name
        self._tells = said is None and has_setup

    def took(self, toll: Any) -> None:
        """Say once that a process for each job is what limits their rate, if nobody chose it.

        `toll`, from a node: the mean seconds that a job ran, and that its process cost. On the
        hub.
        """
        if not self._tells or not _is_toll(toll):
            return
        self._tells = False
        logger.info(
            'jobs of %s are limited by the process that each gets: they run for %.2g ms, it costs '
            '%.2g ms. Each has its own because there is a setup; where jobs do not change what it '
            'left, isolation="worker" (or DISPY_ISOLATION=worker) uses processes again',
            self._name, toll[0] * 1e3, toll[1] * 1e3,
        )  # fmt: skip


def _is_toll(toll: Any) -> bool:
    return isinstance(toll, list) and list(map(type, toll)) == [float, float]
