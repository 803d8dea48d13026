"""How a node parts from its owners: what it had begun is named, all else is given back.

Owners run elsewhere what is neither done nor named, and what is named only if they may.
"""

from collections.abc import Mapping, Sequence
from time import monotonic

import gevent

from dispy.execution.core import Execution
from dispy.node.owners import Owner
from dispy.node.processes import WorkerProcess
from dispy.protocol.messages import Kind

FLUSH_SECONDS = 2.0  # that each step may take


class Farewell:
    """Used once, at the node's end; all three tables are the node's own."""

    def __init__(
        self, core: Execution, workers: Mapping[int, WorkerProcess], owners: Mapping[str, Owner]
    ) -> None:
        self._core, self._workers, self._owners = core, workers, owners
        self._begun: dict[str, list[int]] = {}  # owner -> jobs that this end has stopped

    def note_begun(self, owner_id: str, jobs: Sequence[int]) -> None:
        """A worker has ended that had begun these jobs."""
        self._begun.setdefault(owner_id, []).extend(jobs)

    def stop_jobs(self) -> None:
        """End all workers and report what they have done; from now on nothing begins."""
        self._core.slots = 0
        workers = list(self._workers.values())
        for worker in workers:
            worker.kill()
        gevent.joinall([worker.reader for worker in workers], timeout=FLUSH_SECONDS)
        for worker in self._workers.values():  # the kernel has not ended them so far
            known = self._core.workers[worker.worker_id]
            self.note_begun(known.key[0], list(known.jobs))

    def say(self, reason: str) -> None:
        """Tell every owner, and wait until they have read it."""
        for owner in self._owners.values():
            owner.tell(Kind.GOODBYE, [reason, self._begun.get(owner.owner_id, [])])
        # An owner closes when it has read that. If we closed first, what it still sends would
        # make the kernel throw away what it has not read.
        deadline = monotonic() + FLUSH_SECONDS
        while monotonic() < deadline and any(o.link is not None for o in self._owners.values()):
            gevent.sleep(0.005)
