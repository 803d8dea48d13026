"""Jobs that run again after their process or their node has ended, and nodes that are blamed."""

import pytest

from dispy.scheduling.actions import GiveUp, Requeued
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Cluster, Node
from dispy.scheduling.retrying import BLAMED_AFTER, DEATHS


def make(*nodes: str, reentrant: bool = False, retries: int | None = None) -> Scheduling:
    core = Scheduling()
    core.cluster_opened(Cluster(1, "compute", reentrant, retries=retries))
    for name in nodes:
        core.node_joined(Node(name, name, 1))
        core.cluster_allocated(name, 1, 1)
        core.cluster_ready_on(name, 1)
    return core


def die(core: Scheduling, job: int) -> bool:
    """Have the process of a job die that is placed anew each time; say whether it runs again."""
    core.place(0.0)
    where = core.clusters[1].placed[job].node.node_id
    again = core.job_died(where, 1, job, "killed", 0.0)
    if again:
        assert again == [Requeued(1, (job,), "killed", cut_short=True, died=True)]
        return True
    assert core.jobs_finished(where, 1, [job], None, 0.0) == [job]
    return False


def runs(core: Scheduling, job: int) -> int:
    count = 1
    while die(core, job):
        count += 1
    assert core.clusters[1].attempts == core.clusters[1].own_retries == {}, "nothing is left"
    core.place(0.0)
    core.check_invariants()
    return count


@pytest.mark.parametrize(
    ("reentrant", "retries", "own", "expected"),
    [
        (False, None, {}, 1),
        (True, None, {}, DEATHS),
        (True, 0, {}, 1),
        (False, 4, {}, 5),
        (False, None, {7: 2}, 3),
        (True, 9, {7: 0}, 1),
        (False, 1, {8: 5}, 2),
    ],
)
def test_a_job_that_kills_its_process_is_run_as_often_as_was_said(
    reentrant: bool, retries: int | None, own: dict[int, int], expected: int
) -> None:
    core = make("a", "b", reentrant=reentrant, retries=retries)
    core.jobs_submitted(1, [7], {}, {job: most for job, most in own.items() if job == 7})
    assert runs(core, 7) == expected


def test_a_lost_node_counts_for_retries_and_not_for_what_is_reentrant() -> None:
    for retries, reentrant, losses in ((2, False, 2), (None, True, 10)):
        core = make(reentrant=reentrant, retries=retries)
        core.jobs_submitted(1, [7])
        for number in range(losses):
            core.node_joined(Node(f"n{number}", "n", 1))
            core.cluster_allocated(f"n{number}", 1, 1)
            core.cluster_ready_on(f"n{number}", 1)
            core.place(0.0)
            (requeued,) = core.node_lost(f"n{number}", "no answer", 1.0)
            assert isinstance(requeued, Requeued)
            assert core.clusters[1].attempts == {7: number + 1}, "the next run is told"
    core = make("a", retries=0)
    core.jobs_submitted(1, [7])
    core.place(0.0)
    (given_up,) = core.node_lost("a", "no answer", 1.0)
    assert isinstance(given_up, GiveUp)


def test_lost_nodes_bring_a_reentrant_job_no_nearer_to_being_stopped() -> None:
    core = make(reentrant=True)
    core.jobs_submitted(1, [7])
    for number in range(DEATHS):
        core.node_joined(Node(f"n{number}", "n", 1))
        core.cluster_allocated(f"n{number}", 1, 1)
        core.cluster_ready_on(f"n{number}", 1)
        assert die(core, 7) == (number < DEATHS - 1)
        if number < DEATHS - 1:
            core.place(0.0)
            core.node_lost(f"n{number}", "no answer", 1.0)
    assert core.clusters[1].deaths == core.clusters[1].attempts == {}


def test_what_a_node_says_of_a_job_that_it_does_not_have_changes_nothing() -> None:
    core = make("a", "b", reentrant=True)
    core.jobs_submitted(1, [7])
    core.place(0.0)
    other = "b" if core.clusters[1].placed[7].node.node_id == "a" else "a"
    assert core.job_died(other, 1, 7, "killed", 0.0) == []
    assert core.job_died(other, 5, 7, "killed", 0.0) == []
    assert core.jobs_failed("nobody", 1, 3, 0, 0.1, "x") == (None, [])
    assert core.clusters[1].attempts == {}


def fail(core: Scheduling, node: str, times: int, seconds: float = 0.001) -> list[str | None]:
    return [core.jobs_failed(node, 1, 1, 0, seconds, "no disk")[0] for _ in range(times)]


def test_a_node_on_which_all_jobs_fail_at_once_is_set_aside_until_it_is_allocated_again() -> None:
    core = make("a", "b")
    core.jobs_failed("b", 1, 0, 5, 0.001, "")
    *before, why = fail(core, "a", BLAMED_AFTER)
    assert before == [None] * (BLAMED_AFTER - 1)
    assert why is not None
    assert "set aside: 10 jobs in a row failed there at once" in why
    assert "no disk" in why
    core.jobs_submitted(1, [1, 2])
    assert {batch.node_id for batch in core.place(0.0)} == {"b"}
    assert "set aside" in "".join(core.explain(1, 2, 0.0))
    core.cluster_allocated("a", 1, 1)
    assert {batch.node_id for batch in core.place(0.0)} == {"a"}, "as it was"


def test_a_node_is_not_blamed_for_what_fails_everywhere_slowly_or_now_and_then() -> None:
    core = make("a", "b")
    fail(core, "b", 5)
    fail(core, "a", 5 * BLAMED_AFTER)
    assert core.clusters[1].allocations["a"].refusal is None, "nor do they succeed elsewhere"
    core = make("a", "b")
    core.jobs_failed("b", 1, 0, 5, 0.001, "")
    fail(core, "a", 5 * BLAMED_AFTER, seconds=60.0)
    for _ in range(BLAMED_AFTER):
        fail(core, "a", BLAMED_AFTER - 1)
        core.jobs_failed("a", 1, 0, 1, 0.001, "")
    assert core.clusters[1].allocations["a"].refusal is None
