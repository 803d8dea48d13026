"""What each node was given, and so may speak of; whatever else it says is passed over.

A job is a node's while the core has it there. What was a node's before is remembered for as long as
it may honestly come back to it: over a broken link, after the node was lost, or because its word
and ours crossed. Such a word is passed over in silence; any other is told of once for each link.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dispy.scheduler.nodes import RemoteNode
from dispy.scheduling.core import Scheduling

logger = logging.getLogger("dispy.scheduler")

Place = tuple[str, int]  # address and port

LOST_NODES = 1000  # whose records are kept: each may come back
TAKEN_JOBS = 100_000  # of one node that are remembered; older ones may be told of needlessly
CLUSTERS = 1000  # closed ones that were opened on one node; its word on older ones is told of
DIGESTS = 1000  # of one node before those are forgotten that nobody needs any more


@dataclass(slots=True)
class _Record:
    """What one node was given in its life, as far as the core does not know it."""

    clusters: dict[int, None] = field(default_factory=dict)  # that were opened there, in order
    before: set[int] = field(default_factory=set)  # on the node of this place that died before it
    taken: dict[int, None] = field(default_factory=dict)  # jobs that left it without a result
    digests: set[bytes] = field(default_factory=set)  # of contents that it was told to fetch
    limit: int = DIGESTS


class Given:
    """All nodes of one scheduler; `is_needed` says whether a content may still be fetched."""

    def __init__(self, core: Scheduling, is_needed: Callable[[bytes], Any]) -> None:
        self._core, self._is_needed = core, is_needed
        self._records: dict[str, _Record] = {}
        self._lost: dict[str, Place] = {}  # nodes and where they were, the first lost first
        self._places: dict[Place, str] = {}  # which node was lost last there
        self.newest = -1  # the highest job number that there is

    # -- giving and taking

    def _record(self, node_id: str) -> _Record:
        record = self._records.get(node_id)
        if record is None:
            record = self._records[node_id] = _Record()
        return record

    def opened(self, node_id: str, cluster_id: int, files: Iterable[Sequence[Any]]) -> None:
        """A node is told to set up a cluster's computation, with these files."""
        known = self._record(node_id).clusters
        known[cluster_id] = None
        if len(known) > CLUSTERS:
            oldest = next((each for each in known if each not in self._core.clusters), cluster_id)
            del known[oldest]
        self.named(node_id, [entry[1] for entry in files])

    def had_computations(self, node_id: str) -> bool:
        """Whether a node was ever told to set up a computation."""
        record = self._records.get(node_id)
        return record is not None and bool(record.clusters)

    def named(self, node_id: str, digests: Iterable[bytes]) -> None:
        """A node is told that it needs these contents."""
        record = self._record(node_id)
        record.digests.update(digests)
        if len(record.digests) > record.limit:
            record.digests = set(filter(self._is_needed, record.digests))
            record.limit = max(DIGESTS, 2 * len(record.digests))

    def sent(
        self, node_id: str, jobs: Sequence[int], options: Mapping[int, Mapping[str, Any]]
    ) -> None:
        """A node is sent jobs; `options` of those that have some."""
        for job in jobs if options else ():
            if (own := options.get(job)) is not None and ("needs" in own or "files" in own):
                self.named(node_id, [digest for digest, _ in own.get("needs", ())])
                self.named(node_id, [entry[1] for entry in own.get("files", ())])

    def taken(self, node_id: str, jobs: Sequence[int]) -> None:
        """Jobs leave a node without a result from there."""
        known = self._record(node_id).taken
        known.update(dict.fromkeys(jobs))
        while len(known) > TAKEN_JOBS:
            del known[next(iter(known))]

    def lost(self, node: RemoteNode) -> None:
        """A node is gone; it may come back, or another one in its place."""
        node_id, place = node.node_id, (node.ip_addr, node.port)
        self._lost.pop(node_id, None)
        self._lost[node_id] = place
        self._places[place] = node_id
        if len(self._lost) > LOST_NODES:
            oldest = next(iter(self._lost))
            place = self._lost.pop(oldest)
            if self._places.get(place) == oldest:
                del self._places[place]
            self._records.pop(oldest, None)

    def came(self, node: RemoteNode) -> None:
        """A node is there, for the first time or again; one that was restarted still owes what
        it owed before."""
        self._lost.pop(node.node_id, None)
        earlier = self._places.get((node.ip_addr, node.port), node.node_id)
        if earlier != node.node_id and earlier in self._records:
            record = self._records[earlier]
            known = sorted({*record.clusters, *record.before})
            self._record(node.node_id).before.update(known[-CLUSTERS:])

    # -- what a node says

    def has_job(self, node: RemoteNode, cluster_id: int, job: int) -> bool:
        """Whether a job is that node's to speak of now."""
        cluster = self._core.clusters.get(cluster_id)
        allocation = None if cluster is None else cluster.allocations.get(node.node_id)
        if allocation is not None and job in allocation.jobs:
            return True
        # A file may be offered again, and output be read, after the end: of a job that is no more.
        waits = self._core.is_queued(cluster_id, job)
        over = cluster is None or not (job in cluster.placed or waits)
        if not (over and 0 <= job <= self.newest):
            self._note_jobs(node, cluster_id, [job])
        return False

    def own_jobs(self, node: RemoteNode, cluster_id: int, jobs: Sequence[int]) -> Sequence[int]:
        """Return those of `jobs` that are the node's: nearly always all."""
        cluster = self._core.clusters.get(cluster_id)
        allocation = None if cluster is None else cluster.allocations.get(node.node_id)
        there: Mapping[int, float] = {} if allocation is None else allocation.jobs
        if all(map(there.__contains__, jobs)):  # 20 ns a job
            return jobs
        self._note_jobs(node, cluster_id, [job for job in jobs if job not in there])
        return [job for job in jobs if job in there]

    def has_cluster(self, node: RemoteNode, cluster_id: int) -> bool:
        """Whether a cluster's computation is set up on a node, or being set up."""
        if cluster_id in node.opened:
            return True
        record = self._records.get(node.node_id)
        if record is None or cluster_id not in record.clusters:
            self._tell(node, f"computation {cluster_id}")
        return False

    def may_fetch(self, node: RemoteNode, digest: bytes) -> bool:
        """Whether a node was told of a content."""
        record = self._records.get(node.node_id)
        if record is not None and digest in record.digests:
            return True
        self._tell(node, f"content {digest.hex()[:16]}")
        return False

    def _note_jobs(self, node: RemoteNode, cluster_id: int, jobs: Sequence[int]) -> None:
        """Tell of jobs that a node never had; what it has done while it was away may be any."""
        record = self._records.get(node.node_id, _Record())
        if cluster_id in record.clusters and cluster_id not in self._core.clusters:
            return  # closed, with all its jobs
        if cluster_id in record.before:
            return
        strange = [job for job in jobs if job not in record.taken]
        if strange and (node.settled or not record.clusters):
            self._tell(node, f"job {strange[0]}", len(strange))

    def _tell(self, node: RemoteNode, what: str, count: int = 1) -> None:
        node.strange += count
        if node.told_of is not node.link:
            node.told_of = node.link
            logger.warning(
                "node %s (%s) speaks of %s, which it was not given: that is passed over, like "
                "all that is not its own (%d times so far)",
                node.name, node.ip_addr, what, node.strange,
            )  # fmt: skip
