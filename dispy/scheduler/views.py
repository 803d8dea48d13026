"""What a scheduler has, as tables of plain values for operators: nodes, clusters, owners, clients.

Their names and units are stated in docs/scheduler.rst; programs read them.
"""

from collections.abc import Iterable
from time import monotonic
from typing import Any

from dispy.scheduler.awaiting import Awaiting
from dispy.scheduler.client import Client
from dispy.scheduler.names import name_of_cluster
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduling.records import Cluster, Node

UNKNOWN = "unknown"  # the owner of a cluster whose program did not say


def view_of_node(remote: RemoteNode, node: Node) -> dict[str, Any]:
    """Return what is known of a node."""
    jobs = sum(len(allocation.jobs) for allocation in node.allocations.values())
    sent, received = remote.traffic()
    state, why = _state(remote, node, jobs)
    return {
        "id": remote.node_id, "name": remote.name, "ip_addr": remote.ip_addr, "port": remote.port,
        "state": state, "why": why, "processors": remote.cpus, "slots": node.slots,
        "busy": min(node.busy, node.slots), "jobs": jobs,
        "clusters": sum(1 for each in node.allocations.values() if each.ready),
        "jobs_done": remote.jobs_done, "run_seconds": round(remote.run_seconds, 3),
        "sent_bytes": sent, "received_bytes": received, "version": remote.hello.version,
        "python": remote.python, "platform": remote.hello.platform,
    }  # fmt: skip


def _state(remote: RemoteNode, node: Node, jobs: int) -> tuple[str, str]:
    """Return a word for a node's state, and why it is not ready."""
    if not remote.settled:
        away = remote.away
        return "away", "" if away is None else away.lines(monotonic())
    if node.drained:
        return ("draining" if jobs else "drained"), node.drained
    if node.held_back:
        return "held back", node.held_back
    return "ready", ""


def view_of_cluster(
    cluster: Cluster, client: Client | None, slots: int, awaiting: Awaiting
) -> dict[str, Any]:
    """Return what is known of a cluster; slots: of all nodes. awaiting: jobs that also wait."""
    return {
        "cluster": name_of_cluster(cluster.cluster_id), "name": cluster.name,
        "owner": cluster.owner or UNKNOWN, "client": "" if client is None else client.name,
        "priority": cluster.priority, "weight": cluster.weight, "exclusive": cluster.exclusive,
        "admitted": cluster.admitted, "processors": cluster.width,
        "waiting": _waiting(cluster, awaiting), "on_nodes": len(cluster.placed),
        "slots": _filled(cluster), "share": _part(_filled(cluster), slots),
        "nodes": len(cluster.allocations), "mean_seconds": cluster.duration,
    }  # fmt: skip


def views_of_owners(
    clusters: Iterable[Cluster], slots: int, awaiting: Awaiting
) -> list[dict[str, Any]]:
    """Return what each owner's clusters have together, whoever has most first."""
    found: dict[str, dict[str, Any]] = {}
    for cluster in clusters:
        owner = cluster.owner or UNKNOWN
        view = found.setdefault(
            owner, {"owner": owner, "clusters": 0, "waiting": 0, "on_nodes": 0, "slots": 0}
        )
        view["clusters"] += 1
        view["waiting"] += _waiting(cluster, awaiting)
        view["on_nodes"] += len(cluster.placed)
        view["slots"] += _filled(cluster)
        view["limit"] = None if cluster.account is None else cluster.account.limit
    for view in found.values():
        view["share"] = _part(view["slots"], slots)
    return sorted(found.values(), key=lambda view: -view["slots"])


def view_of_client(client: Client) -> dict[str, Any]:
    """Return what is known of a client program."""
    link = client.outbox.link
    return {
        "client": client.slot, "name": client.name, "connected": link is not None,
        "address": "" if link is None else link.peer_address, "clusters": len(client.clusters),
        "untaken": len(client.outbox), "attachable": bool(client.holder),
    }  # fmt: skip


def _waiting(cluster: Cluster, awaiting: Awaiting) -> int:
    """Return how many of its jobs are on no node, for lack of what they need too."""
    queued = sum(len(lane.queued) for lane in cluster.lanes.values())
    pinned = len(cluster.pinned.keys() - cluster.placed.keys())
    return queued + pinned + len(awaiting.jobs_of(cluster.cluster_id))


def _filled(cluster: Cluster) -> int:
    """Return how many slots its jobs fill; the core counts that by strict policies alone."""
    if cluster.strict:
        return cluster.filled
    return sum(allocation.fills for allocation in cluster.allocations.values())


def _part(slots: int, of: int) -> float:
    return round(slots / of, 4) if of else 0.0
