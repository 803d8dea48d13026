"""Scenarios that everybody must understand: each event, and what the core orders.

A change of behaviour shows here as a diff.
"""

from textwrap import dedent
from typing import Any

from dispy.execution.core import Execution
from dispy.execution.records import Feed, Report, StartWorker, Stop, TellShare
from dispy.scheduling.actions import CancelOnNode, Drop, GiveUp, Leave, Recall, Requeued, RunBatch
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Cluster, Node


def tell(action: Any) -> str:
    match action:
        case RunBatch(node_id, cluster, jobs):
            return f"run {list(jobs)} of {cluster} on {node_id}"
        case Recall(node_id, _, jobs):
            return f"call {list(jobs)} back from {node_id}"
        case Drop(node_id, jobs):
            return f"drop {list(jobs)} on {node_id}"
        case CancelOnNode(node_id, _, job):
            return f"ask {node_id} to cancel {job}"
        case GiveUp(_, jobs, reason, status):
            return f"{list(jobs)} end {status.name}: {reason}"
        case Leave(node_id, cluster):
            return f"close {cluster} on {node_id}"
        case Requeued(_, jobs, reason, _, _):
            return f"{list(jobs)} wait again: {reason}"
        case StartWorker(key, worker):
            return f"start worker {worker} for {key[0]}{key[1]}"
        case Feed(worker, jobs):
            return f"feed {list(jobs)} to worker {worker}"
        case Stop(worker, cancelled):
            return f"{'interrupt' if cancelled else 'kill'} worker {worker}"
        case Report(_, jobs, cancelled, reason):
            return f"{list(jobs)} end {'Cancelled' if cancelled else 'Terminated'}: {reason}"
        case TellShare(owner, slots):
            return f"tell {owner}: {slots} slots"
    return repr(action)


class Trace:
    """Writes down what it is told to do, and what comes out."""

    def __init__(self, core: Scheduling | Execution) -> None:
        self.core, self.now, self.lines = core, 0.0, list[str]()

    def __call__(self, event: str, *arguments: Any) -> None:
        self.now += 1
        shown = ", ".join(str(list(a) if isinstance(a, range) else a) for a in arguments)
        self.lines.append(f"{event}({shown})")
        timed = {
            "node_lost", "node_settled", "jobs_returned", "jobs_finished", "node_shared",
            "jobs_received", "jobs_done", "time_passed",
        }  # fmt: skip
        out = getattr(self.core, event)(*arguments, *([self.now] if event in timed else []))
        actions = out if isinstance(out, list) else []
        if event == "computation_failed":
            self.lines.append(f"    give back {out[0]}")
            actions = out[1]
        if event in ("jobs_finished", "jobs_recalled"):
            self.lines.append(f"    {'count' if event == 'jobs_finished' else 'give back'} {out}")
            actions = []
        if isinstance(self.core, Scheduling):
            actions = actions + self.core.place(self.now)
        self.lines += [f"    {tell(action)}" for action in actions]
        self.core.check_invariants()

    def expect(self, text: str) -> None:
        assert "\n".join(self.lines) == dedent(text).strip("\n")


def scheduling(*nodes: str, reentrant: bool = True) -> Trace:
    core = Scheduling()
    core.cluster_opened(Cluster(1, "compute", reentrant))
    for name in nodes:
        core.node_joined(Node(name, name, 2))
        core.cluster_allocated(name, 1, 2)
        core.cluster_ready_on(name, 1)
    return Trace(core)


def test_one_job() -> None:
    trace = scheduling("a")
    trace("jobs_submitted", 1, [1])
    trace("jobs_finished", "a", 1, [1], 0.5)
    trace.expect("""
        jobs_submitted(1, [1])
            run [1] of 1 on a
        jobs_finished(a, 1, [1], 0.5)
            count [1]
    """)


def test_jobs_wait_for_a_node_and_for_their_computation_on_it() -> None:
    trace = scheduling()
    trace("jobs_submitted", 1, [1, 2, 3])
    trace.core.node_joined(Node("a", "a", 2, settled=False))
    trace("node_settled", "a", [])
    trace("cluster_allocated", "a", 1, 2)
    trace("cluster_ready_on", "a", 1)
    trace.expect("""
        jobs_submitted(1, [1, 2, 3])
        node_settled(a, [])
        cluster_allocated(a, 1, 2)
        cluster_ready_on(a, 1)
            run [1, 2] of 1 on a
    """)


def test_a_node_is_lost() -> None:
    trace = scheduling("a", "b")
    trace("jobs_submitted", 1, range(1, 7))
    trace("node_lost", "a", "no sign of life for 25 s")
    trace("jobs_finished", "b", 1, [3, 4], 0.5)
    trace("jobs_finished", "a", 1, [1], 0.5)
    trace.expect("""
        jobs_submitted(1, [1, 2, 3, 4, 5, 6])
            run [1, 2] of 1 on a
            run [3, 4] of 1 on b
        node_lost(a, no sign of life for 25 s)
            [1, 2] wait again: node a was lost: no sign of life for 25 s
        jobs_finished(b, 1, [3, 4], 0.5)
            count [3, 4]
            run [1, 2] of 1 on b
        jobs_finished(a, 1, [1], 0.5)
            count []
    """)


def test_a_node_is_lost_with_jobs_that_must_not_run_twice() -> None:
    trace = scheduling("a", reentrant=False)
    trace("jobs_submitted", 1, [1, 2, 3])
    trace("node_lost", "a", "no sign of life for 25 s")
    trace.expect("""
        jobs_submitted(1, [1, 2, 3])
            run [1, 2] of 1 on a
        node_lost(a, no sign of life for 25 s)
            [1, 2] end Abandoned: node a was lost: no sign of life for 25 s
    """)


def test_a_link_breaks_and_is_made_again() -> None:
    trace = scheduling("a", reentrant=False)
    trace("jobs_submitted", 1, [1, 2])
    trace("node_silent", "a")
    trace("jobs_submitted", 1, [3])
    trace("results_arrived", "a", 1)
    trace("jobs_finished", "a", 1, [1], 0.5)
    trace("node_settled", "a", [77])
    trace.expect("""
        jobs_submitted(1, [1, 2])
            run [1, 2] of 1 on a
        node_silent(a)
        jobs_submitted(1, [3])
        results_arrived(a, 1)
        jobs_finished(a, 1, [1], 0.5)
            count [1]
        node_settled(a, [77])
            [2] wait again: it never reached a
            drop [77] on a
            run [2, 3] of 1 on a
    """)


def test_cancel_of_a_queued_and_of_a_running_job() -> None:
    trace = scheduling("a")
    trace("jobs_submitted", 1, [1, 2, 3])
    trace("cancel", 1, 3)
    trace("cancel", 1, 1)
    trace("jobs_finished", "a", 1, [1], 0.5)
    trace("cancel", 1, 1)
    trace.expect("""
        jobs_submitted(1, [1, 2, 3])
            run [1, 2] of 1 on a
        cancel(1, 3)
            [3] end Cancelled: cancelled before its start
        cancel(1, 1)
            ask a to cancel 1
        jobs_finished(a, 1, [1], 0.5)
            count [1]
        cancel(1, 1)
    """)


def test_a_node_falls_behind_and_another_joins() -> None:
    trace = scheduling("a")
    trace("jobs_submitted", 1, [1, 2])
    trace("jobs_finished", "a", 1, [1], 0.02)
    trace("jobs_submitted", 1, range(3, 7))
    trace.core.node_joined(Node("b", "b", 2))
    trace("cluster_allocated", "b", 1, 2)
    trace("cluster_ready_on", "b", 1)
    trace("time_passed")
    trace("jobs_returned", "a", 1, [4, 5, 6], None)
    trace.expect("""
        jobs_submitted(1, [1, 2])
            run [1, 2] of 1 on a
        jobs_finished(a, 1, [1], 0.02)
            count [1]
        jobs_submitted(1, [3, 4, 5, 6])
            run [3] of 1 on a
            run [4, 5, 6] of 1 on a
        cluster_allocated(b, 1, 2)
        cluster_ready_on(b, 1)
        time_passed()
            call [2, 3, 4, 5, 6] back from a
        jobs_returned(a, 1, [4, 5, 6], None)
            [4, 5, 6] wait again: called back from a, which had not begun it
            run [4, 5] of 1 on b
            run [6] of 1 on b
    """)


def test_a_computation_cannot_be_loaded_on_one_node() -> None:
    trace = scheduling("a")
    trace("jobs_submitted", 1, [1, 2])
    trace("jobs_returned", "a", 1, [1, 2], "No module named 'numpy'")
    trace("jobs_pinned", 1, [3], "a")
    trace.core.node_joined(Node("b", "b", 2))
    trace("cluster_allocated", "b", 1, 2)
    trace("cluster_ready_on", "b", 1)
    trace.expect("""
        jobs_submitted(1, [1, 2])
            run [1, 2] of 1 on a
        jobs_returned(a, 1, [1, 2], No module named 'numpy')
            [1, 2] wait again: node a gave it back: No module named 'numpy'
        jobs_pinned(1, [3], a)
            [3] end Cancelled: cancelled: No module named 'numpy'
        cluster_allocated(b, 1, 2)
        cluster_ready_on(b, 1)
            run [1, 2] of 1 on b
    """)


def test_a_node_is_set_up_again_while_jobs_come() -> None:
    trace = scheduling("a", reentrant=False)
    trace("jobs_submitted", 1, [1, 2, 3])
    trace("cluster_leaves", "a", 1, False, None)
    trace("jobs_pinned", 1, [4], "a")
    trace("jobs_finished", "a", 1, [1], 0.5)
    trace("jobs_returned", "a", 1, [], None)
    trace("jobs_finished", "a", 1, [2], 0.5)
    trace("cluster_ready_on", "a", 1)
    trace("cluster_left", "a", 1)
    trace("cluster_allocated", "a", 1, 2)
    trace("cluster_ready_on", "a", 1)
    trace.expect("""
        jobs_submitted(1, [1, 2, 3])
            run [1, 2] of 1 on a
        cluster_leaves(a, 1, False, None)
            call [1, 2] back from a
        jobs_pinned(1, [4], a)
        jobs_finished(a, 1, [1], 0.5)
            count [1]
        jobs_returned(a, 1, [], None)
        jobs_finished(a, 1, [2], 0.5)
            count [2]
            close 1 on a
        cluster_ready_on(a, 1)
        cluster_left(a, 1)
        cluster_allocated(a, 1, 2)
        cluster_ready_on(a, 1)
            run [4] of 1 on a
            run [3] of 1 on a
    """)


def test_a_computation_is_closed_on_one_node_by_force() -> None:
    trace = scheduling("a", "b", reentrant=False)
    trace("jobs_submitted", 1, [1, 2, 3, 4])
    trace("jobs_finished", "b", 1, [3], 0.01)
    trace("jobs_pinned", 1, [5, 6], "a")
    trace("cluster_leaves", "a", 1, True, "closed there")
    trace("jobs_returned", "a", 1, [2], None)
    trace("jobs_returned", "a", 1, [], None)
    trace("cluster_left", "a", 1)
    trace("jobs_pinned", 1, [7], "a")
    trace.expect("""
        jobs_submitted(1, [1, 2, 3, 4])
            run [1, 2] of 1 on a
            run [3, 4] of 1 on b
        jobs_finished(b, 1, [3], 0.01)
            count [3]
        jobs_pinned(1, [5, 6], a)
            run [5, 6] of 1 on a
        cluster_leaves(a, 1, True, closed there)
            call [1, 2, 5, 6] back from a
        jobs_returned(a, 1, [2], None)
            [2] wait again: called back from a, which had not begun it
            call [1, 5, 6] back from a
            run [2] of 1 on b
        jobs_returned(a, 1, [], None)
            [1, 5, 6] end Terminated: stopped on a, where compute is closed
            close 1 on a
        cluster_left(a, 1)
        jobs_pinned(1, [7], a)
            [7] end Cancelled: cancelled: closed there
    """)


def execution(slots: int, *owners: str) -> Trace:
    core = Execution(slots)
    for owner in owners:
        core.computation_opened((owner, 1))
        core.computation_ready((owner, 1))
    return Trace(core)


def test_a_second_owner_comes_while_the_first_has_all_processors() -> None:
    trace = execution(2, "a", "b")
    trace("jobs_received", ("a", 1), [1, 2, 3])
    trace("jobs_received", ("b", 1), [1])
    trace("jobs_done", 1, [1], 1.0)
    trace("jobs_done", 3, [1], 1.0)
    trace.expect("""
        jobs_received(('a', 1), [1, 2, 3])
            tell a: 2 slots
            start worker 1 for a1
            feed [1] to worker 1
            start worker 2 for a1
            feed [2] to worker 2
        jobs_received(('b', 1), [1])
            tell a: 1 slots
            tell b: 1 slots
        jobs_done(1, [1], 1.0)
            start worker 3 for b1
            feed [1] to worker 3
        jobs_done(3, [1], 1.0)
            feed [3] to worker 1
    """)


def test_a_worker_dies_with_a_packet() -> None:
    trace = execution(1, "a")
    trace("jobs_received", ("a", 1), [1])
    trace("jobs_done", 1, [1], 1e-4)
    trace("jobs_received", ("a", 1), range(2, 6))
    trace("worker_died", 1, 0, True, "killed by SIGSEGV", False)
    trace.expect("""
        jobs_received(('a', 1), [1])
            tell a: 1 slots
            start worker 1 for a1
            feed [1] to worker 1
        jobs_done(1, [1], 0.0001)
        jobs_received(('a', 1), [2, 3, 4, 5])
            feed [2, 3, 4, 5] to worker 1
        worker_died(1, 0, True, killed by SIGSEGV, False)
            [2] end Terminated: killed by SIGSEGV
            start worker 2 for a1
            feed [3, 4, 5] to worker 2
    """)


def test_a_limit_and_a_recall_on_a_node() -> None:
    trace = execution(2, "a")
    trace("computation_limited", ("a", 1), 1)
    trace("jobs_received", ("a", 1), [1, 2, 3, 4])
    trace("jobs_recalled", ("a", 1), [1, 3, 99])
    trace("cancel", ("a", 1), 2)
    trace("cancel", ("a", 1), 1)
    trace("computation_limited", ("a", 1), 2)
    trace.expect("""
        computation_limited(('a', 1), 1)
        jobs_received(('a', 1), [1, 2, 3, 4])
            tell a: 2 slots
            start worker 1 for a1
            feed [1] to worker 1
        jobs_recalled(('a', 1), [1, 3, 99])
            give back [3]
        cancel(('a', 1), 2)
            [2] end Cancelled: cancelled before its start
        cancel(('a', 1), 1)
            interrupt worker 1
        computation_limited(('a', 1), 2)
            start worker 2 for a1
            feed [4] to worker 2
    """)


def test_a_nursery_ends() -> None:
    trace = execution(1, "a", "b")
    trace("jobs_received", ("a", 1), [1, 2, 3])
    trace("jobs_received", ("b", 1), [1])
    trace("computation_failed", ("a", 1), "its nursery was killed")
    trace.expect("""
        jobs_received(('a', 1), [1, 2, 3])
            tell a: 1 slots
            start worker 1 for a1
            feed [1] to worker 1
        jobs_received(('b', 1), [1])
            tell b: 1 slots
        computation_failed(('a', 1), its nursery was killed)
            give back [2, 3]
            [1] end Terminated: its nursery was killed
            kill worker 1
            start worker 2 for b1
            feed [1] to worker 2
    """)
