"""Which nodes are drained, in a file of the scheduler's directory: a restart uses none of them."""

import json
import logging
import os

from dispy.model.errors import DispyError
from dispy.scheduling.core import Scheduling
from dispy.system.directories import read_private, write_private

logger = logging.getLogger("dispy.scheduler")

NAME = "drained.json"


class Drained:
    """Of one scheduler; directory: None: nothing is kept."""

    def __init__(self, directory: str | None, core: Scheduling) -> None:
        """Drain what an earlier scheduler had drained."""
        self._path = None if directory is None else os.path.join(directory, NAME)
        self._core = core
        for node_id, why in self._read().items():
            core.drains.reasons[node_id] = why
            if node_id in core.nodes:
                core.nodes[node_id].drained = why

    def write(self) -> None:
        """Keep it as it is now."""
        if self._path is None:
            return
        try:
            write_private(self._path, json.dumps(self._core.drains.reasons), replace=True)
        except OSError as error:
            logger.error(
                "which nodes are drained cannot be written to %s, and is forgotten at a restart: "
                "%s", self._path, error.strerror or error,
            )  # fmt: skip

    def _read(self) -> dict[str, str]:
        if self._path is None or not os.path.exists(self._path):
            return {}
        try:
            found = json.loads(read_private(self._path, self._path))
            return {str(node_id): str(why) for node_id, why in found.items()}
        except (AttributeError, ValueError, OSError, DispyError) as error:
            logger.error("which nodes were drained is not known: %s: %s", self._path, error)
            return {}
