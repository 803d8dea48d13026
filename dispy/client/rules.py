"""Which nodes a cluster may use, as a shared scheduler is told."""

from typing import TYPE_CHECKING

from dispy.model.rules import Rule

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster


def rules_of(cluster: "JobCluster") -> list[Rule] | None:
    """Return which nodes a cluster may use; None: it is asked about each."""
    wanted = cluster._search.wanted
    if not all(allocation.is_default for allocation in cluster.allocations):
        return None
    return [
        Rule(each.ip_addr, each.port or (wanted.node_port if each.is_pattern else
             wanted.port_of(each)), each.cpus)
        for each in cluster.allocations if each.ip_addr
    ]  # fmt: skip
