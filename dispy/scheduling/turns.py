"""Who of those in line for a node goes first, where turns are strict: found without a scan.

Up to LOOK in line, all are compared. Of more, the first LOOK, who have waited longest, and whoever
of the line is among the LOOK first of all clusters. So it is exactly the first of all unless many
wait for many different nodes; then it is one of the best, and as the line moves on nobody is passed
over for ever.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import islice

from dispy.scheduling.policies import Policy
from dispy.scheduling.records import Allocation, Cluster, ClusterId, Node

LOOK = 8  # clusters that are compared, of either kind
Turn = tuple[int, float, ClusterId]  # the least goes first


class Turns:
    """Keeps the clusters that want slots in order; a change costs O(log clusters) comparisons."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._order: list[Turn] = []  # as it was at the last change of each
        self._entries: dict[ClusterId, Turn] = {}
        self._clusters: dict[ClusterId, Cluster] = {}  # that are in order

    def turn_of(self, cluster: Cluster) -> Turn:
        """Return what decides between it and others, as it is now."""
        return (-cluster.priority, self.policy.turn_of(cluster), cluster.cluster_id)

    def changed(self, cluster: Cluster) -> None:
        """Take note of a cluster that has, or wants, another number of slots."""
        self.policy.changed(cluster)
        entry = self.turn_of(cluster) if cluster.wants and cluster.may_start(1) else None
        before = self._entries.get(cluster.cluster_id)
        if entry == before:
            return
        if before is not None:
            del self._order[bisect_left(self._order, before)]
        if entry is None:
            del self._entries[cluster.cluster_id], self._clusters[cluster.cluster_id]
        else:
            insort(self._order, entry)
            self._entries[cluster.cluster_id] = entry
            self._clusters[cluster.cluster_id] = cluster

    def forget(self, cluster: Cluster) -> None:
        """Take out a cluster that is closed."""
        self._clusters.pop(cluster.cluster_id, None)
        before = self._entries.pop(cluster.cluster_id, None)
        if before is not None:
            del self._order[bisect_left(self._order, before)]

    def choose(self, node: Node) -> Allocation:
        """Return who in a node's line goes first; before all, who only stands in the way."""
        chosen, first = None, (0, 0.0, 0)
        for allocation in self._looked_at(node):
            if not allocation.wants:
                return allocation
            turn = self.turn_of(allocation.cluster)
            if chosen is None or turn < first:
                chosen, first = allocation, turn
        assert chosen is not None, "who chooses has looked whether there is a line"
        return chosen

    def is_turn_of(self, allocation: Allocation) -> bool:
        """Whether nobody in line goes before it; then it may have jobs wait on the node."""
        mine = self.turn_of(allocation.cluster)
        return not any(
            other is not allocation and other.wants and self.turn_of(other.cluster) < mine
            for other in self._looked_at(allocation.node)
        )

    def is_contended(self, allocation: Allocation) -> bool:
        """Whether another in line has jobs that may run on its node."""
        line = self._looked_at(allocation.node)
        return any(other is not allocation and other.wants for other in line)

    def first(self) -> Cluster | None:
        """Return the cluster that goes first of all, as it was at its last change."""
        return self._clusters[self._order[0][2]] if self._order else None

    def _looked_at(self, node: Node) -> Iterator[Allocation]:
        line = node.watching
        yield from islice(line.values(), LOOK)
        if len(line) > LOOK:
            for _, _, cluster_id in islice(self._order, LOOK):
                if cluster_id in line:
                    yield line[cluster_id]
