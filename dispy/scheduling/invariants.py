"""What always holds between two events once `place` has run; tests ask after each event."""

from collections.abc import Collection

from dispy.scheduling.records import Cluster, JobNumber, Node


def check_invariants(clusters: Collection[Cluster], nodes: Collection[Node]) -> None:
    """Raise AssertionError where the state contradicts itself; costs O(jobs)."""
    places: list[JobNumber] = []
    for cluster in clusters:
        places += [*cluster.queued, *cluster.placed]
        _check_cluster(cluster)
    for node in nodes:
        _check_node(node)
        for allocation in node.allocations.values():
            jobs = [job for job in allocation.pinned if allocation.cluster.pinned.get(job)]
            assert len(jobs) == allocation.pinned_waiting, "queued pinned jobs are miscounted"
            places += jobs
    assert len(places) == len(set(places)), "a job is in two places"


def _check_cluster(cluster: Cluster) -> None:
    assert cluster.queued <= set(cluster.queue), "a queued job has lost its place"
    listed = [entry for entry in cluster.candidates if entry[3].version == entry[2]]
    assert len(listed) == cluster.listed, "listed allocations are miscounted"
    assert {id(entry[3]) for entry in listed} == {
        id(allocation) for allocation in cluster.allocations.values() if allocation.listed
    }, "an allocation is listed without an entry"
    for allocation in cluster.allocations.values():
        name = allocation.node.name
        assert allocation.node.allocations[cluster.cluster_id] is allocation
        assert all(cluster.placed[job] is allocation for job in allocation.jobs)
        assert not (allocation.leaving and allocation.is_usable), f"{name} is left and used"
        if cluster.queued or allocation.pinned_waiting:
            assert not (allocation.is_usable and allocation.idle_room), f"{name} idles, jobs wait"
        elif allocation.is_usable and allocation.idle_room:
            assert allocation.listed, f"nobody would find {name} idle"
    assert len(cluster.placed) == sum(len(a.jobs) for a in cluster.allocations.values())
    assert all(job in cluster.placed or job in a.pinned for job, a in cluster.pinned.items())


def _check_node(node: Node) -> None:
    allocations = node.allocations.values()
    assert node.count == sum(len(a.jobs) for a in allocations), "jobs there are miscounted"
    assert node.busy == sum(min(len(a.jobs), a.cap) for a in allocations), "busy is miscounted"
    assert not node.pinning, "pinned jobs were not looked at"
    assert not (node.watching and node.busy < node.slots), "a line was not served"
