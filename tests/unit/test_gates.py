"""One cluster alone, users' limits, and what is said of both."""

import pytest

from dispy.scheduling.core import Scheduling
from dispy.scheduling.fair import FairShare
from dispy.scheduling.policies import Policy
from dispy.scheduling.records import Cluster, Node


def make(core: Scheduling, *clusters: Cluster, slots: int = 4) -> Scheduling:
    core.node_joined(Node("a", "a", slots))
    for cluster in clusters:
        admit(core, cluster)
    return core


def admit(core: Scheduling, cluster: Cluster, jobs: int = 10) -> None:
    number = cluster.cluster_id
    core.cluster_opened(cluster)
    core.cluster_allocated("a", number, core.nodes["a"].slots)
    core.cluster_ready_on("a", number)
    core.jobs_submitted(number, range(number * 100, number * 100 + jobs))


def place(core: Scheduling) -> list[int]:
    """Return the jobs that were sent."""
    jobs = [job for batch in core.place(0.0) for job in batch.jobs]  # type: ignore[union-attr]
    core.check_invariants()
    return jobs


def end(core: Scheduling, *jobs: int) -> list[int]:
    for job in jobs:
        assert core.jobs_finished("a", job // 100, [job], 1.0, 0.0)
    return place(core)


def test_an_exclusive_cluster_waits_for_those_before_and_holds_up_those_after() -> None:
    core = make(Scheduling(), Cluster(1, "c1"), Cluster(2, "c2", exclusive=True), Cluster(3, "c3"))
    assert place(core) == [100, 101, 102, 103]
    assert [core.is_admitted(number) for number in (1, 2, 3, 9)] == [True, False, False, False]
    assert core.explain(2, 200, 0.0)[1] == "c2 runs exclusively: c1 must be closed before"
    assert core.explain(3, 300, 0.0)[1] == "c2 came before, and will run exclusively once it can"
    core.cluster_closed(1)
    assert place(core) == [200, 201, 202, 203]
    assert core.explain(3, 300, 0.0)[1] == (
        "c2 runs exclusively: no other cluster starts until it is closed"
    )
    core.cluster_closed(2)
    assert place(core) == [300, 301, 302, 303]


def test_pinned_jobs_wait_for_an_exclusive_cluster_too() -> None:
    core = make(Scheduling(), Cluster(1, "c1", exclusive=True), Cluster(2, "c2"))
    core.cluster_closed(2)
    admit(core, Cluster(3, "c3"), jobs=0)
    assert core.jobs_pinned(3, [300], "a") == []
    assert place(core) == [100, 101, 102, 103]
    core.cluster_closed(1)
    assert place(core) == [300]


@pytest.mark.parametrize("policy", [Policy, FairShare])
def test_all_clusters_of_a_user_have_no_more_slots_than_the_limit(policy: type[Policy]) -> None:
    core = Scheduling(policy(), owner_slots=3)
    make(core, Cluster(1, "c1", owner="ann"), Cluster(2, "c2", owner="ann"), slots=9)
    assert len(place(core)) == 3
    assert core.explain(1, 109, 0.0)[1] == "its user ann has 3 of at most 3 slots"
    admit(core, Cluster(3, "c3", owner="ben"))
    admit(core, Cluster(4, "c4"))
    sent = place(core)
    assert sum(300 <= job < 400 for job in sent) == 3
    assert len(sent) == 6
    core.owner_limited("ann", 1)
    mine = [job for number in (1, 2) for job in core.clusters[number].placed]
    assert all(job >= 400 for job in end(core, *mine[:2])), "ann has one left, and may have one"
    core.owner_limited("ann", None)
    core.cluster_closed(4)
    assert len(place(core)) == 5


def test_short_jobs_that_wait_on_a_node_count_for_the_limit() -> None:
    core = Scheduling(FairShare(), owner_slots=2)
    make(core, Cluster(1, "c1", owner="ann"))
    place(core)
    for job in range(100, 108):
        core.jobs_finished("a", 1, [job], 0.0001, 0.0)
        place(core)
    assert len(core.clusters[1].placed) == 2


def test_a_wide_job_is_not_kept_out_by_narrow_ones_below_the_limit() -> None:
    core = Scheduling(owner_slots=4)
    make(core, Cluster(1, "narrow", owner="ann"), slots=8)
    assert place(core) == [100, 101, 102, 103]
    admit(core, Cluster(2, "wide", owner="ann", width=3), jobs=1)
    assert place(core) == []
    sent: list[int] = []
    for job in (100, 101, 102, 103, 104, 105, 106, 107):
        if 200 in sent:
            break
        if job in core.clusters[1].placed:
            sent += end(core, job)
    assert 200 in sent
    assert len([job for job in sent if job < 200]) <= 2, "narrow ones went on for ever"


def test_narrow_jobs_of_its_own_cluster_do_not_pass_a_wide_one_below_the_limit() -> None:
    core = Scheduling(owner_slots=4)
    make(core, slots=8)
    admit(core, Cluster(1, "c1", owner="ann"), jobs=4)
    assert place(core) == [100, 101, 102, 103]
    core.jobs_submitted(1, range(110, 130), widths={110: 3, 111: 2})
    assert place(core) == []
    assert end(core, 100) == []
    assert end(core, 101) == []
    assert end(core, 102) == [110]
    assert end(core, 103) == []
    assert end(core, 110) == [111, 112, 113]


def test_what_is_kept_for_a_wide_job_is_free_again_when_it_is_cancelled_or_closed() -> None:
    for close in (False, True):
        core = Scheduling(owner_slots=4)
        make(core, Cluster(1, "wide", owner="ann", width=4), slots=8)
        core.jobs_submitted(1, [])
        assert place(core) == [100]
        admit(core, Cluster(2, "narrow", owner="ann"), jobs=4)
        admit(core, Cluster(3, "wider", owner="ann", width=4), jobs=1)
        assert place(core) == []
        core.cluster_closed(1)
        place(core)
        if core.clusters[3].placed:
            continue  # its turn came at once
        claimed = core.explain(3, 300, 0.0)[1]
        assert claimed.startswith("its user ann has 4 of at most 4 slots")
        end(core, 200)
        if close:
            core.cluster_closed(3)
        else:
            core.cancel(3, 300)
        place(core)
        admit(core, Cluster(5, "c5", owner="ann"), jobs=1)
        assert place(core) == [500]


def test_jobs_with_a_priority_go_first_within_their_cluster() -> None:
    core = make(Scheduling(), slots=1)
    admit(core, Cluster(1, "c1"), jobs=3)
    core.jobs_submitted(1, [150, 151, 152, 153], priorities={150: -1, 152: 5, 153: 5})
    order = place(core)
    while core.clusters[1].has_queued:
        order += end(core, order[-1])
    assert order == [152, 153, 100, 101, 102, 151, 150]
    end(core, 150)
    assert core.clusters[1].priorities == {}, "final jobs leave something behind"


def test_pinned_jobs_go_by_priority_and_so_do_those_that_come_back() -> None:
    core = make(Scheduling(), slots=1)
    admit(core, Cluster(1, "c1", reentrant=True), jobs=1)
    assert place(core) == [100]
    core.jobs_pinned(1, [150, 151, 152], "a", priorities={151: 1})
    core.jobs_submitted(1, [160], priorities={160: 9})
    core.jobs_returned("a", 1, [100], None, 0.0) if core.cluster_deallocated("a", 1) else None
    core.cluster_allocated("a", 1, 1)
    order = place(core)
    while len(order) < 5:
        order += end(core, order[-1])
    assert order == [151, 150, 152, 160, 100]


def test_explain_says_whose_turn_it_is() -> None:
    core = make(Scheduling(FairShare()), Cluster(1, "c1", weight=3.0), Cluster(2, "c2"))
    place(core)
    assert core.explain(2, 209, 0.0)[1] in (
        "it is the turn of c1, which fills 3 slots, its share is 75 % of them; "
        "c2 fills 1 slots, its share is 25 % of them",
        "it is its turn: c2 fills 1 slots, its share is 25 % of them",
    )
    core.clusters[1].priority = 2
    core.jobs_submitted(1, [190])
    assert core.explain(2, 209, 0.0)[1] == "c1 goes first: it has priority 2, c2 0"
