"""A cancel holds, whatever happens to the job's node and to the link between."""

import pytest

from dispy.model.statuses import Status
from dispy.scheduling.actions import Action, CancelOnNode, GiveUp, RunBatch
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Cluster, Node


def cancelled_on_its_node(reentrant: bool = True) -> Scheduling:
    """Return a core whose job 7 is on node a, and is being cancelled; node b idles."""
    core = Scheduling()
    core.cluster_opened(Cluster(1, "compute", reentrant))
    core.jobs_submitted(1, [7])
    for name in ("a", "b"):
        core.node_joined(Node(name, name, 1))
        core.cluster_allocated(name, 1, 1)
        core.cluster_ready_on(name, 1)
        core.place(0.0)
    assert core.cancel(1, 7) == [CancelOnNode("a", 1, 7)]
    return core


def ends(core: Scheduling, actions: list[Action], status: Status) -> None:
    """The job is final by this, nowhere any more, and nothing is kept of it."""
    assert [(a.jobs, a.status) for a in actions if isinstance(a, GiveUp)] == [((7,), status)]
    assert not any(isinstance(action, RunBatch) for action in core.place(1.0))
    core.check_invariants()
    assert not core.is_queued(1, 7)
    assert core.clusters[1].cancelling == {}


@pytest.mark.parametrize("reason", ["its nursery ended", None])
def test_a_job_that_its_node_gives_back_is_cancelled(reason: str | None) -> None:
    core = cancelled_on_its_node()
    ends(core, core.jobs_returned("a", 1, [7], reason, 1.0), Status.Cancelled)


def test_a_job_that_its_node_has_no_room_for_is_cancelled() -> None:
    core = cancelled_on_its_node()
    ends(core, core.node_full("a", 1, [7], "no room", 1.0), Status.Cancelled)


def test_a_job_that_never_reached_its_node_is_cancelled() -> None:
    core = cancelled_on_its_node()
    core.node_silent("a")
    ends(core, core.node_settled("a", [], 1.0), Status.Cancelled)


def test_a_job_that_is_lost_with_its_node_does_not_run_again() -> None:
    core = cancelled_on_its_node()
    ends(core, core.node_lost("a", "no answer", 1.0), Status.Abandoned)


def test_a_job_that_is_stopped_where_its_computation_is_closed_does_not_run_again() -> None:
    core = cancelled_on_its_node()
    core.cluster_leaves("a", 1, terminate=True, refusal="closed")
    ends(core, core.jobs_returned("a", 1, [], None, 1.0), Status.Terminated)


def test_a_job_whose_process_ends_does_not_run_again() -> None:
    core = cancelled_on_its_node()
    assert core.job_died("a", 1, 7, "killed", 1.0) == []
    assert core.jobs_finished("a", 1, [7], None, 1.0) == [7]
    assert core.clusters[1].cancelling == {}


def test_the_order_is_given_again_over_a_new_link_while_the_job_is_there() -> None:
    core = cancelled_on_its_node()
    core.node_silent("a")
    assert core.node_settled("a", [7], 1.0) == [CancelOnNode("a", 1, 7)]
    assert core.jobs_finished("a", 1, [7], 1.0, 1.0) == [7]
    core.node_silent("a")
    assert core.node_settled("a", [], 1.0) == []
