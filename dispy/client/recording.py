"""What a program writes down in case it dies: its clusters, and the nodes that have jobs of them.

The hub says what is used, a thread writes it. A program that uses no node but its own local one,
which dies with it, writes nothing.
"""

import logging
import os
import threading
from collections import deque
from time import localtime, strftime, time
from typing import TYPE_CHECKING

from dispy.client.waiting import make_event
from dispy.model.credentials import Certificate
from dispy.model.statuses import Status

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster
    from dispy.client.recovery_form import Entry
    from dispy.client.recovery_writer import Writer
    from dispy.client.session import Session
    from dispy.scheduler.nodes import RemoteNode

logger = logging.getLogger("dispy.client")

NONE = "none"  # said instead of a path: write no file
END_SECONDS = 5.0  # that a disk may take at the program's end
_AT_NODES = (Status.Running, Status.ProvisionalResult)


class Recording:
    """The recovery file of a session. Everything else runs on the hub."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._wanted: str | None = None  # the path, or NONE; None: no cluster has been made
        self._is_named, self._where = False, ""  # the current directory at that time
        # Not `make_lock`: a disk is waited for inside, in a patched program cooperatively.
        self._choosing = threading.Lock()
        self._clusters: set[int] = set()  # that are written down, or about to be
        self._hosts: dict[str, str] = {}  # of nodes, in the same way, by their id
        self._writer: Writer | None = None
        # What is not written yet, in order; None: the file goes. Many nodes at once are one write.
        self._entries: deque[Entry | None] = deque()
        self._is_announced = False  # the thread that writes knows that there are such

    def choose(self, said: str | None) -> None:
        """Take a cluster's word on where the file lies; the first one's counts for all.

        In its maker's thread. Raises DispyError where no file can be made.
        """
        path = said and (NONE if said.lower() == NONE else os.path.abspath(said))
        with self._choosing:
            self._choose(path)

    def _choose(self, path: str | None) -> None:
        if self._wanted is None:
            if path and path != NONE:
                from dispy.client.recovery_file import make_room  # late: few name one

                make_room(path)
            self._is_named, self._where = bool(path), os.getcwd()
            usual = strftime("_dispy_%Y%m%d%H%M%S", localtime())
            self._wanted = path or os.path.join(self._where, usual)
        elif path and path != self._wanted:
            logger.warning(
                "this cluster names another recovery file than the first one of this program, "
                "which decides for all: that of the first is used"
            )

    def used(self, cluster: "JobCluster", node: "RemoteNode") -> None:
        """Write down that a node has, or is about to have, jobs of a cluster."""
        if node.port == 0 or self._wanted is None or self._wanted == NONE:
            return  # a local node dies with us
        is_new, is_new_node = cluster._number not in self._clusters, node.node_id not in self._hosts
        if not is_new and not is_new_node:
            return
        # Late: few programs have other nodes at their start.
        from dispy.client.recovery_form import KnownCluster, KnownNode

        entries: list[Entry] = []
        if is_new:
            self._clusters.add(cluster._number)
            where, limit = cluster.directory, cluster.max_file_size
            entries.append(KnownCluster(cluster._number, cluster.name, where, limit))
        if is_new_node:
            self._hosts[node.node_id] = node.ip_addr
            entries.append(KnownNode(node.node_id, node.name, node.ip_addr, node.port))
        self._put(*entries)

    def lost(self, node: "RemoteNode") -> None:
        """Write down that a node is gone; what its jobs came to is settled without it."""
        if self._hosts.pop(node.node_id, None) is not None:
            self._put(node.node_id)

    def closed(self, number: int) -> None:
        """Write down that a cluster has ended; with the last one the file goes."""
        if number not in self._clusters:
            return
        self._clusters.discard(number)
        if self._clusters:
            self._put(number)
        else:
            self._hosts.clear()
            self._put(None)

    def end(self) -> None:
        """Remove the file, unless jobs are left at nodes; once the hub has ended."""
        if not self._clusters:
            return
        hosts = set(self._hosts.values())
        left = [
            job for job in self._session.jobs.values()
            if job.status in _AT_NODES and job.ip_addr in hosts
        ]  # fmt: skip
        if self._writer is None:
            return
        done = make_event()
        self._session.disk.put(self._writer.close, not left)
        self._session.disk.put(done.set)
        done.wait(END_SECONDS)
        if left and self._writer.path:
            logger.warning(
                "%d jobs are still at their nodes, which finish them: `dispy recover %s` brings "
                "their results", len(left), self._writer.path,
            )  # fmt: skip

    def _make_writer(self) -> "Writer":
        from dispy.client.recovery_form import Program
        from dispy.client.recovery_writer import Writer

        scheduler, credentials = self._session.scheduler, self._session.proof.credentials
        pair = None
        if credentials.protected and credentials.certificate is None:
            from dispy.net.tls import own_pair  # links have been made with it, so it is imported

            pair = own_pair()
        certificate = credentials.certificate
        if certificate is not None:
            certificate = Certificate(
                self._absolute(certificate.certfile) or "",
                self._absolute(certificate.keyfile),
                self._absolute(certificate.cafile),
                self._absolute(certificate.revoked),
            )
        program = Program(
            scheduler.identity, scheduler.name, time(),
            credentials.secrets[0].source if credentials.secrets else "",
            self._absolute(credentials.secrets_file), certificate, pair,
        )  # fmt: skip
        return Writer(program)

    def _absolute(self, path: str | None) -> str | None:
        """Return what a path meant where the program was started."""
        return None if path is None else os.path.join(self._where, path)

    def _put(self, *entries: "Entry | None") -> None:
        if self._writer is None:
            self._writer = self._make_writer()
        self._entries.extend(entries)
        if not self._is_announced:
            self._is_announced = True
            self._session.disk.put(self._write)

    def _write(self) -> None:
        """On the thread that writes."""
        assert self._writer is not None, "made before"
        assert self._wanted is not None, "chosen before"
        self._is_announced = False  # before looking: what comes later is announced again
        entries: list[Entry] = []
        while self._entries:
            entry = self._entries.popleft()
            if entry is not None:
                entries.append(entry)
                continue
            entries.clear()
            self._writer.close(remove=True)
        if entries:
            self._writer.write(self._wanted, self._is_named, entries)
