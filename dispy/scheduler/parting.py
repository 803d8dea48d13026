"""The last seconds of a scheduler whose clusters are closed: its nodes are to hear of that.

A node that does not keeps processes and files of its computations for hours, in case their owner
comes back.
"""

import logging
from collections.abc import Callable, Mapping
from time import monotonic

import gevent

from dispy.scheduler.nodes import RemoteNode

logger = logging.getLogger("dispy.scheduler")

PART_SECONDS = 5.0  # that nodes may be away, or slow to read
TELL_SECONDS = 1.0  # before it is said what is waited for
LOOK_SECONDS = 0.02


def part(nodes: Mapping[str, RemoteNode], had: Callable[[str], bool]) -> None:
    """Return when all nodes that `had` computations have been told that these are closed.

    Waits in the calling greenlet, PART_SECONDS at most, for links that are broken or full; those
    who look after them go on meanwhile. What was not told is logged.
    """
    until, tell_at = monotonic() + PART_SECONDS, monotonic() + TELL_SECONDS
    while waited := [n.name for n in nodes.values() if had(n.node_id) and not _has_heard(n)]:
        now, names = monotonic(), ", ".join(waited)
        if now >= until:
            logger.warning(
                "node %s was not told that its computations are closed: there is no link to it. It "
                "keeps them, with their processes and files, for its zombie_interval", names,
            )  # fmt: skip
            return
        if now >= tell_at:
            tell_at = until
            logger.warning(
                "the program has ended and waits for node %s, to tell it that its computations are "
                "closed; %.0f s at most", names, until - now,
            )  # fmt: skip
        gevent.sleep(LOOK_SECONDS)


def _has_heard(node: RemoteNode) -> bool:
    if not node.port:
        return True  # a local node ends with its program
    return node.link is not None and node.settled and not node.link.unsent
