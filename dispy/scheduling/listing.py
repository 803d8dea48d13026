"""Where an allocation with room is found: in its cluster's heaps, or in its node's line.

A cluster keeps a lazy heap of its allocations with room, nodes with idle slots first. An
allocation that finds no idle slot stands in its node's line (`Node.watching`); when a slot comes
free the line is served (`dispy.scheduling.placement`). Who joins a line has looked at that node
itself, and leaves it when it is looked at again: so an event costs O(log nodes), and a step for
each cluster that has looked at the node since; clusters that want nothing cost nothing.

A cluster whose jobs differ in width has a lane, with a heap of its own, for each width.
"""

import heapq

from dispy.scheduling.gates import Gates
from dispy.scheduling.policies import Policy
from dispy.scheduling.records import Allocation, Cluster, Lane, Node
from dispy.scheduling.reserving import Reservations, lane_load
from dispy.scheduling.turns import Turns

STALE_ENTRIES = 64  # of a heap that are tolerated beyond those that count


class Listing:
    """Knows what is dirty, and where everything is that has room."""

    def __init__(self, policy: Policy, gates: Gates) -> None:
        self.policy = policy
        self.turns = Turns(policy) if policy.strict else None
        self._gates = gates
        self._clusters: dict[int, Cluster] = {}
        self._nodes: dict[str, Node] = {}
        self.reservations = Reservations(self)

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to place, or to look at."""
        return bool(self._clusters or self._nodes) or self._gates.is_dirty

    # -- what has changed

    def queue_grew(self, cluster: Cluster) -> None:
        """Have a cluster looked at that has jobs to place."""
        self._clusters[cluster.cluster_id] = cluster
        if self.turns is not None:
            self.turns.changed(cluster)

    def queue_shrank(self, cluster: Cluster) -> None:
        """Take note that a cluster may want nothing any more."""
        account = cluster.account
        if account is not None:
            if account.claim is cluster:
                account.claim = None  # perhaps it was for this job; who is woken next says so
            self._gates.look_at(account)
        if self.turns is not None:
            self.turns.changed(cluster)

    def let_in(self, cluster: Cluster) -> None:
        """Have a cluster looked at that may start jobs from now on."""
        self.queue_grew(cluster)
        kept, cluster.kept = cluster.kept, {}
        for allocation in kept.values():
            self.offer(allocation)

    def settle(self, cluster: Cluster) -> None:
        """Count the slots that its jobs need for its owner."""
        if cluster.account is not None:
            self._gates.settle(cluster)

    def changed(self, allocation: Allocation, given: int = 0) -> None:
        """Take note of an allocation whose jobs, limit or state is another now.

        given: idle slots that new jobs have been given.
        """
        node = allocation.node
        was_ahead = node.count > node.busy
        idle, load = allocation.recount(given)
        if allocation.cluster.account is not None:
            self._gates.settle(allocation.cluster)
        if self.turns is not None:
            self.turns.changed(allocation.cluster)
        if not allocation.listed or load < allocation.listed_load or allocation.pinned_waiting:
            self._offer(allocation, idle, load)
        if (
            (node.watching and (node.busy < node.slots or (node.ahead and not was_ahead)))
            or node.reserved is not None
            or node.narrow
        ):
            self.look_at(node)

    def reshaped(self, allocation: Allocation) -> None:
        """Take note that how many slots there are, or for whom, is another number now."""
        allocation.recount(given=allocation.node.slots)
        self.offer(allocation)
        self.changed(allocation)

    def look_at(self, node: Node) -> None:
        """Have a node looked at that may have free slots for those who wait for them."""
        self._nodes[node.node_id] = node

    def offer(self, allocation: Allocation) -> None:
        """Put an allocation where it will be found: listed, in line, or neither when full."""
        self._offer(allocation, *allocation.recount())

    def _offer(self, allocation: Allocation, idle: int, load: float) -> None:
        node, cluster_id = allocation.node, allocation.cluster.cluster_id
        if node.watching:
            node.watching.pop(cluster_id, None)
        self._unlist(allocation)
        if node.reserved is not None:
            self.reservations.check(allocation)
        if not allocation.is_usable:
            return
        ahead = not idle and allocation.ahead_room > 0 and self._may_send_ahead(allocation)
        if allocation.pinned_waiting and (ahead or (idle and self.turns is None)):
            node.pinning[cluster_id] = allocation
            self._nodes[node.node_id] = node
        elif idle and not node.watching and not allocation.pinned_waiting:
            self._list(allocation, idle, load)
            return
        if allocation.fills < allocation.cap:
            # (A full one is offered again when a job of its own ends.)
            node.watching[cluster_id] = allocation
            if idle:
                self._nodes[node.node_id] = node
        if ahead:
            self._list(allocation, idle, load)

    def _may_send_ahead(self, allocation: Allocation) -> bool:
        """Whether jobs may be sent to wait there, as far as others are concerned."""
        return self.turns is None or self.turns.is_turn_of(allocation)

    def _list(self, allocation: Allocation, idle: int, load: float) -> None:
        """Enter it into its cluster's heaps of allocations with room."""
        cluster = allocation.cluster
        self._unlist(allocation)
        if cluster.plain and not allocation.pinned_only:
            allocation.listed = cluster.plain
        else:
            allocation.listed = self._lanes_with_room(allocation, idle)
        allocation.listed_load = load
        for lane in allocation.listed:
            heap, first = lane.candidates, load
            if lane.width > 1:
                first = lane_load(allocation, lane, idle, load)
            heapq.heappush(heap, (first, allocation.node.order, allocation.version, allocation))
            lane.listed += 1
            if lane.queued:
                self._clusters[cluster.cluster_id] = cluster
            if len(heap) > STALE_ENTRIES + 4 * lane.listed:
                heap[:] = [entry for entry in heap if _counts(entry)]
                heapq.heapify(heap)

    def _lanes_with_room(self, allocation: Allocation, idle: int) -> tuple[Lane, ...]:
        """Return the lanes for which it has room, or idle slots from which a room can be made."""
        slots, ahead = allocation.node.slots, 0 if idle else allocation.ahead_room
        lanes = [
            lane
            for lane in allocation.cluster.lanes.values()
            if allocation.may_run(lane.width) and (idle or ahead >= min(lane.width, slots))
        ]
        if idle and any(min(lane.width, slots) > idle for lane in lanes):
            allocation.node.narrow[allocation.cluster.cluster_id] = allocation
        return tuple(lanes)

    def _unlist(self, allocation: Allocation) -> None:
        allocation.version += 1
        for lane in allocation.listed:
            lane.listed -= 1
        allocation.listed = ()
        if allocation.node.narrow:
            allocation.node.narrow.pop(allocation.cluster.cluster_id, None)

    def lane_added(self, cluster: Cluster) -> None:
        """List a cluster's nodes for a width that is new to it; costs O(its nodes)."""
        for allocation in cluster.allocations.values():
            self.offer(allocation)

    def forget(self, allocation: Allocation) -> None:
        """Take out an allocation that is no more; its jobs have been taken from it before."""
        node, cluster_id = allocation.node, allocation.cluster.cluster_id
        allocation.ready = False
        self.changed(allocation)
        self.reservations.check(allocation)
        self._unlist(allocation)
        node.watching.pop(cluster_id, None)
        node.pinning.pop(cluster_id, None)
        node.allocations.pop(cluster_id, None)
        allocation.cluster.allocations.pop(node.node_id, None)
        allocation.cluster.kept.pop(node.node_id, None)

    def forget_cluster(self, cluster: Cluster) -> None:
        """Place nothing more of this cluster."""
        self._clusters.pop(cluster.cluster_id, None)
        if self.turns is not None:
            self.turns.forget(cluster)

    def forget_node(self, node: Node) -> None:
        """Place nothing more on this node."""
        self._nodes.pop(node.node_id, None)


def _counts(entry: tuple[float, int, int, Allocation]) -> bool:
    return entry[3].version == entry[2]
