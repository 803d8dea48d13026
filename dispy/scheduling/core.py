"""The scheduler's decisions: which node runs which job.

A deterministic state machine. Each method is one event: it changes the state and returns
what its owner (`dispy.scheduler`, or a test) carries out, in order. Events mark what is dirty;
`place` is called once after a batch of events. Nothing here waits, sends, logs or reads a clock:
`now` is in seconds of any clock that never goes back. No call depends on how long a queue is.
Not thread-safe: one greenlet owns it.

Invariant: a job is queued, on exactly one node, or final (forgotten here); never two of these.
"""

from collections.abc import Iterable, Mapping, Sequence

from dispy.scheduling.actions import Action, Drop, Leave, Recall, RunBatch
from dispy.scheduling.departures import Departures
from dispy.scheduling.draining import Drains
from dispy.scheduling.explaining import explain, explain_waiting, is_stuck
from dispy.scheduling.failing import Failing
from dispy.scheduling.gates import Gates
from dispy.scheduling.invariants import check_invariants
from dispy.scheduling.lanes import NONE_DIFFERS
from dispy.scheduling.placement import Placement
from dispy.scheduling.policies import Policy
from dispy.scheduling.queueing import Queueing
from dispy.scheduling.recalls import Recalls, call_all_back
from dispy.scheduling.records import Allocation, Cluster, ClusterId, JobNumber, Node, NodeId
from dispy.scheduling.restoring import Restoring
from dispy.scheduling.stories import forget, has_notes
from dispy.scheduling.withdrawing import Withdrawing, cancel_again

SMOOTHING = 0.2  # weight of the newest batch in a cluster's mean duration


class Scheduling:
    """Clusters, nodes, and the jobs between them."""

    def __init__(self, policy: Policy | None = None, owner_slots: int | None = None) -> None:
        """policy: by which clusters share the nodes; None: by load. owner_slots: that all clusters
        of one owner have together at most; None: any number."""
        self.policy = policy or Policy()
        self.clusters: dict[ClusterId, Cluster] = {}
        self.nodes: dict[NodeId, Node] = {}
        self._recalls, self._gates = Recalls(), Gates(owner_slots)
        self._placement = Placement(self._recalls, self.policy, self._gates)
        self.hungry = self._placement.hungry  # clusters, for whoever may have more nodes for them
        self._queueing = Queueing(self._placement)
        self._withdrawing = Withdrawing(self._placement)
        self._failing = Failing(self._placement, self._withdrawing)
        self._departures = Departures()
        self.drains = Drains(self._placement)
        self.restoring = Restoring(self._placement, self._queueing)
        self._joined = self._opened = 0

    # -- events of clusters and their jobs

    def cluster_opened(self, cluster: Cluster) -> None:
        """Take in a new cluster; nodes are offered to it by `cluster_allocated`."""
        self._opened += 1
        cluster.opened, cluster.strict = self._opened, self.policy.strict
        self.clusters[cluster.cluster_id] = cluster
        self.policy.opened(cluster)
        self._gates.opened(cluster)

    def is_admitted(self, cluster_id: ClusterId) -> bool:
        """Whether a cluster's jobs may start: no other runs exclusively (nor it, beside others)."""
        return (cluster := self.clusters.get(cluster_id)) is not None and cluster.admitted

    def owner_limited(self, owner: str, slots: int | None) -> None:
        """Let all clusters of an owner have at most so many slots together; None: any number."""
        self._gates.limit(owner, slots)

    def cluster_closed(self, cluster_id: ClusterId) -> list[Action]:
        """Forget a cluster with all its jobs; what is on nodes is to be dropped there."""
        cluster = self.clusters.pop(cluster_id, None)
        if cluster is None:
            return []  # closed by its user and by its program's end
        actions: list[Action] = []
        for allocation in list(cluster.allocations.values()):
            if allocation.jobs:
                actions.append(Drop(allocation.node.node_id, tuple(allocation.jobs)))
                allocation.jobs.clear()
                allocation.others.clear()
            self._departures.forget(allocation)
            self._placement.forget(allocation)
        self._placement.forget_cluster(cluster)
        for admitted in self._gates.closed(cluster):
            self._placement.let_in(admitted)
        self.policy.closed(cluster)
        self._recalls.forget_cluster(cluster_id)
        return actions

    def jobs_submitted(
        self,
        cluster_id: ClusterId,
        jobs: Sequence[JobNumber],
        widths: Mapping[JobNumber, int] = NONE_DIFFERS,
        retries: Mapping[JobNumber, int] = NONE_DIFFERS,
        priorities: Mapping[JobNumber, int] = NONE_DIFFERS,
    ) -> None:
        """Queue new jobs behind the others of their cluster and priority.

        widths: slots that a job needs, for those that differ from their cluster in it.
        retries: likewise, how often it may run again.
        priorities: likewise; jobs with more go before the others of their cluster, which have 0.
        """
        self._queueing.submit(self.clusters[cluster_id], jobs, widths, retries, priorities)

    def jobs_pinned(
        self,
        cluster_id: ClusterId,
        jobs: Sequence[JobNumber],
        node_id: NodeId,
        widths: Mapping[JobNumber, int] = NONE_DIFFERS,
        retries: Mapping[JobNumber, int] = NONE_DIFFERS,
        priorities: Mapping[JobNumber, int] = NONE_DIFFERS,
    ) -> list[Action]:
        """Queue new jobs for that node alone, before what is queued for any."""
        cluster = self.clusters[cluster_id]
        return self._queueing.pin(cluster, jobs, node_id, widths, retries, priorities)

    def results_arrived(self, node_id: NodeId, sequence: int) -> bool:
        """Say whether results with this number are new; a node repeats what it is not told of."""
        node = self.nodes.get(node_id)
        if node is None or sequence <= node.results_seen:
            return False
        node.results_seen = sequence
        return True

    def jobs_finished(
        self,
        node_id: NodeId,
        cluster_id: ClusterId,
        jobs: Sequence[JobNumber],
        seconds: float | None,
        now: float,
    ) -> list[JobNumber]:
        """Take the final results of `jobs`, whose mean run time was `seconds`, None if none ran.

        Return those that count; the others were final already or given to another node.
        """
        cluster = self.clusters.get(cluster_id)
        allocation = cluster.allocations.get(node_id) if cluster is not None else None
        if cluster is None or allocation is None:
            return []  # a result that crossed the loss of its node, or the cluster's end
        there, placed = allocation.jobs, cluster.placed
        counted = [job for job in jobs if there.pop(job, None) is not None]
        if not counted:
            return counted
        slots = cluster.slots_out
        for job in counted:
            del placed[job]
        if cluster.widths:
            allocation.note_widths(counted, -1)
        if has_notes(cluster):
            forget(cluster, counted)
        if seconds is not None:
            self.policy.now = now
            self.policy.ended(cluster, slots - cluster.slots_out, seconds)
            before = cluster.duration or seconds
            cluster.duration = before + SMOOTHING * (seconds - before)
        allocation.progress, allocation.stalled = now, False
        if not there:
            allocation.sent_ahead = False
        self._placement.changed(allocation)
        return counted

    def job_died(
        self, node_id: NodeId, cluster_id: ClusterId, job: JobNumber, why: str, now: float
    ) -> list[Action]:
        """Queue a job anew whose process has ended under it; no actions where it may not run again.

        Call before `jobs_finished`, for which such a job is the node's no more.
        """
        allocation = self._allocation(node_id, cluster_id)
        return [] if allocation is None else self._failing.died(allocation, job, why, now)

    def jobs_failed(
        self,
        node_id: NodeId,
        cluster_id: ClusterId,
        failed: int,
        succeeded: int,
        seconds: float | None,
        reason: str,
    ) -> tuple[str | None, list[Action]]:
        """Count results, `seconds` long on average, and the failures among them.

        Where they begin to say that the node is at fault, for `reason` of the last one, it gets
        no more of the cluster's jobs, until `cluster_allocated`: then the first part says why.
        """
        allocation = self._allocation(node_id, cluster_id)
        if allocation is None:
            return None, []
        return self._failing.failed(allocation, failed, succeeded, seconds, reason)

    def is_queued(self, cluster_id: ClusterId, job: JobNumber) -> bool:
        """Whether a job waits here, on no node."""
        cluster = self.clusters.get(cluster_id)
        return cluster is not None and (
            job in cluster.lane_of(job).queued
            or (job in cluster.pinned and job not in cluster.placed)
        )

    def cancel(self, cluster_id: ClusterId, job: JobNumber, why: str = "") -> list[Action]:
        """Cancel a job: final at once when it was queued, and the owner is to ask its node else.

        An empty list means that it is not known any more: its result crossed the cancel. One that
        its node gives back, or never got, is final then; a broken link only delays the order.
        """
        cluster = self.clusters.get(cluster_id)
        return [] if cluster is None else self._withdrawing.cancel(cluster, job, why)

    # -- events of nodes

    def node_joined(self, node: Node) -> None:
        """Take in a node that is new to this scheduler."""
        assert node.node_id not in self.nodes, "the owner settles a reconnection first"
        self._joined += 1
        node.order = self._joined
        self.nodes[node.node_id], node.drained = node, self.drains.reasons.get(node.node_id, "")

    def cluster_allocated(self, node_id: NodeId, cluster_id: ClusterId, limit: int) -> list[Action]:
        """Let a cluster use `limit` slots of a node; 0: no new jobs, and none that has not begun.

        The first time it waits for `cluster_ready_on`.
        """
        node, cluster = self.nodes.get(node_id), self.clusters.get(cluster_id)
        if node is None or cluster is None:
            return []  # the node was lost, or the cluster closed, while it was being decided
        allocation = cluster.allocations.get(node_id)
        if allocation is None:
            allocation = Allocation(cluster, node, limit)
            cluster.allocations[node_id] = node.allocations[cluster_id] = allocation
            return []
        allocation.limit, allocation.pinned_only = limit, False
        self._failing.forgive(allocation)
        self._placement.reshaped(allocation)
        return call_all_back(allocation)

    def cluster_deallocated(self, node_id: NodeId, cluster_id: ClusterId) -> list[Action]:
        """Give a node no more jobs of a cluster but those pinned to it, until `cluster_allocated`.

        What is there and has not begun is called back, if it may run elsewhere.
        """
        allocation = self._allocation(node_id, cluster_id)
        if allocation is None:
            return []  # the node was lost, or the cluster closed
        allocation.pinned_only = True
        self._placement.reshaped(allocation)
        return call_all_back(allocation)

    def cluster_ready_on(self, node_id: NodeId, cluster_id: ClusterId) -> None:
        """Place a cluster's jobs on a node on which its computation is set up."""
        allocation = self._allocation(node_id, cluster_id)
        if allocation is None or allocation.leaving:
            return  # the node was lost, or the cluster closed, while it was being set up
        allocation.ready, allocation.refusal = True, None
        self._placement.changed(allocation)

    def cluster_refused_on(
        self, node_id: NodeId, cluster_id: ClusterId, reason: str
    ) -> list[Action]:
        """Give a cluster's jobs to other nodes: its computation cannot be used on this one.

        Jobs that are there are the node's still, until it has returned or finished them.
        """
        allocation = self._allocation(node_id, cluster_id)
        return [] if allocation is None else self._withdrawing.refuse(allocation, reason)

    def cluster_leaves(
        self, node_id: NodeId, cluster_id: ClusterId, terminate: bool, refusal: str | None
    ) -> list[Action]:
        """Have a cluster's jobs leave a node; once none is there `place` orders Leave.

        What has not begun is called back. What runs ends by itself, or is stopped (`terminate`):
        it waits again where the cluster is reentrant, else it ends Terminated. `refusal`: why the
        cluster gets nothing more there; None: it is set up again, and its pinned jobs wait.
        """
        allocation = self._allocation(node_id, cluster_id)
        if allocation is None:
            return []  # lost, or closed, meanwhile
        self._departures.begin(allocation, terminate)
        actions = self._withdrawing.refuse(allocation, refusal) if refusal is not None else []
        self._placement.reshaped(allocation)
        return actions + call_all_back(allocation)

    def cluster_left(self, node_id: NodeId, cluster_id: ClusterId) -> None:
        """Take the node's word that it has closed a computation, as Leave ordered."""
        allocation = self._allocation(node_id, cluster_id)
        if allocation is not None:
            self._departures.forget(allocation)

    def node_shared(self, node_id: NodeId, slots: int, owners: int, now: float) -> None:
        """Take the node's word on how many slots are this owner's now, of how many owners'."""
        node = self.nodes.get(node_id)
        if node is None:
            return
        fewer = slots < node.slots
        node.slots, node.owners = max(1, slots), owners
        node.capacity = max(node.capacity, slots)
        for allocation in list(node.allocations.values()):
            if fewer and allocation.jobs:
                allocation.sent_ahead = True  # some of them may have lost their slot
                self._recalls.watch(allocation, now)
            self._placement.reshaped(allocation)

    def node_crowded(self, node_id: NodeId, others: str) -> None:
        """Take the node's word that our jobs there wait for those of `others`; "": not any more."""
        if (node := self.nodes.get(node_id)) is not None:
            node.crowded = others

    def node_held_back(self, node_id: NodeId, reason: str) -> None:
        """Take the node's word that it begins no jobs now; "": it does again."""
        if (node := self.nodes.get(node_id)) is not None:
            node.held_back = reason

    def node_silent(self, node_id: NodeId, why: str = "") -> None:
        """Give a node nothing until `node_settled` or `node_lost`: its link is broken, or new."""
        node = self.nodes.get(node_id)
        if node is not None:
            node.settled, node.away = False, why
            if node.reserved is not None:
                self._placement.reservations.release(node)

    def node_settled(self, node_id: NodeId, held: Iterable[JobNumber], now: float) -> list[Action]:
        """Compare with what a reconnected node holds, after its owed results were taken.

        Jobs that never arrived wait again, at the head; strangers are dropped there.
        """
        node = self.nodes[node_id]
        node.settled, node.crowded, node.held_back = True, "", ""
        strangers = set(held)
        actions: list[Action] = []
        for allocation in list(node.allocations.values()):
            allocation.recalling, allocation.full = 0, ""  # the answers would have come before
            missing = [job for job in allocation.jobs if job not in strangers]
            strangers.difference_update(allocation.jobs)
            actions += self._withdrawing.requeue(
                allocation, missing, f"it never reached {node.name}", now
            )
            self._placement.changed(allocation)
            actions += cancel_again(allocation)
            actions += call_all_back(allocation)
        if strangers:
            actions.append(Drop(node_id, tuple(sorted(strangers))))
        return actions

    def jobs_returned(
        self,
        node_id: NodeId,
        cluster_id: ClusterId,
        jobs: Sequence[JobNumber],
        reason: str | None,
        now: float,
    ) -> list[Action]:
        """Take back jobs that a node did not begin: it was asked to, or `reason` says why.

        A node that gives back unasked gets nothing more of this cluster, else both would spin.
        """
        allocation = self._allocation(node_id, cluster_id)
        if allocation is None:
            return []
        node, actions = allocation.node, list[Action]()
        why = f"called back from {node.name}, which had not begun it"
        if reason is not None or not allocation.recalling:
            reason = reason or "it gave back jobs that it was not asked for"
            actions += self._withdrawing.refuse(allocation, reason)
            why = f"node {node.name} gave it back: {reason}"
        else:
            allocation.recalling -= 1
        back = [job for job in dict.fromkeys(jobs) if job in allocation.jobs]
        actions += self._withdrawing.requeue(allocation, back, why, now)
        allocation.sent_ahead = allocation.demand > allocation.cap
        if allocation.leaving and not allocation.recalling:
            # It is asked for so many at once; and only what it keeps has begun.
            actions += (
                call_all_back(allocation) if back else self._withdrawing.stop(allocation, now)
            )
        self._placement.changed(allocation)
        return actions

    def node_full(
        self, node_id: NodeId, cluster_id: ClusterId, jobs: list[JobNumber], why: str, now: float
    ) -> list[Action]:
        """Take back jobs that a node has no room for; `why` is "" once it has some again."""
        allocation = self._allocation(node_id, cluster_id)
        return self._withdrawing.turn_away(allocation, jobs, why, now) if allocation else []

    def node_lost(self, node_id: NodeId, reason: str, now: float) -> list[Action]:
        """Take a node out; its jobs run elsewhere or, if they must not, are given up."""
        node = self.nodes.pop(node_id, None)
        if node is None:
            return []  # the same loss, reported by the link and by its silence
        node.settled = False
        actions: list[Action] = []
        why = f"node {node.name} was lost: {reason}"
        for allocation in list(node.allocations.values()):
            actions += self._withdrawing.lose(allocation, why, now)
            self._departures.forget(allocation)
            self._placement.forget(allocation)
        self._placement.forget_node(node)
        return actions

    # -- time and placement

    @property
    def is_dirty(self) -> bool:
        """Whether `place` has anything to look at."""
        return self._placement.is_dirty or self._departures.is_due

    def place(self, now: float) -> list[RunBatch | Leave]:
        """Give waiting jobs to nodes; costs O(log nodes) a batch sent, not O(jobs queued)."""
        self.policy.now = now
        return [*self._departures.due(), *self._placement.place(now)]

    @property
    def due(self) -> float | None:
        """The second at which `time_passed` has something to look at."""
        return self._recalls.due

    def time_passed(self, now: float) -> list[Recall]:
        """Call back jobs from nodes that fall behind, where others idle; call after `place`."""
        return self._recalls.time_passed(now, self._placement.is_wanted)

    def is_stuck(self, cluster_id: ClusterId) -> bool:
        """Whether a cluster has jobs, and none of them runs or is on its way to a worker."""
        cluster = self.clusters.get(cluster_id)
        return cluster is not None and is_stuck(cluster)

    def explain_waiting(self, cluster_id: ClusterId) -> list[str]:
        """Say why the jobs of a cluster wait, one line for each node."""
        cluster, nodes = self.clusters.get(cluster_id), self.nodes.values()
        return [] if cluster is None else explain_waiting(cluster, nodes, self._gates)

    def explain(self, cluster_id: ClusterId, job: JobNumber, now: float) -> list[str]:
        """Say why a job waits, one line for each node, or where it is; and what befell it."""
        cluster, turns = self.clusters.get(cluster_id), self._placement.turns
        return explain(cluster, self.nodes.values(), job, now, self._gates, turns)

    # -- what events have in common

    def _allocation(self, node_id: NodeId, cluster_id: ClusterId) -> Allocation | None:
        cluster = self.clusters.get(cluster_id)
        return cluster.allocations.get(node_id) if cluster is not None else None

    # -- for tests

    def check_invariants(self) -> None:
        """Raise AssertionError where the state contradicts itself; valid after `place`."""
        check_invariants(self.clusters.values(), self.nodes.values())
