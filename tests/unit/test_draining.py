"""A node that is drained gets no new jobs; what runs there ends, and what has not begun goes on."""

from dispy.scheduling.actions import Recall, RunBatch
from dispy.scheduling.core import Scheduling
from dispy.scheduling.fair import FairShare
from dispy.scheduling.policies import Policy
from dispy.scheduling.records import Cluster, Node

WHY = "drained by ann@head"


def two_nodes(policy: Policy | None = None) -> Scheduling:
    core = Scheduling(policy)
    core.cluster_opened(Cluster(1, "work"))
    for name in ("a", "b"):
        core.node_joined(Node(name, name, 1))
        core.cluster_allocated(name, 1, 1)
        core.cluster_ready_on(name, 1)
    return core


def sent(core: Scheduling) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for each in core.place(0.0):
        if isinstance(each, RunBatch):
            found[each.node_id] = (*found.get(each.node_id, ()), *each.jobs)
    core.check_invariants()
    return found


def test_jobs_go_to_other_nodes_until_it_is_used_again() -> None:
    for policy in (None, FairShare()):
        core = two_nodes(policy)
        assert core.drains.drain(core.nodes["a"], WHY) == []
        core.jobs_submitted(1, [1, 2])
        assert sent(core) == {"b": (1,)}
        lines = core.explain(1, 2, 0.0)
        assert f"node a: it is given no new jobs: {WHY}" in lines
        core.drains.drain(core.nodes["a"], "")
        assert sent(core) == {"a": (2,)}


def test_what_runs_there_ends_and_what_has_not_begun_is_called_back() -> None:
    core = two_nodes()
    core.jobs_submitted(1, [1, 2])
    sent(core)
    core.jobs_finished("a", 1, [1], 0.0001, 0.0)
    core.jobs_submitted(1, range(3, 60))
    there = sent(core)["a"]
    assert len(there) > 1, "some wait there"
    (recall,) = core.drains.drain(core.nodes["a"], WHY)
    assert isinstance(recall, Recall)
    assert recall.jobs == there
    core.jobs_returned("a", 1, there[1:], None, 1.0)
    assert "a" not in sent(core)
    assert core.jobs_finished("a", 1, [there[0]], 0.0001, 1.0) == [there[0]]
    assert "a" not in sent(core)


def test_what_is_for_it_alone_waits_and_a_broken_link_changes_nothing() -> None:
    core = two_nodes()
    core.drains.drain(core.nodes["a"], WHY)
    assert core.jobs_pinned(1, [1], "a") == []
    assert sent(core) == {}
    assert core.explain(1, 1, 0.0)[:1] == ["it runs on node a alone"]
    core.node_silent("a", "it fell silent")
    core.node_settled("a", [], 1.0)
    assert sent(core) == {}
    core.drains.drain(core.nodes["a"], "")
    assert sent(core) == {"a": (1,)}


def test_slots_that_it_collects_for_a_wide_job_are_let_go() -> None:
    core = Scheduling(FairShare())
    for number, width in ((1, 1), (2, 2)):
        core.cluster_opened(Cluster(number, f"of{width}", width=width))
    for name in ("a", "b"):
        core.node_joined(Node(name, name, 2))
        for number in (1, 2):
            core.cluster_allocated(name, number, 2)
            core.cluster_ready_on(name, number)
    core.jobs_submitted(1, range(4))
    sent(core)
    core.jobs_submitted(2, [10])
    sent(core)
    for name in ("a", "b"):
        core.jobs_finished(name, 1, [next(iter(core.nodes[name].allocations[1].jobs))], 1.0, 1.0)
        sent(core)
    (kept,) = (node for node in core.nodes.values() if node.reserved is not None)
    core.drains.drain(kept, WHY)
    assert kept.reserved is None
    sent(core)
    other = next(node for node in core.nodes.values() if node is not kept)
    core.jobs_finished(other.node_id, 1, list(other.allocations[1].jobs), 1.0, 2.0)
    assert sent(core) == {other.node_id: (10,)}
