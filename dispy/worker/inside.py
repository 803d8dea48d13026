"""The names that dispy gives to jobs, for `dispy.job`: filled in a worker, empty elsewhere."""

import logging
from typing import Any

NAMES: dict[str, Any] = {}
loading = False  # a computation is being rebuilt, which must not open clusters


def node_logger(descriptor: int) -> logging.Logger:
    """Return `dispynode_logger`, which writes to the node's own log at this descriptor.

    It belongs to no tree of loggers: a job that configures logging leaves it alone.
    """
    stream = open(descriptor, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s dispynode - %(message)s"))
    logger = logging.Logger("dispynode", logging.INFO)
    logger.addHandler(handler)
    return logger
