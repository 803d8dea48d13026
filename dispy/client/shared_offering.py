"""Nodes of a shared scheduler, offered to clusters: by rules, where these say all.

A cluster whose allocations run nothing of the user's says which nodes it may use, and the scheduler
gives it some of them; it is then told of these alone. Any other cluster has the session told of all
nodes, and decides about each.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dispy.client.nodes import NodeAllocate
from dispy.client.offering import Offering
from dispy.client.rules import rules_of

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster
    from dispy.client.remote import RemoteScheduler
    from dispy.client.session import Session
    from dispy.scheduler.nodes import RemoteNode


class SharedOffering(Offering):
    """As `Offering`, of a session at a shared scheduler."""

    def __init__(self, session: "Session", scheduler: "RemoteScheduler") -> None:
        super().__init__(session)
        self._scheduler = scheduler

    def offer_known(
        self,
        cluster: "JobCluster",
        wanted: Sequence[NodeAllocate] = (),
        again: Sequence[str] = (),
    ) -> None:
        """As `Offering.offer_known`; rules hold for nodes that are not known here too."""
        if wanted:
            self._scheduler.change_rules(cluster._number, rules_of(cluster))
        super().offer_known(cluster, wanted, again)

    def _ask(self, cluster: "JobCluster", node: "RemoteNode") -> None:
        cpus, own = cluster._allocate(node)
        place = cluster._number, node.node_id
        if rules_of(cluster) is None or place in self._scheduler.closing.forgiven:
            self._session.hub.post(lambda: self.allocate(cluster, node.node_id, cpus, own))
        else:
            self._session.hub.post(lambda: self._scheduler.translate(cluster._number, node))

    def deallocate(self, cluster: "JobCluster", node_id: str) -> None:
        """As `Offering.deallocate`; returns when the scheduler has done it."""
        super().deallocate(cluster, node_id)
        self._session.settle()
