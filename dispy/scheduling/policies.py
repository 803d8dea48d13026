"""Whose turn it is: how clusters are ordered that want the same slots.

A policy gives each cluster a number, and the least goes first. It is told what happens to clusters,
and looks at nothing else. By load (the default) the order is looked at only among
a few, and jobs are sent ahead beside those of others; all other policies are strict
(`dispy.scheduling.turns`).
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from dispy.scheduling.records import Cluster, ClusterId, JobNumber

ARRIVALS_KEPT = 4096  # of a cluster; jobs that come later count as if they had come with the last


class Policy:
    """By load: whoever has fewest slots goes first, as it is in a program of its own."""

    name = "load"
    strict = False
    takes_all = True  # who is first gets what it wants; False: a part, and then it is asked anew

    now = 0.0  # the second of the event

    def opened(self, cluster: Cluster) -> None:
        """Take note of a new cluster, whose `opened` is its number."""

    def closed(self, cluster: Cluster) -> None:
        """Forget a cluster."""

    def submitted(self, cluster: Cluster, jobs: Sequence[JobNumber]) -> None:
        """Take note of new jobs, before they are queued."""

    def changed(self, cluster: Cluster) -> None:
        """Take note that it has, or wants, another number of slots; only where it is strict."""

    def served(self, cluster: Cluster) -> None:
        """Take note that it has been given slots."""

    def ended(self, cluster: Cluster, slots: int, seconds: float) -> None:
        """Take note of jobs that needed so many slots together, for so long on average."""

    def turn_of(self, cluster: Cluster) -> float:
        """Return its number; only while it has jobs that wait."""
        return cluster.slots_out

    def tell(self, cluster: Cluster) -> str:
        """Say by what its turn is decided, as it is now."""
        return f"has {cluster.slots_out} slots"


class EarlyCluster(Policy):
    """Who was opened first has all that it wants (dispy 4: --early_cluster_scheduler)."""

    name, strict = "early", True

    def turn_of(self, cluster: Cluster) -> float:
        return cluster.opened

    def tell(self, cluster: Cluster) -> str:
        return f"was opened as number {cluster.opened}"


class LongestUnserved(Policy):
    """In rounds: who was given slots least recently (dispy 4: --fair_cluster_scheduler)."""

    name, strict, takes_all = "rounds", True, False

    def __init__(self) -> None:
        self._round = 0
        self._served: dict[ClusterId, int] = {}

    def opened(self, cluster: Cluster) -> None:
        self._served[cluster.cluster_id] = 0

    def closed(self, cluster: Cluster) -> None:
        del self._served[cluster.cluster_id]

    def served(self, cluster: Cluster) -> None:
        self._round += 1
        self._served[cluster.cluster_id] = self._round

    def turn_of(self, cluster: Cluster) -> float:
        return self._served[cluster.cluster_id]

    def tell(self, cluster: Cluster) -> str:
        served = self._served[cluster.cluster_id]
        if not served:
            return "was given none so far"
        return f"was given some {self._round - served} turns ago"


class FirstCome(Policy):
    """Who has the job that waits longest (the default of dispy 4's scheduler).

    Jobs of a cluster that come with no other cluster's between them have one arrival.
    """

    name, strict = "first", True

    def __init__(self) -> None:
        self._arrival = 0
        self._last: ClusterId | None = None  # whose jobs came last
        # Of each cluster: (the last job that came then, arrival), the oldest first.
        self._arrivals: dict[ClusterId, deque[tuple[JobNumber, int]]] = {}

    def opened(self, cluster: Cluster) -> None:
        self._arrivals[cluster.cluster_id] = deque()

    def closed(self, cluster: Cluster) -> None:
        del self._arrivals[cluster.cluster_id]

    def submitted(self, cluster: Cluster, jobs: Sequence[JobNumber]) -> None:
        if not jobs:
            return
        arrivals = self._arrivals[cluster.cluster_id]
        if self._last != cluster.cluster_id:
            self._arrival += 1
            self._last = cluster.cluster_id
        same = arrivals and (arrivals[-1][1] == self._arrival or len(arrivals) >= ARRIVALS_KEPT)
        arrival = arrivals.pop()[1] if same else self._arrival
        arrivals.append((jobs[-1], arrival))

    def turn_of(self, cluster: Cluster) -> float:
        arrivals = self._arrivals[cluster.cluster_id]
        heads = [lane.head for lane in cluster.lanes.values() if lane.queued]
        oldest = min(heads) if heads else next(iter(cluster.pinned), 0)
        if not arrivals:
            return self._arrival
        if cluster.priorities:  # older ones may wait behind it
            at = bisect_left(arrivals, oldest, key=lambda entry: entry[0])
            return arrivals[min(at, len(arrivals) - 1)][1]
        while len(arrivals) > 1 and arrivals[0][0] < oldest:
            arrivals.popleft()
        return arrivals[0][1]

    def tell(self, cluster: Cluster) -> str:
        before = self._arrival - int(self.turn_of(cluster))
        return f"has a job that came before {before} later batches of others"
