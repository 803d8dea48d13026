"""What a program sees of its jobs: attributes, statuses, results, failures."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from system.conftest import DEADLINE, Gate, hold

import dispy
from dispy import DispyJob, JobCluster, JobFailed, RemoteTraceback

Open = Callable[..., JobCluster]


class Refused(Exception):
    """An exception of the program's own."""


def compute(what: str, *arguments: object, **keywords: object) -> object:
    """Do what the first argument says."""
    import sys

    if what == "raise":
        raise Refused("not this one")
    if what == "print":
        print("to stdout")
        print("to stderr", file=sys.stderr)
    if what == "interrupt":
        raise KeyboardInterrupt
    return (what, arguments, keywords)


@pytest.fixture
def cluster(open_cluster: Open) -> JobCluster:
    return open_cluster(compute)


def test_a_job_has_the_attributes_of_dispy_4(cluster: JobCluster) -> None:
    before = time.time()
    job = cluster.submit("print", 1, a=2)
    assert (job._args, job._kwargs) == (job.args, job.kwargs) == (("print", 1), {"a": 2})
    assert (job.stdout, job.stderr, job.exception, job.end_time) == (None,) * 4
    assert job() == ("print", (1,), {"a": 2})
    assert job.status == DispyJob.Finished == dispy.DispyJob.Finished == 11
    assert (job.stdout, job.stderr, job.exception) == ("to stdout\n", "to stderr\n", None)
    assert job.ip_addr == cluster.status().nodes[0].ip_addr
    assert before <= job.submit_time <= job.start_time <= job.end_time <= time.time()
    assert job.finish.is_set()
    assert job(clear=True) == job.result
    assert not job.finish.is_set()
    assert job() == job.result


def test_a_job_takes_no_other_attributes(cluster: JobCluster) -> None:
    with pytest.raises(AttributeError):
        cluster.submit("").note = 1


def test_the_id_is_the_users_own_and_counts_by_default(cluster: JobCluster) -> None:
    first, second = cluster.submit("a"), cluster.submit("b")
    assert second.id == first.id + 1
    first.id = thing = object()
    assert first.id is thing
    assert cluster.submit_job_id({"any": "object"}, "c").id == {"any": "object"}
    assert cluster.submit_job_id(0, "d").id > second.id


def test_a_failed_job_has_a_traceback_and_no_result(cluster: JobCluster) -> None:
    job = cluster.submit("raise")
    assert job() is None
    assert job.status == DispyJob.Terminated
    assert job.exception.endswith("Refused: not this one\n")
    assert "dispy/" not in job.exception.replace("in compute", "")


def test_get_raises_what_the_job_raised_with_the_traceback_of_the_node(
    cluster: JobCluster,
) -> None:
    job = cluster.submit("raise")
    with pytest.raises(Refused, match="not this one") as caught:
        job.get(timeout=DEADLINE)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert 'raise Refused("not this one")' in str(caught.value.__cause__)
    assert cluster.submit("fine").get() == ("fine", (), {})


def test_waiting_with_a_timeout_says_whether_the_job_is_done(
    open_cluster: Open, gate: Gate
) -> None:
    job = open_cluster(hold).submit(str(gate), 5)
    assert not job.wait(0.01)
    assert not job.done
    with pytest.raises(TimeoutError, match="not done after 0.01 s"):
        job.get(timeout=0.01)
    gate.open()
    assert job.wait(DEADLINE)
    assert job.get() == 5


def test_a_job_that_was_cancelled_has_no_exception_of_its_own_to_raise(
    open_cluster: Open, gate: Gate
) -> None:
    cluster = open_cluster(hold)
    jobs = [cluster.submit(str(gate)) for _ in range(100)]
    assert cluster.cancel(jobs[-1]) == 0
    assert jobs[-1].status == DispyJob.Cancelled
    assert cluster.cancel(jobs[-1]) == -1
    with pytest.raises(JobFailed, match="was Cancelled: cancelled before its start"):
        jobs[-1].get()
    gate.open(99)
    assert cluster.wait(DEADLINE)
    assert cluster.cancel(jobs[0]) == -1


def test_arguments_that_cannot_be_sent_give_no_job(
    cluster: JobCluster, caplog: pytest.LogCaptureFixture
) -> None:
    assert cluster.submit("a", threading.Lock()) is None
    assert "argument 2 of compute cannot be sent" in caplog.text
    assert cluster.status().jobs_pending == 0


def test_a_result_that_cannot_be_rebuilt_fails_its_job_with_the_reason(
    open_cluster: Open,
) -> None:
    def make() -> object:
        class Broken:
            def __reduce__(self) -> tuple:
                return (int, ("no number",))

        return Broken()

    job = open_cluster(make).submit()
    assert job() is None
    assert job.status == DispyJob.Terminated
    assert "could not be rebuilt" in job.exception


def test_jobs_come_as_they_end(open_cluster: Open, gate: Gate, tmp_path: object) -> None:
    cluster = open_cluster(hold)
    held = cluster.submit(str(gate), "held")
    quick = open_cluster(compute).submit("quick")
    others = open_cluster(compute)
    order = dispy.as_completed([held, quick, others.submit("quick")])
    assert {next(order).result[0], next(order).result[0]} == {"quick"}
    gate.open()
    assert next(order) is held
    assert list(order) == []
    assert list(cluster.as_completed([held])) == [held]


def test_as_completed_gives_up_after_its_timeout(open_cluster: Open, gate: Gate) -> None:
    cluster = open_cluster(hold)
    with pytest.raises(TimeoutError, match="1 jobs are not done after 0.01 s"):
        list(cluster.as_completed([cluster.submit(str(gate))], timeout=0.01))
    assert cluster._listeners == []


def test_a_job_can_be_awaited(cluster: JobCluster) -> None:
    async def main() -> None:
        first, *others = await asyncio.gather(*[cluster.submit(n) for n in range(10)])
        assert first == (0, (), {})
        assert [other[0] for other in others] == list(range(1, 10))
        with pytest.raises(Refused):
            await cluster.submit("raise")
        loop = asyncio.get_running_loop()
        job = cluster.submit("executor")
        assert await loop.run_in_executor(None, job.wait)

    asyncio.run(asyncio.wait_for(main(), DEADLINE))


def test_an_await_that_times_out_harms_nothing(open_cluster: Open, gate: Gate) -> None:
    job = open_cluster(hold).submit(str(gate), 7)

    async def impatient() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(job, 0.01)

    asyncio.run(impatient())
    gate.open()
    assert job() == 7


def test_many_threads_submit_and_wait_at_once(cluster: JobCluster) -> None:
    wrong: list[object] = []

    def one(thread: int) -> None:
        jobs = [cluster.submit(thread, n) for n in range(200)]
        got = [job()[:2] for job in jobs]
        if got != [(thread, (n,)) for n in range(200)]:
            wrong.append((thread, got))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert not wrong
    assert cluster.wait(DEADLINE)
    assert cluster.status().jobs_pending == 0


def test_a_cluster_is_called_waited_for_and_closed(open_cluster: Open, gate: Gate) -> None:
    cluster = open_cluster(hold)
    job = cluster.submit(str(gate))
    assert cluster.wait(0.01) is False
    assert cluster.close(timeout=0.01) is False
    gate.open()
    assert cluster() is None
    assert job.done
    assert cluster.wait() is True
    assert cluster.close() is True
    assert cluster.close() is None
    assert cluster.shutdown() is None
    with pytest.raises(AttributeError, match="hold is closed"):
        cluster.submit(1)


def test_close_with_terminate_ends_every_job(open_cluster: Open, gate: Gate) -> None:
    cluster = open_cluster(hold)
    jobs = [cluster.submit(str(gate)) for _ in range(50)]
    while jobs[0].status == DispyJob.Created:
        time.sleep(0.005)
    assert cluster.close(timeout=0.01, terminate=True) is True
    assert {job.status for job in jobs} == {DispyJob.Terminated, DispyJob.Cancelled}
    assert jobs[0].status == DispyJob.Terminated
    assert all(job.finish.is_set() for job in jobs)
    assert jobs[0].exception == "its cluster was closed"


def test_a_with_block_waits_and_lets_its_exception_out(open_cluster: Open, gate: Gate) -> None:
    with open_cluster(compute) as cluster:
        job = cluster.submit("x")
    assert job.done
    with pytest.raises(Refused), open_cluster(hold) as cluster:  # noqa: PT012
        job = cluster.submit(str(gate))
        raise Refused
    assert job.status in (DispyJob.Terminated, DispyJob.Cancelled)


def test_status_and_table_tell_of_nodes_and_pending_jobs(
    open_cluster: Open, gate: Gate, capsys: pytest.CaptureFixture
) -> None:
    cluster = open_cluster(hold)
    job = cluster.submit(str(gate))
    while job.status == DispyJob.Created:
        time.sleep(0.005)
    nodes, pending = cluster.status()
    assert pending == 1
    assert [(node.ip_addr, node.busy) for node in nodes] == [(job.ip_addr, 1)]
    assert cluster.node_jobs(nodes[0]) == cluster.node_jobs(job.ip_addr) == [job]
    assert cluster.node_jobs("10.9.8.7") == []
    assert cluster.name == "hold"
    cluster.print_status()
    assert "Jobs pending: 1" in capsys.readouterr().out
    gate.open()
    job()
    cluster.stats(wall_time=2.0)
    out = capsys.readouterr().out
    assert job.ip_addr in out
    assert "wall time: 2.000 sec" in out
    assert cluster.node_jobs("127.0.0.1") == []
    assert cluster.end_time >= cluster.start_time
