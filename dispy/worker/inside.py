"""The names that dispy gives to jobs, for `dispy.job`: filled in a worker, empty elsewhere."""

import logging
from typing import Any

from dispy.model.errors import DispyError

NAMES: dict[str, Any] = {}
loading = False  # a computation is being rebuilt, which must not open clusters


def refuse_to_open() -> None:
    """Raise DispyError where a module opens a cluster as a node imports it: for ever, else."""
    if loading:
        raise DispyError(
            "a module that this computation imports opens a cluster at once, on the node too. "
            "Open it below `if __name__ == '__main__':`, or in a function"
        )


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
