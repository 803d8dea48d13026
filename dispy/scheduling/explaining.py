"""Why a job waits, or where it is, in sentences for its user; decides nothing.

Asks the predicates that placement asks (`Allocation`), in the same order.
"""

from collections.abc import Collection

from dispy.scheduling.records import Allocation, Cluster, JobNumber, Node

NODES_TOLD = 20  # lines of nodes; the rest are counted


def explain(
    cluster: Cluster | None, nodes: Collection[Node], job: JobNumber, now: float
) -> list[str]:
    """Return the lines; none for a job that is not known, because it is final."""
    if cluster is None:
        return []
    story = [f"{now - then:.1f} s ago: {what}" for then, what in cluster.stories.get(job, ())]
    if job in cluster.placed:
        return [_where(cluster.placed[job], job, now), *story]
    if job not in cluster.queued and job not in cluster.pinned:
        return []
    if job in cluster.pinned:
        allocation = cluster.pinned[job]
        return [
            f"it runs on node {allocation.node.name} alone",
            f"node {allocation.node.name}: {_why_not(allocation)}",
            *story,
        ]
    return [
        f"jobs of {cluster.name} wait: {len(cluster.queued)} for any of its nodes",
        *explain_waiting(cluster, nodes),
        *story,
    ]


def is_stuck(cluster: Cluster) -> bool:
    """Say whether a cluster has jobs, and none of them runs or is on its way to a worker."""
    there = [a for a in cluster.allocations.values() if a.jobs]
    if any(a.node.settled and not (a.node.crowded or a.node.held_back) for a in there):
        return False
    return bool(there or cluster.queued or cluster.pinned)


def explain_waiting(cluster: Cluster, nodes: Collection[Node]) -> list[str]:
    """Return one line for each node: why no waiting job of the cluster is given to it."""
    if not nodes:
        return ["no node is connected"]
    told = list(nodes)[:NODES_TOLD]
    lines = [f"node {node.name}: {_why_not_there(cluster, node)}" for node in told]
    if len(nodes) > NODES_TOLD:
        lines.append(f"and {len(nodes) - NODES_TOLD} nodes more")
    return lines


def _where(allocation: Allocation, job: JobNumber, now: float) -> str:
    place = list(allocation.jobs).index(job)
    sent = f"sent to node {allocation.node.name} {now - allocation.jobs[job]:.1f} s ago"
    if not allocation.node.settled:
        return f"{sent}; the link to it is broken, and is being made again"
    if allocation.node.crowded:
        return f"{sent}; it waits there for other clients' jobs: {allocation.node.crowded}"
    if allocation.node.held_back:
        return f"{sent}; if it has not begun, it waits there: {allocation.node.held_back}"
    if place < allocation.fills:
        return f"{sent}; as far as known it runs"
    return f"{sent}; it waits there behind {place} jobs of {allocation.cluster.name}"


def _why_not_there(cluster: Cluster, node: Node) -> str:
    allocation = cluster.allocations.get(node.node_id)
    if allocation is None:
        return f"not one that {cluster.name} may use, or it has not been decided yet"
    return _why_not(allocation)


def _why_not(allocation: Allocation) -> str:
    """Name the first predicate that keeps a job away."""
    node, name = allocation.node, allocation.cluster.name
    if not node.settled:
        return "the link to it is broken, or has just been made; both sides compare what they hold"
    if allocation.refusal is not None:
        return f"it cannot run {name}: {allocation.refusal}"
    if allocation.leaving:
        count = len(allocation.jobs)
        after = f", when {count} jobs there have ended" if count else ""
        return f"{name} is being closed there, and then set up again{after}"
    if not allocation.ready:
        return f"{name} is being set up there"
    if node.held_back:
        return f"it starts no jobs now: {node.held_back}"
    if not allocation.limit:
        return f"{name} may use none of its processors"
    if allocation.idle_room and not node.crowded:
        return "it is about to get a job"
    if allocation.is_full and allocation.limit < node.slots:
        return f"{name} runs the {allocation.limit} jobs at once there that it may"
    return _busy_with(node)


def _busy_with(node: Node) -> str:
    if node.crowded:
        return f"all its processors are busy with other clients' jobs: {node.crowded}"
    counts = [
        f"{len(allocation.jobs)} of {allocation.cluster.name}"
        for allocation in node.allocations.values()
        if allocation.jobs
    ]
    shared = f"; {node.owners} clients share it" if node.owners > 1 else ""
    return f"its {node.slots} processors are busy with jobs: {', '.join(counts)}{shared}"
