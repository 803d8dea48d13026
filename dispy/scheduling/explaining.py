"""Why a job waits, or where it is, in sentences for its user; decides nothing.

Asks the predicates that placement asks (`Allocation`), in the same order.
"""

from collections.abc import Collection
from itertools import chain, islice

from dispy.scheduling.gates import Gates
from dispy.scheduling.records import Allocation, Cluster, JobNumber, Lane, Node, Reservation
from dispy.scheduling.reserving import pinned_width
from dispy.scheduling.turns import Turns

NODES_TOLD = 20  # lines of nodes; the rest are counted


def explain(
    cluster: Cluster | None,
    nodes: Collection[Node],
    job: JobNumber,
    now: float,
    gates: Gates,
    turns: Turns | None,
) -> list[str]:
    """Return the lines; none for a job that is not known, because it is final."""
    if cluster is None:
        return []
    story = [f"{now - then:.1f} s ago: {what}" for then, what in cluster.stories.get(job, ())]
    if job in cluster.placed:
        return [_where(cluster.placed[job], job, now), *story]
    lane = cluster.lane_of(job)
    if job not in lane.queued and job not in cluster.pinned:
        return []
    if job in cluster.pinned:
        allocation = cluster.pinned[job]
        return [
            f"it runs on node {allocation.node.name} alone",
            *why_others_first(cluster, cluster.width_of(job), gates, turns),
            f"node {allocation.node.name}: {_why_not(allocation, lane.width)}",
            *story,
        ]
    queued = sum(len(lane.queued) for lane in cluster.lanes.values())
    return [
        f"jobs of {cluster.name} wait: {queued} for any of its nodes",
        *why_others_first(cluster, lane.width, gates, turns),
        *too_wide(cluster, [lane]),
        *_why_not_anywhere(cluster, nodes, lane.width),
        *story,
    ]


def why_others_first(cluster: Cluster, width: int, gates: Gates, turns: Turns | None) -> list[str]:
    """Return why others go first, or nobody does: as the gates and the policy have it."""
    why = gates.why(cluster, width)
    if why is not None:
        return [why]
    if turns is None:
        return []
    mine, first = turns.policy.tell(cluster), turns.first()
    if first is None or first is cluster:
        return [f"it is its turn: {cluster.name} {mine}"]
    if first.priority > cluster.priority:
        return [
            f"{first.name} goes first: it has priority {first.priority}, {cluster.name} "
            f"{cluster.priority}"
        ]
    return [
        f"it is the turn of {first.name}, which {turns.policy.tell(first)}; {cluster.name} {mine}"
    ]


def is_stuck(cluster: Cluster) -> bool:
    """Say whether a cluster has jobs, and none of them runs or is on its way to a worker."""
    there = False
    for allocation in cluster.allocations.values():
        if allocation.jobs:
            there, node = True, allocation.node
            if node.settled and not (node.crowded or node.held_back):  # of a busy one, soon
                return bool(too_wide(cluster))
    return bool(there or cluster.has_queued or cluster.pinned)


def explain_waiting(cluster: Cluster, nodes: Collection[Node], gates: Gates) -> list[str]:
    """Return one line for each node: why no waiting job of the cluster is given to it."""
    lanes = cluster.in_turn()
    width = lanes[0].width if lanes else cluster.width
    why = gates.why(cluster, width)
    first = [] if why is None else [why]
    return [*first, *too_wide(cluster), *_why_not_anywhere(cluster, nodes, width)]


def too_wide(cluster: Cluster, lanes: Collection[Lane] | None = None) -> list[str]:
    """Return one line for each width of queued jobs that no node of the cluster can run."""
    lines = []
    for lane in cluster.lanes.values() if lanes is None else lanes:
        if lane.width == 1 or not lane.queued or not cluster.allocations:
            continue
        if any(lane.width <= allocation.most for allocation in cluster.allocations.values()):
            continue
        most = max(allocation.most for allocation in cluster.allocations.values())
        count = len(lane.queued)
        lines.append(
            f"{count} {'job of' if count == 1 else 'jobs of'} {cluster.name} can run on no node: "
            f"{'it needs' if count == 1 else 'each needs'} {lane.width} processors, and of no node "
            f"may {cluster.name} use more than {most}. Start a node that has them, or ask for "
            f"less (cpus=, dispy_job_cpus=)"
        )
    return lines


def why_never_pinned(allocation: Allocation | None, width: int) -> str | None:
    """Say why jobs that are pinned to a node would never run there; None: they can."""
    if allocation is None:
        return "its node is gone"
    if allocation.refusal is None and allocation.limit and width > allocation.most:
        return f"node {allocation.node.name}: {_too_narrow(allocation, width)}"
    return allocation.refusal


def _why_not_anywhere(cluster: Cluster, nodes: Collection[Node], width: int) -> list[str]:
    if not nodes:
        return ["no node is connected"]
    told = list(islice(nodes, NODES_TOLD))
    if len(nodes) > NODES_TOLD:  # those first that it has
        own = [allocation.node for allocation in islice(cluster.allocations.values(), NODES_TOLD)]
        others = (node for node in told if node.node_id not in cluster.allocations)
        told = list(islice(chain(own, others), NODES_TOLD))
    lines = [f"node {node.name}: {_why_not_there(cluster, node, width)}" for node in told]
    if len(nodes) > NODES_TOLD:
        lines.append(f"and {len(nodes) - NODES_TOLD} nodes more")
    return lines


def _too_narrow(allocation: Allocation, width: int) -> str:
    node, name = allocation.node, allocation.cluster.name
    if width > node.capacity:
        return f"a job needs {width} processors, and it has {node.capacity}"
    return f"a job needs {width} processors, and {name} may use {allocation.limit} there"


def _where(allocation: Allocation, job: JobNumber, now: float) -> str:
    place = list(allocation.jobs).index(job)
    sent = f"sent to node {allocation.node.name} {now - allocation.jobs[job]:.1f} s ago"
    if not allocation.node.settled:
        return f"{sent}; {_tell_away(allocation.node)}"
    if allocation.node.crowded:
        return f"{sent}; it waits there for other clients' jobs: {allocation.node.crowded}"
    if allocation.node.held_back:
        return f"{sent}; if it has not begun, it waits there: {allocation.node.held_back}"
    if _runs(allocation, place):
        return f"{sent}; as far as known it runs"
    return f"{sent}; it waits there behind {place} jobs of {allocation.cluster.name}"


def _runs(allocation: Allocation, place: int) -> bool:
    """Whether the job at this place, in the order of sending, has found slots of its node."""
    cluster, slots = allocation.cluster, allocation.node.slots
    if cluster.plain:
        return place < allocation.fills
    first = islice(allocation.jobs, place + 1)
    return sum(min(cluster.width_of(job), slots) for job in first) <= allocation.fills


def _why_not_there(cluster: Cluster, node: Node, width: int) -> str:
    allocation = cluster.allocations.get(node.node_id)
    if allocation is None:
        return f"not one that {cluster.name} may use, or it has not been decided yet"
    return _why_not(allocation, width)


def _why_not(allocation: Allocation, width: int) -> str:
    """Name the first predicate that keeps a job away."""
    node, name = allocation.node, allocation.cluster.name
    if not node.settled:
        return _tell_away(node)
    if allocation.refusal is not None:
        return f"it cannot run {name}: {allocation.refusal}"
    if allocation.leaving:
        count = len(allocation.jobs)
        after = f", when {count} jobs there have ended" if count else ""
        return f"{name} is being closed there, and then set up again{after}"
    if not allocation.ready:
        return f"{name} is being set up there"
    if node.drained:
        return f"it is given no new jobs: {node.drained}"
    if allocation.full:
        return allocation.full
    if node.held_back:
        return f"it starts no jobs now: {node.held_back}"
    if not allocation.limit:
        return f"{name} may use none of its processors"
    if allocation.pinned_only:
        return f"it is deallocated for {name}: only jobs that were submitted for it run there"
    if width > allocation.most:
        return _too_narrow(allocation, width)
    if node.reserved is not None and not node.crowded:
        return _kept(node.reserved)
    if allocation.idle_room >= min(width, node.slots) and not node.crowded:
        if not allocation.cluster.may_start(width):
            return f"{allocation.idle_room} of its processors are free"
        return "it is about to get a job"
    if allocation.is_full and allocation.limit < node.slots:
        return f"{name} runs the {allocation.limit} jobs at once there that it may"
    return _busy_with(node)


def _tell_away(node: Node) -> str:
    if not node.away:
        return "the link to it has just been made; both sides compare what they hold"
    return (
        f"its link is broken ({node.away}), and is being made again; jobs that it has go on there"
    )


def _kept(reservation: Reservation) -> str:
    allocation, lane = reservation.allocation, reservation.lane
    width = pinned_width(allocation) if lane is None else lane.width
    return (
        f"it keeps what comes free of its {allocation.node.slots} processors for a job of "
        f"{allocation.cluster.name} that needs {width}; {allocation.node.idle} are free"
    )


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
