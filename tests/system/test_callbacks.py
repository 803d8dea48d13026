"""Callbacks: in order, off the hub, on one thread, and harmless to everybody else."""

import threading
import time
from collections.abc import Callable
from queue import Queue
from typing import Any

import pytest
from system.conftest import DEADLINE, Gate, hold

from dispy import DispyJob, DispyNode, JobCluster

Open = Callable[..., JobCluster]


def interim(count: int) -> int:
    """Send `count` values before the last."""
    for n in range(count):
        dispy_provisional_result(n)  # type: ignore[name-defined]  # noqa: F821
    return count


def double(n: int) -> int:
    return 2 * n


class Events:
    """Collects what both callbacks of a cluster are called with."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, Any, Any, Any]] = []
        self.threads: set[int] = set()

    def job_status(self, job: DispyJob) -> None:
        self.threads.add(threading.get_ident())
        self.seen.append((-1, None, job.id, (job.status, job.result)))

    def cluster_status(self, status: int, node: DispyNode | None, job: DispyJob | None) -> None:
        self.threads.add(threading.get_ident())
        self.seen.append((status, node, job.id if job else None, None))


def test_a_job_is_told_of_in_order_and_provisional_before_final(open_cluster: Open) -> None:
    events = Events()
    cluster = open_cluster(
        interim, job_status=events.job_status, cluster_status=events.cluster_status
    )
    jobs = [cluster.submit(3) for _ in range(20)]
    assert cluster.wait(DEADLINE)
    assert len(events.threads) == 1
    assert events.threads != {threading.get_ident()}
    for job in jobs:
        calls = [
            (status, values) if status == -1 else status
            for status, _, job_id, values in events.seen
            if job_id == job.id
        ]
        provisional = [
            call
            for n in range(3)
            for call in (
                (-1, (DispyJob.ProvisionalResult, n)), DispyJob.ProvisionalResult,
            )
        ]  # fmt: skip
        assert calls == [
            DispyJob.Created, DispyJob.Running, *provisional,
            (-1, (DispyJob.Finished, 3)), DispyJob.Finished,
        ]  # fmt: skip
    statuses = [(status, node) for status, node, job_id, _ in events.seen if job_id is None]
    assert [status for status, _ in statuses if status != DispyNode.AvailInfo] == [
        DispyNode.Initialized
    ]
    assert statuses[0][1] is cluster.status().nodes[0]


def test_wait_returns_after_the_callbacks(open_cluster: Open) -> None:
    told: list[int] = []

    def slow(job: DispyJob) -> None:
        time.sleep(0.01)
        told.append(job.result)

    cluster = open_cluster(double, callback=slow)
    assert cluster.callback is cluster.job_status is slow
    for n in range(10):
        cluster.submit(n)
    assert cluster.wait(DEADLINE)
    assert sorted(told) == [2 * n for n in range(10)]
    cluster.submit(100)
    cluster.close()
    assert told[-1] == 200


def test_a_callback_that_raises_is_logged_with_the_job_and_harms_nothing(
    open_cluster: Open, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    def bad(job: DispyJob) -> None:
        told.append(job.result)
        raise SystemExit("no") if job.result % 4 else ValueError("never mind")

    cluster = open_cluster(double, job_status=bad, cluster_status=lambda *_: 1 / 0)
    jobs = [cluster.submit_job_id(f"name {n}", n) for n in range(4)]
    assert cluster.wait(DEADLINE)
    assert [job() for job in jobs] == [0, 2, 4, 6]
    assert sorted(told) == [0, 2, 4, 6]
    assert "callback 'bad' failed for job 'name 3'" in caplog.text
    assert "never mind" in caplog.text
    assert "callback '<lambda>' failed for job 'name 0'" in caplog.text


def test_a_callback_that_blocks_holds_up_neither_jobs_nor_an_end_by_force(
    open_cluster: Open,
) -> None:
    blocked, go_on = threading.Event(), threading.Event()

    def block(job: DispyJob) -> None:
        blocked.set()
        go_on.wait()

    cluster = open_cluster(double, callback=block)
    first = cluster.submit(1)
    assert blocked.wait(DEADLINE)
    assert first() == 2
    assert cluster.submit(2)() == 4
    assert open_cluster(double).submit(3)() == 6
    assert cluster.wait(0.01) is False
    assert cluster.status().jobs_pending == 0
    go_on.set()
    assert cluster.wait(DEADLINE)


def test_who_waits_for_a_callback_that_blocks_is_told(
    open_cluster: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispy.client.reporting.PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr("dispy.client.closing.GRACE_SECONDS", 0.1)
    begun, go_on = threading.Event(), threading.Event()

    def block(job: DispyJob) -> None:
        begun.set()
        go_on.wait(DEADLINE)

    cluster = open_cluster(double, callback=block)
    cluster.submit(1)
    assert begun.wait(DEADLINE)
    try:
        # Until it was told that the callback runs too long, which is looked at every 0.05 s.
        assert cluster.wait(0.5) is False
        assert "waiting for a callback of double that has not returned yet" in caplog.text
        assert cluster.close(timeout=0.01, terminate=True) is True
    finally:
        go_on.set()  # else no other callback of this process would ever run


def test_a_callback_may_submit_cancel_wait_and_close(open_cluster: Open, gate: Gate) -> None:
    outcome: Queue[Any] = Queue()
    held = open_cluster(hold)
    victim = held.submit(str(gate))

    def busy(job: DispyJob) -> None:
        if job.result == 2:
            more = cluster.submit(10)
            outcome.put(more())
            outcome.put(held.cancel(victim))
            outcome.put(cluster.wait())
            outcome.put(cluster.close())

    cluster = open_cluster(double, callback=busy)
    cluster.submit(1)
    assert [outcome.get(timeout=DEADLINE) for _ in range(4)] == [20, 0, True, True]
    assert victim() is None
    assert victim.status in (DispyJob.Terminated, DispyJob.Cancelled)


def test_what_a_callback_writes_to_a_job_is_not_lost(open_cluster: Open) -> None:
    seen: list[DispyJob] = []

    def take(job: DispyJob) -> None:
        if job.status == DispyJob.ProvisionalResult:
            job.id = ("renamed", job.result)
        else:
            job.result = None
        seen.append(job)

    cluster = open_cluster(interim, callback=take)
    job = cluster.submit(2)
    assert cluster.wait(DEADLINE)
    assert job.id == ("renamed", 1)
    assert job.result is None
    assert seen[-1] is job
    assert all(view == job and hash(view) == hash(job) for view in seen)
    assert [view.result for view in seen[:2]] == [0, 1]
    assert seen[0]() is None
    assert seen[0].finish.is_set()


def test_a_view_never_takes_the_final_result_away(open_cluster: Open) -> None:
    views: Queue[DispyJob] = Queue()
    cluster = open_cluster(interim, callback=views.put)
    job = cluster.submit(1)
    assert job() == 1
    view = views.get(timeout=DEADLINE)
    assert view.status == DispyJob.ProvisionalResult
    view.result = None
    assert job.result == 1
    assert view() == 1
    assert view.get() == 1
    assert cluster.cancel(view) == -1


def test_a_node_is_never_announced_before_the_cluster_has_its_name(open_cluster: Open) -> None:
    known: list[bool] = []
    made: dict[int, JobCluster] = {}

    def initialized(number: int, status: int) -> None:
        if status == DispyNode.Initialized:
            known.append(number in made)

    for number in range(20):
        made[number] = open_cluster(
            double, cluster_status=lambda status, node, job, n=number: initialized(n, status)
        )
        made[number].submit(number)()
    for cluster in made.values():
        cluster.wait()
    assert known == [True] * 20


def test_a_cluster_tells_of_cancelled_and_failed_jobs(open_cluster: Open, gate: Gate) -> None:
    events = Events()
    cluster = open_cluster(hold, callback=events.job_status, cluster_status=events.cluster_status)
    jobs = [cluster.submit(str(gate)) for _ in range(40)]
    cluster.cancel(jobs[-1])
    failing = cluster.submit("/no/such/gate")
    gate.open(39)
    assert cluster.wait(DEADLINE)
    by_id = {job_id: values for status, _, job_id, values in events.seen if status == -1}
    assert by_id[jobs[-1].id] == (DispyJob.Cancelled, None)
    assert by_id[failing.id] == (DispyJob.Terminated, None)
    assert (DispyJob.Cancelled, None, jobs[-1].id, None) in events.seen


def test_callbacks_can_be_replaced_while_jobs_run(open_cluster: Open) -> None:
    first, second = Queue(), Queue()
    cluster = open_cluster(double, callback=first.put)
    cluster.submit(1)
    cluster.wait()
    cluster.job_status = second.put
    job = cluster.submit(2)
    cluster.wait()
    assert (first.qsize(), second.get_nowait()) == (1, job)


def test_a_job_has_its_id_when_it_is_first_told_of(
    open_cluster: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = open_cluster(double, cluster_status=lambda *of: None)
    seen: list[Any] = []
    notify = cluster._notify

    def noting(status: int, node: Any, jobs: Any) -> None:
        seen.extend(job.id for job in jobs or ())  # at once, as the callbacks' thread might
        notify(status, node, jobs)

    monkeypatch.setattr(cluster, "_notify", noting)
    assert cluster.submit_job_id("mine", 1)() == 2
    assert cluster.wait(DEADLINE)
    assert set(seen) == {"mine"}
