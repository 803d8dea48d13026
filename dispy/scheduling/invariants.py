"""What always holds between two events once `place` has run; tests ask after each event."""

from collections import Counter
from collections.abc import Collection

from dispy.scheduling.records import Account, Allocation, Cluster, JobNumber, Lane, Node
from dispy.scheduling.reserving import pinned_width


def check_invariants(clusters: Collection[Cluster], nodes: Collection[Node]) -> None:
    """Raise AssertionError where the state contradicts itself; costs O(jobs)."""
    places: list[JobNumber] = []
    for cluster in clusters:
        places += cluster.placed
        for lane in cluster.lanes.values():
            places += lane.queued
            _check_lane(cluster, lane)
        _check_cluster(cluster)
    for node in nodes:
        _check_node(node)
        for allocation in node.allocations.values():
            jobs = [job for job in allocation.pinned if allocation.cluster.pinned.get(job)]
            assert len(jobs) == allocation.pinned_waiting, "queued pinned jobs are miscounted"
            places += jobs
    assert len(places) == len(set(places)), "a job is in two places"
    for account in {id(c.account): c.account for c in clusters if c.account}.values():
        _check_account(account, [c for c in clusters if c.account is account])
    exclusive = [cluster for cluster in clusters if cluster.admitted and cluster.exclusive]
    assert not exclusive or sum(c.admitted for c in clusters) == 1, "it does not run exclusively"


def _check_account(account: Account, clusters: Collection[Cluster]) -> None:
    out = sum(c.slots_out + c.reserved for c in clusters)
    assert account.out == out, "an owner's slots are miscounted"
    claim = account.claim
    assert claim is None or claim.cluster_id in account.parked, "what is kept is for nobody"


def _check_lane(cluster: Cluster, lane: Lane) -> None:
    assert lane.queued <= set(lane), "a queued job has lost its place"
    assert all(cluster.lane_of(job) is lane for job in lane.queued), "a job is in another's lane"
    listed = [entry for entry in lane.candidates if entry[3].version == entry[2]]
    assert len(listed) == lane.listed, "listed allocations are miscounted"
    assert {id(entry[3]) for entry in listed} == {
        id(allocation) for allocation in cluster.allocations.values() if lane in allocation.listed
    }, "an allocation is listed without an entry"
    assert len(lane.reservations) <= len(lane.queued), "more is reserved than is queued"
    for node_id, allocation in lane.reservations.items():
        reservation = allocation.node.reserved
        assert allocation.node.node_id == node_id
        assert reservation is not None, "a node knows nothing of its reservation"
        assert (reservation.allocation, reservation.lane) == (allocation, lane)


def _check_cluster(cluster: Cluster) -> None:
    for allocation in cluster.allocations.values():
        assert allocation.node.allocations[cluster.cluster_id] is allocation
        assert all(cluster.placed[job] is allocation for job in allocation.jobs)
        assert not (allocation.leaving and allocation.is_usable), "a node is left and used"
        widths = Counter(cluster.widths[job] for job in allocation.jobs if job in cluster.widths)
        assert widths == allocation.others, "wide jobs are miscounted"
        if allocation.is_usable and allocation.idle_room:
            _check_idle(cluster, allocation)
    assert len(cluster.placed) == sum(len(a.jobs) for a in cluster.allocations.values())
    assert cluster.cancelling.keys() <= cluster.placed.keys(), "what is cancelled is on no node"
    reserved = [a.node.reserved for a in cluster.allocations.values()]
    mine = [r.slots for r in reserved if r is not None and r.allocation.cluster is cluster]
    assert cluster.reserved == sum(mine), "reserved slots are miscounted"
    if cluster.kept:
        account = cluster.account
        assert not cluster.is_free, "a job is kept for nothing"
        parked = account is None or cluster.cluster_id in account.parked
        assert parked or not cluster.admitted, "nobody would wake it"
    if not cluster.admitted:
        assert not cluster.placed, "a cluster runs beside an exclusive one"
    filled = sum(a.fills for a in cluster.allocations.values()) if cluster.strict else 0
    assert cluster.filled == filled, "filled slots are miscounted"
    assert cluster.slots_out == sum(map(cluster.width_of, cluster.placed)), "slots are miscounted"
    assert all(job in cluster.placed or job in a.pinned for job, a in cluster.pinned.items())


def _check_idle(cluster: Cluster, allocation: Allocation) -> None:
    """A node idles for a cluster: either nothing of it would fit, or nothing waits."""
    name, slots, waiting = allocation.node.name, allocation.node.slots, allocation.pinned_waiting
    assert not waiting or allocation.node.node_id in cluster.kept, f"{name} idles, pinned jobs wait"
    for lane in cluster.in_turn():
        if not allocation.may_run(lane.width):
            continue
        if not cluster.may_start(lane.width):
            account = cluster.account
            woken = account is None or cluster.cluster_id in account.parked
            assert woken or not cluster.admitted, "nobody would wake it"
            break  # younger ones of another width do not go before it
        if cluster.account is not None and cluster.account.claim is cluster:
            break  # for an older one, of a width that this node has not
        assert allocation.idle_room < min(lane.width, slots), f"{name} idles, jobs wait"
        assert len(lane.reservations) == len(lane.queued), f"{name} is collected for nobody"
    for lane in cluster.lanes.values():
        if not lane.queued and allocation.may_run(lane.width):
            found = lane in allocation.listed or allocation.node.node_id in cluster.kept
            assert found, f"nobody would find {name} idle"


def _check_node(node: Node) -> None:
    allocations = node.allocations.values()
    assert node.count == sum(a.demand for a in allocations), "jobs there are miscounted"
    assert node.busy == sum(a.fills for a in allocations), "busy is miscounted"
    for allocation in allocations:
        most = min(allocation.demand, allocation.cap)
        assert allocation.fills <= most, "more is filled than there is"
        assert allocation.fills == most or allocation.cluster.strict, "busy is miscounted"
    if node.reserved is None:
        assert not node.pinning, "pinned jobs were not looked at"
        assert not (node.watching and node.busy < node.slots), "a line was not served"
        return
    allocation, lane = node.reserved.allocation, node.reserved.lane
    assert node.allocations[allocation.cluster.cluster_id] is allocation
    assert allocation.is_usable, "a node is reserved for what it cannot run"
    if lane is None:
        assert allocation.pinned_waiting, "a node is reserved for nobody"
        width = pinned_width(allocation)
    else:
        assert allocation.may_run(lane.width), "a node is reserved for what it cannot run"
        assert lane.reservations[node.node_id] is allocation
        width = min(lane.width, node.slots)
    assert allocation.free_room < width, "a wide job that fits waits"
