"""The scheduler's decisions: which node runs which job.

A deterministic state machine. Each method is one event: it changes the state and returns
what its owner (`dispy.scheduler`, or a test) carries out, in order. Events mark clusters as
dirty; `place` is called once after a batch of events. Nothing here waits, sends, logs or reads
a clock, and no call depends on how long a queue is. Not thread-safe: one greenlet owns it.

Invariant: a job is queued, on exactly one node, or final (forgotten here); never two of these.
"""

import heapq
from collections.abc import Iterable, Sequence

from dispy.scheduling.records import (
    Action,
    CancelOnNode,
    Cluster,
    ClusterId,
    Drop,
    GiveUp,
    JobNumber,
    Node,
    NodeId,
    Requeued,
    RunBatch,
)

PREFETCH_SECONDS = 0.05  # of work that may wait on a node for each slot (DESIGN section 6)
PREFETCH_JOBS = 4096  # for each slot, however short: bounds what a lost node gives back
SHORTEST = 5e-6  # seconds; what a job costs a worker at least, whatever was measured
SMOOTHING = 0.2  # weight of the newest batch in a cluster's mean duration


class Scheduling:
    """Clusters, nodes, and the jobs between them."""

    def __init__(self) -> None:
        self.clusters: dict[ClusterId, Cluster] = {}
        self.nodes: dict[NodeId, Node] = {}
        self._dirty: set[ClusterId] = set()
        # One heap a cluster: (load, node id, version of the node); stale entries are skipped.
        self._least_loaded: dict[ClusterId, list[tuple[float, NodeId, int]]] = {}

    # -- events of clusters and their jobs

    def cluster_opened(self, cluster: Cluster) -> None:
        """Take in a new cluster; nodes are offered to it by `cluster_ready_on`."""
        self.clusters[cluster.cluster_id] = cluster
        self._least_loaded[cluster.cluster_id] = []

    def cluster_closed(self, cluster_id: ClusterId) -> list[Action]:
        """Forget a cluster with all its jobs; what is on nodes is to be dropped there."""
        if self.clusters.pop(cluster_id, None) is None:
            return []  # closed by its user and by its program's end
        del self._least_loaded[cluster_id]
        self._dirty.discard(cluster_id)
        actions: list[Action] = []
        for node in self.nodes.values():
            node.clusters.discard(cluster_id)
            jobs = tuple(job for job, owner in node.jobs.items() if owner == cluster_id)
            if jobs:
                for job in jobs:
                    del node.jobs[job]
                self._changed(node)
                actions.append(Drop(node.node_id, jobs))
        return actions

    def jobs_submitted(self, cluster_id: ClusterId, jobs: Sequence[JobNumber]) -> None:
        """Queue new jobs behind the others of their cluster."""
        cluster = self.clusters[cluster_id]
        cluster.queue.extend(jobs)
        cluster.queued.update(jobs)
        self._dirty.add(cluster_id)

    def jobs_finished(self, node_id: NodeId, jobs: Sequence[JobNumber], seconds: float) -> set[int]:
        """Take the final results of `jobs`, whose mean run time was `seconds`.

        Return those that count; the others were final already or given to another node.
        """
        node = self.nodes.get(node_id)
        if node is None:
            return set()  # a result that crossed the loss of its node
        counted: set[int] = set()
        touched: set[ClusterId] = set()
        for job in jobs:
            cluster_id = node.jobs.pop(job, None)
            if cluster_id is not None:
                counted.add(job)
                touched.add(cluster_id)
                self.clusters[cluster_id].out -= 1
        for cluster_id in touched:
            cluster = self.clusters[cluster_id]
            before = cluster.duration
            cluster.duration = (
                seconds if before is None else before + SMOOTHING * (seconds - before)
            )
        if counted:
            self._changed(node)
        return counted

    def cancel(self, cluster_id: ClusterId, job: JobNumber, node_id: NodeId | None) -> list[Action]:
        """Cancel a job; `node_id` is where its owner last saw it, None for the queue.

        An empty list means: it was queued and is final now, or it is not known any more.
        """
        cluster = self.clusters.get(cluster_id)
        if cluster is not None and job in cluster.queued:
            cluster.queued.discard(job)  # its place in the queue is skipped later
            return []
        node = self.nodes.get(node_id) if node_id is not None else None
        if node is None or job not in node.jobs:
            return []  # its result crossed the cancel
        return [CancelOnNode(node.node_id, job)]

    # -- events of nodes

    def node_joined(self, node: Node) -> None:
        """Take in a node that is new to this scheduler."""
        assert node.node_id not in self.nodes, "the owner settles a reconnection first"
        self.nodes[node.node_id] = node

    def cluster_ready_on(self, node_id: NodeId, cluster_id: ClusterId) -> None:
        """Let a cluster use a node on which its computation is set up."""
        node = self.nodes.get(node_id)
        if node is None or cluster_id not in self.clusters:
            return  # the node was lost, or the cluster closed, while it was being set up
        node.clusters.add(cluster_id)
        self._changed(node)

    def node_shared(self, node_id: NodeId, slots: int) -> None:
        """Take the node's word on how many slots are this owner's now."""
        node = self.nodes.get(node_id)
        if node is not None:
            node.slots = max(1, slots)
            self._changed(node)

    def node_silent(self, node_id: NodeId) -> None:
        """Give a node nothing until `node_settled` or `node_lost`: its link is broken."""
        node = self.nodes.get(node_id)
        if node is not None:
            node.settled = False

    def node_settled(self, node_id: NodeId, held: Iterable[JobNumber]) -> list[Action]:
        """Compare with what a reconnected node holds, after its owed results were taken.

        Jobs that never arrived wait again, at the head; strangers are dropped there.
        """
        node = self.nodes[node_id]
        node.settled = True
        there = set(held)
        missing = [job for job in node.jobs if job not in there]
        actions = self._requeue(node, missing, f"it never reached node {node.name}")
        strangers = tuple(sorted(there - node.jobs.keys()))
        if strangers:
            actions.append(Drop(node_id, strangers))
        self._changed(node)
        return actions

    def jobs_returned(self, node_id: NodeId, jobs: Sequence[JobNumber]) -> list[Action]:
        """Take back jobs that a node did not begin and gave up."""
        node = self.nodes.get(node_id)
        if node is None:
            return []
        actions = self._requeue(node, jobs, f"node {node.name} gave it back before its start")
        self._changed(node)
        return actions

    def node_lost(self, node_id: NodeId, reason: str) -> list[Action]:
        """Take a node out; its jobs run elsewhere or, if they must not, are given up."""
        node = self.nodes.pop(node_id, None)
        if node is None:
            return []  # the same loss, reported by the link and by its silence
        by_cluster: dict[ClusterId, list[JobNumber]] = {}
        for job, cluster_id in node.jobs.items():
            by_cluster.setdefault(cluster_id, []).append(job)
        actions: list[Action] = []
        for cluster_id, jobs in by_cluster.items():
            why = f"node {node.name} was lost: {reason}"
            if self.clusters[cluster_id].reentrant:
                actions += self._requeue(node, jobs, why)
            else:
                self.clusters[cluster_id].out -= len(jobs)
                actions.append(GiveUp(cluster_id, tuple(jobs), why))
        return actions

    # -- placement

    @property
    def is_dirty(self) -> bool:
        """Whether `place` has anything to look at."""
        return bool(self._dirty)

    def place(self) -> list[RunBatch]:
        """Give waiting jobs to nodes; costs O(log nodes) a batch sent, not O(jobs queued)."""
        batches: list[RunBatch] = []
        for cluster_id in sorted(self._dirty, key=lambda c: (self.clusters[c].out, c)):
            self._fill(self.clusters[cluster_id], batches)
        self._dirty.clear()
        return batches

    def _fill(self, cluster: Cluster, batches: list[RunBatch]) -> None:
        heap = self._least_loaded[cluster.cluster_id]
        while cluster.queued and heap:
            load, node_id, version = heap[0]
            node = self.nodes.get(node_id)
            if node is None or node.version != version or (room := self.room(cluster, node)) <= 0:
                heapq.heappop(heap)  # void, or full: a node's next change brings it back
                continue
            even_part = -(-len(cluster.queued) // max(1, len(heap)))
            jobs = self._take(cluster, min(room, even_part))
            node.jobs.update(dict.fromkeys(jobs, cluster.cluster_id))
            cluster.out += len(jobs)
            self._changed(node)
            batches.append(RunBatch(node_id, cluster.cluster_id, tuple(jobs)))

    def room(self, cluster: Cluster, node: Node) -> int:
        """How many more jobs of `cluster` may be sent to `node` now; `explain` asks this too."""
        if not node.settled or cluster.cluster_id not in node.clusters:
            return 0
        if node.idle or cluster.duration is None:
            return node.idle
        window = min(PREFETCH_JOBS, int(PREFETCH_SECONDS / max(cluster.duration, SHORTEST)))
        return window * node.slots - (len(node.jobs) - node.slots)

    def _take(self, cluster: Cluster, count: int) -> list[JobNumber]:
        """Take the first `count` jobs of the queue, passing over cancelled ones."""
        jobs: list[JobNumber] = []
        while len(jobs) < count and cluster.queued:
            job = cluster.queue.popleft()
            if job in cluster.queued:
                cluster.queued.discard(job)
                jobs.append(job)
        return jobs

    def _requeue(self, node: Node, jobs: Iterable[JobNumber], reason: str) -> list[Action]:
        """Put jobs of `node` back at the head of their queues, in the order they were sent."""
        by_cluster: dict[ClusterId, list[JobNumber]] = {}
        for job in jobs:
            cluster_id = node.jobs.pop(job, None)
            if cluster_id is not None:
                by_cluster.setdefault(cluster_id, []).append(job)
        actions: list[Action] = []
        for cluster_id, back in by_cluster.items():
            cluster = self.clusters[cluster_id]
            cluster.queue.extendleft(reversed(back))
            cluster.queued.update(back)
            cluster.out -= len(back)
            self._dirty.add(cluster_id)
            actions.append(Requeued(cluster_id, tuple(back), reason))
        return actions

    def _changed(self, node: Node) -> None:
        """Offer a node anew to its clusters; O(clusters on it x log nodes)."""
        node.version += 1
        for cluster_id in node.clusters:
            heap = self._least_loaded[cluster_id]
            heapq.heappush(heap, (node.load, node.node_id, node.version))
            if len(heap) > 64 + 4 * len(self.nodes):
                heap[:] = [e for e in heap if self._is_current(e)]
                heapq.heapify(heap)
            if self.clusters[cluster_id].queued:
                self._dirty.add(cluster_id)

    def _is_current(self, entry: tuple[float, NodeId, int]) -> bool:
        node = self.nodes.get(entry[1])
        return node is not None and node.version == entry[2]

    # -- for tests

    def check_invariants(self) -> None:
        """Raise AssertionError where the state contradicts itself; tests call it after each event.

        Valid after `place`: then no slot idles while a job that could use it waits.
        """
        out = dict.fromkeys(self.clusters, 0)
        places: list[JobNumber] = [job for c in self.clusters.values() for job in c.queued]
        for node in self.nodes.values():
            places.extend(node.jobs)
            for cluster_id in node.jobs.values():
                out[cluster_id] += 1
        assert len(places) == len(set(places)), "a job is in two places"
        for cluster in self.clusters.values():
            assert cluster.out == out[cluster.cluster_id], "the count of jobs out is wrong"
            assert cluster.queued <= set(cluster.queue), "a queued job has lost its place"
            if cluster.queued:
                idle = [n.name for n in self.nodes.values() if n.idle and self.room(cluster, n)]
                assert not idle, f"{idle} idle while jobs of {cluster.name} wait"
