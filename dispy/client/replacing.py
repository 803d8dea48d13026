"""The local node of a program, while the program runs: served, and replaced when it is lost."""

import contextlib
import logging
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any

from dispy.client.local_node import LocalNode

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")

LOCAL_NODES_A_MINUTE = 3  # that may end by themselves before no more is started


class LocalNodes:
    """The local nodes of a session, one after the other; on the hub."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self.node: LocalNode | None = None  # the present one; set where it is started
        self.trouble = ""  # what became of the last one, if it ended too early
        self._socket: Any = None  # our end of its socket, once the hub has it
        self._ends: list[float] = []  # the seconds (monotonic) at which some ended too early

    def adopt(self, local: LocalNode) -> None:
        """Serve a local node that was started; returns at once."""
        import gevent
        from gevent import socket as gevent_socket

        self.node = local
        self._socket = gevent_socket.socket(fileno=local.descriptor)
        gevent.spawn(self._serve)

    def _serve(self) -> None:
        reason = self._session.scheduler.adopt(self._socket)
        if not self._session.ended:
            self._ended(reason)

    def cluster_opened(self, cluster: "JobCluster") -> None:
        """Replace a local node that a new cluster counts on and that has ended meanwhile."""
        if cluster._search.counts_on_local and self.node is None:
            self._replace()

    def _ended(self, reason: str) -> None:
        """Replace a local node that ended before its program, unless that is of no use."""
        session, now = self._session, monotonic()
        self.node = None
        self._ends = [*(end for end in self._ends if now - end < 60), now]
        self.trouble = f"the local node ended: {reason}"
        logger.error("%s", self.trouble)
        if any(cluster._search.wanted.takes_local for cluster in session.clusters.values()):
            self._replace()

    def _replace(self) -> None:
        session = self._session
        if len(self._ends) > LOCAL_NODES_A_MINUTE:
            self.trouble += (
                f". {len(self._ends)} of them ended within a minute, so no more is started: "
                f"see what they said above, or run `dispy node` on this machine to see it there"
            )
            logger.error("%s", self.trouble)
        elif session.finding.acquire(blocking=False):  # else whoever holds it starts one
            # Late: finding nodes needs a session first.
            from dispy.client.finding import start_local_node

            try:
                start_local_node(session)
            finally:
                session.finding.release()

    def disconnect(self) -> None:
        """Have it end, also where it was started and is not served yet."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # closed with its link
                self._socket.shutdown(socket.SHUT_RDWR)
        elif self.node is not None:
            self.node.forget()
