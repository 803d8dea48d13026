"""setup and cleanup as a program asks for them: what travels to a node, and who waits for them."""

import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from dispy.client.nodes import NodeAllocate
from dispy.client.patience import AGAIN_SECONDS, Wait
from dispy.client.waiting import JobEvent, make_event
from dispy.model.errors import DispyError
from dispy.shipping.payloads import pack_whole

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")

ARGUMENTS_LIMIT = 4 * 1024 * 1024  # bytes; they travel in one piece with the order to set up
SETUP_TOLD_SECONDS = 10.0  # of a setup before the first word
CLEANUP_TOLD_SECONDS = 5.0

Function = Callable[..., Any]


def check_functions(setup: Any, cleanup: Any) -> tuple[Function | None, Function | None]:
    """Return what nodes call before the first job and after the last; None: nothing.

    Raises DispyError for what cannot be called.
    """
    if setup is not None and not callable(setup):
        raise DispyError(f"setup is a function, or functools.partial of one, not {setup!r}")
    if isinstance(cleanup, bool):
        return setup, None
    if not callable(cleanup):
        raise DispyError(
            f"cleanup is True, False, a function, or functools.partial of one, not {cleanup!r}"
        )
    return setup, cleanup


def own_settings(allocation: NodeAllocate, node: str) -> dict[str, Any]:
    """Return what `node` must know besides what all nodes of the cluster do.

    Raises DispyError, CannotPack included, for setup_args that cannot be sent.
    """
    given = allocation.setup_args
    if not given:
        return {}
    if not isinstance(given, (tuple, list)):
        raise DispyError(f"setup_args of node {node} is a tuple, not {given!r}")
    packed = pack_whole(tuple(given), f"setup_args of node {node}")
    if len(packed) > ARGUMENTS_LIMIT:
        raise DispyError(
            f"setup_args of node {node} are {len(packed)} bytes, and {ARGUMENTS_LIMIT} are "
            f"allowed; send a file, and read it in setup"
        )
    return {"setup_args": packed}


class Preparations:
    """Tells whoever waits for a setup or cleanup; owned by the session, `look` on its hub."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._waits: dict[tuple[int, str], Wait] = {}  # cluster and node -> its setup
        self._cleaning: dict[int, JobEvent] = {}  # closed clusters whose cleanup has not ended

    def look(self, now: float) -> None:
        """Tell of setups that take long; costs a look at each node where there are setups."""
        if not self._waits and not any(c._has_setup for c in self._session.clusters.values()):
            return
        pending = {}
        for node in self._session.scheduler.nodes.values():
            for number in node.opened - node.ready:
                cluster = self._session.clusters.get(number)
                if cluster is not None and cluster._has_setup:
                    pending[number, node.node_id] = (cluster.name, node.name)
        for place in self._waits.keys() - pending.keys():
            del self._waits[place]
        for place, (name, node_name) in pending.items():
            wait = self._waits.setdefault(place, Wait(now))
            if wait.is_due(now, SETUP_TOLD_SECONDS, AGAIN_SECONDS):
                logger.warning(
                    "waiting for setup of %s on node %s, for %.0f s so far",
                    name, node_name, now - wait.since,
                )  # fmt: skip

    def expect_cleanup(self, cluster: "JobCluster") -> JobEvent:
        """Return what is set when a cluster that is about to be closed has been cleaned up."""
        return self._cleaning.setdefault(cluster._number, make_event())

    def cleaned_up(self, number: int) -> None:
        """Wake whoever waits for a cluster's cleanup."""
        event = self._cleaning.pop(number, None)
        if event is not None:
            event.set()

    @property
    def is_cleaning(self) -> bool:
        """Whether a node has cleanup to run now, or at this program's end."""
        return bool(self._cleaning) or any(c._cleans_up for c in self._session.clusters.values())

    def abandon(self) -> None:
        """Free whoever waits: the program has ended its clusters."""
        for number in list(self._cleaning):
            self.cleaned_up(number)

    def wait(self, cluster: "JobCluster", event: JobEvent, seconds: float | None) -> None:
        """In the thread of whoever closes a cluster: wait for its cleanup, at most so long."""
        deadline = None if seconds is None else monotonic() + seconds
        while True:
            left = CLEANUP_TOLD_SECONDS if deadline is None else max(0.0, deadline - monotonic())
            if event.wait(min(left, CLEANUP_TOLD_SECONDS)):
                return
            if deadline is not None and monotonic() >= deadline:
                return
            nodes = self._session.hub.call(lambda: self._where(cluster._number))
            if nodes:
                logger.warning("waiting for cleanup of %s on %s", cluster.name, ", ".join(nodes))

    def _where(self, number: int) -> list[str]:
        return [f"node {name}" for name in self._session.scheduler.closing.waits_for(number)]
