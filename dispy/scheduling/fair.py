"""Fair shares: slots in proportion to weights at every moment, and slot-seconds in the long run.

Who fills fewest slots for its weight goes first. Slots do not divide: of three, two clusters cannot
have one and a half each. So what a cluster fills counts for up to one slot more, the further its
virtual time (slot-seconds that its jobs took, by its weight) is ahead of that of the whole. Between
nothing and one slot more lie all the ways of rounding shares (Adams' and Jefferson's divisors), so
the rounding goes back and forth and each gets its share. Virtual time as in start-time fair
queueing (Goyal, Vin, Cheng 1996): who comes back after a pause starts where the whole is, and has
saved nothing up.

Of clusters whose jobs are so short that some are sent ahead, slots say little: what waits on a node
begins in whichever slot comes free there. Their time is what was measured when jobs ended, and
corrects them by as many slots as it takes. Others are charged for their slots while these are
filled, and never corrected by more than the rounding: that would swing, as slots come free late.
"""

from dataclasses import dataclass

from dispy.scheduling.policies import Policy
from dispy.scheduling.records import PREFETCH_SECONDS, Cluster, ClusterId

SCALE = 0.1  # slot-seconds ahead or behind that count for a quarter of a slot
CATCH_UP_SECONDS = 0.5  # in which short jobs make up for what was too much or too little

REMEMBERED = 0.1  # slot-seconds ahead or behind, and `Share.longest`: turns on a single slot
CORRECTED = 0.25  # slot-seconds more for each slot that it fills, lest the past outweighs now
FORGETTING = 0.95  # what is left of `Share.longest` after a batch


@dataclass(slots=True)
class Share:
    """What a cluster has had."""

    virtual: float  # slot-seconds by its weight, until `since`
    since: float
    active: bool = False  # it wants slots, or fills some
    level: int = 0  # slots that it is charged for while it fills them
    charged: float = 0.0  # slot-seconds so charged, of jobs that have not ended
    longest: float = 0.0  # seconds, of batches of jobs that ended lately
    short: bool = False  # the time of its jobs counts when they end


class FairShare(Policy):
    """Weighted shares of slots and time; costs O(1) for each event."""

    name, strict, takes_all = "fair", True, False

    def __init__(self) -> None:
        self._virtual = 0.0  # of the whole: what each active cluster should have had by its weight
        self._since = 0.0
        self._weights = 0.0  # of the active clusters
        self._level = 0  # the sum of theirs
        self._shares: dict[ClusterId, Share] = {}

    def opened(self, cluster: Cluster) -> None:
        self._pass_time()
        self._shares[cluster.cluster_id] = Share(self._virtual, self.now)

    def closed(self, cluster: Cluster) -> None:
        share = self._settle(cluster)
        self._level -= share.level
        self._activate(share, cluster, False)
        del self._shares[cluster.cluster_id]

    def changed(self, cluster: Cluster) -> None:
        self._settle(cluster)

    def ended(self, cluster: Cluster, slots: int, seconds: float) -> None:
        share, taken = self._settle(cluster), slots * seconds
        before = min(share.charged, taken)
        share.charged -= before
        if share.short:
            share.virtual += (taken - before) / cluster.weight
            self._virtual += (taken - before) / max(self._weights, cluster.weight)
        share.longest = max(seconds, share.longest * FORGETTING)
        share.short = share.longest <= PREFETCH_SECONDS

    def turn_of(self, cluster: Cluster) -> float:
        share = self._shares[cluster.cluster_id]
        if share.since != self.now or self._since != self.now:
            self._settle(cluster)
        ahead = (share.virtual - self._virtual) * cluster.weight
        counts = cluster.filled + 0.5 + 0.5 * ahead / (SCALE + abs(ahead))
        if share.short:
            counts += ahead / CATCH_UP_SECONDS
        return counts / cluster.weight

    def tell(self, cluster: Cluster) -> str:
        self._settle(cluster)
        share = 100 * cluster.weight / max(self._weights, cluster.weight)
        return f"fills {cluster.filled} slots, its share is {share:.0f} % of them"

    def _pass_time(self) -> None:
        """Bring the virtual time of the whole up to now."""
        if self._level and self._weights:
            self._virtual += self._level * (self.now - self._since) / self._weights
        self._since = self.now

    def _settle(self, cluster: Cluster) -> Share:
        """Bring a cluster's share up to now, and to the slots that it fills from now on."""
        self._pass_time()
        share = self._shares[cluster.cluster_id]
        if share.level:
            taken = share.level * (self.now - share.since)
            share.charged += taken
            share.virtual += taken / cluster.weight
        share.since = self.now
        level = 0 if share.short else cluster.filled
        self._level += level - share.level
        share.level = level
        most = (REMEMBERED + share.longest + cluster.filled * CORRECTED) / cluster.weight
        ahead = share.virtual - self._virtual
        if abs(ahead) > most:
            share.virtual = self._virtual + (most if ahead > 0 else -most)
        active = cluster.wants or cluster.filled > 0
        if active != share.active:
            self._activate(share, cluster, active)
        return share

    def _activate(self, share: Share, cluster: Cluster, active: bool) -> None:
        if active == share.active:
            return
        share.active = active
        self._weights += cluster.weight if active else -cluster.weight
        if active:
            share.virtual = max(share.virtual, self._virtual)
