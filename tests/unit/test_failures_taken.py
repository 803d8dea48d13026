"""What a scheduler makes of results that say how jobs failed, whatever a node says."""

from types import SimpleNamespace
from typing import Any

from dispy.model.statuses import Status
from dispy.scheduler.columns import select
from dispy.scheduler.failing import Failures
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Cluster, Node

OWNER: Any = SimpleNamespace(noted=lambda *told: None)


def test_the_death_of_a_job_whose_cluster_is_closed_is_no_error() -> None:
    done: list[Any] = []
    failures = Failures(Scheduling(), OWNER, lambda actions, node: done.extend(actions))
    extra = {"status": int(Status.Terminated), "died": True, "exception": "killed"}
    node: Any = SimpleNamespace(node_id="n", name="n")
    failures.take(node, 7, [1], [[0, extra]], 0.1)
    assert not done
    assert extra["exception"] == "killed"


def test_a_job_that_may_run_again_is_queued_and_told_of_its_runs_in_the_end() -> None:
    core, done = Scheduling(), list[Any]()
    core.cluster_opened(Cluster(1, "c", retries=1))
    core.node_joined(Node("n", "n", 1))
    core.cluster_allocated("n", 1, 1)
    core.cluster_ready_on("n", 1)
    core.jobs_submitted(1, [5])
    failures = Failures(core, OWNER, lambda actions, node: done.extend(actions))
    node: Any = SimpleNamespace(node_id="n", name="n")
    for run in (1, 2):
        core.place(0.0)
        options = failures.with_attempts(1, [5], {})
        assert options == ({} if run == 1 else {5: {"env": {"DISPY_ATTEMPT": "2"}}})
        extra = {"status": int(Status.Terminated), "died": True, "exception": f"killed {run}"}
        failures.take(node, 1, [5], [[0, extra]], None)
    assert len(done) == 1
    assert extra["exception"] == "it was begun 2 times:\n  killed 1\n  killed 2"


def test_a_job_that_a_node_names_twice_ends_once() -> None:
    columns, extras = select({4, 5}, ([4, 5, 4, 6], ["a", "b", "c", "d"]), [[0, "x"], [2, "y"]])
    assert columns == [[4, 5], ["a", "b"]]
    assert extras == [[0, "x"]]
