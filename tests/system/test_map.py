"""`JobCluster.map`: every item's own result or exception, in order, and no more than needed."""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from system.conftest import DEADLINE, Gate, hold

from dispy import DispyError, DispyJob, JobCluster, JobFailed, RemoteTraceback
from dispy.client.mapping import CHUNKS_AHEAD
from dispy.shipping.payloads import CannotPack

Open = Callable[..., JobCluster]


def double(n: int) -> int:
    if n == -1:
        raise ValueError("minus one")
    if n == -2:
        import os

        os._exit(3)
    return 2 * n


def outcomes(results: Iterator[Any]) -> list[Any]:
    """Return every result, and the type of every exception in its place."""
    found: list[Any] = []
    while True:
        try:
            found.append(next(results))
        except StopIteration:
            return found
        except Exception as error:
            found.append(type(error))


@pytest.fixture
def cluster(open_cluster: Open) -> JobCluster:
    return open_cluster(double)


@pytest.mark.parametrize("chunksize", [None, 1, 7, 10_000])
def test_results_come_in_the_order_of_the_items(cluster: JobCluster, chunksize: int) -> None:
    assert list(cluster.map(range(2000), chunksize)) == [2 * n for n in range(2000)]
    assert list(cluster.map([3, 1, 2], chunksize=chunksize)) == [6, 2, 4]


def test_nothing_gives_nothing(cluster: JobCluster) -> None:
    assert list(cluster.map([])) == list(cluster.map(range(0))) == []
    assert next(cluster.map(()), "none") == "none"


def test_an_item_that_fails_raises_in_its_place_and_iteration_goes_on(
    cluster: JobCluster,
) -> None:
    results = cluster.map([1, -1, 2, -1, 3], chunksize=5)
    assert next(results) == 2
    with pytest.raises(ValueError, match="minus one") as caught:
        next(results)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    assert outcomes(results) == [4, ValueError, 6]


def test_an_infinite_iterable_is_consumed_no_further_than_needed(cluster: JobCluster) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for n in itertools.count():
            taken.append(n)
            yield n

    results = cluster.map(numbers(), chunksize=3)
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    ahead = 3 * CHUNKS_AHEAD * (sum(node.cpus for node in cluster.status().nodes) or 2)
    assert len(taken) <= 6 + ahead
    assert list(itertools.islice(results, 1000)) == [2 * n for n in range(5, 1005)]


def test_what_is_sent_ahead_is_bounded_while_nobody_takes_results(cluster: JobCluster) -> None:
    taken = itertools.count()
    results = cluster.map(taken, chunksize=10)
    assert next(results) == 0
    assert cluster.wait(DEADLINE)
    nodes = sum(node.cpus for node in cluster.status().nodes)
    assert next(taken) <= 10 * (CHUNKS_AHEAD * nodes + 1)


def test_what_the_iterable_raises_comes_behind_the_results_before_it(
    cluster: JobCluster,
) -> None:
    def broken() -> Iterator[int]:
        yield from range(10)
        raise OSError("no more")

    results = cluster.map(broken())
    assert [next(results) for _ in range(10)] == [2 * n for n in range(10)]
    with pytest.raises(OSError, match="no more"):
        next(results)
    assert list(results) == []


def test_an_item_that_cannot_be_sent_fails_alone(cluster: JobCluster) -> None:
    items: list[Any] = list(range(20))
    items[7] = items[11] = threading.Lock()
    found = outcomes(cluster.map(items, chunksize=20))
    expected: list[Any] = [2 * n for n in range(20)]
    expected[7] = expected[11] = CannotPack
    assert found == expected


def test_a_worker_that_dies_fails_the_items_of_its_chunk_with_the_reason(
    cluster: JobCluster,
) -> None:
    results = cluster.map([1, 2, -2, 3, 4, 5, 6, 7], chunksize=2)
    assert next(results) == 2
    assert next(results) == 4
    with pytest.raises(JobFailed, match=r"double was lost \(with 1 others.*exited with status 3"):
        next(results)
    assert outcomes(results) == [JobFailed, 8, 10, 12, 14]


def test_calls_that_may_run_twice_are_tried_again_one_by_one(open_cluster: Open) -> None:
    cluster = open_cluster(double, reentrant=True)
    results = cluster.map([1, 2, -2, 3, 4, -1, 6], chunksize=7)
    assert outcomes(results) == [2, 4, JobFailed, 6, 8, ValueError, 12]


def test_a_result_that_cannot_be_rebuilt_fails_its_chunk(open_cluster: Open) -> None:
    def make(n: int) -> object:
        class Broken:
            def __reduce__(self) -> tuple:
                return (int, ("no number",))

        return Broken() if n == 3 else n

    found = outcomes(open_cluster(make).map(range(6), chunksize=2))
    assert found == [0, 1, JobFailed, JobFailed, 4, 5]


def test_a_cluster_closed_during_map_ends_it_in_words(open_cluster: Open, gate: Gate) -> None:
    def hold_if(gate: str) -> None:
        if gate:
            hold(gate)

    cluster = open_cluster(hold_if)
    results = cluster.map(itertools.chain([""], itertools.repeat(str(gate))))
    assert next(results) is None
    cluster.close(timeout=0, terminate=True)
    with pytest.raises(JobFailed, match="its cluster was closed"):
        next(results)
    others = [type(error) for error in iter(lambda: _next_error(results), None)]
    assert others[-1] is AttributeError
    assert set(others[:-1]) <= {JobFailed}
    with pytest.raises(AttributeError, match="is closed"):
        cluster.map([1])


def _next_error(results: Iterator[Any]) -> Exception | None:
    try:
        next(results)
    except StopIteration:
        return None
    except Exception as error:
        return error
    return None


def test_an_iterator_that_is_dropped_cancels_what_it_sent(open_cluster: Open, gate: Gate) -> None:
    cluster = open_cluster(hold)
    results = cluster.map(itertools.repeat(str(gate)))
    del results
    assert cluster.wait(DEADLINE)


def test_map_and_submit_share_a_cluster(cluster: JobCluster) -> None:
    told: list[DispyJob] = []
    cluster.job_status = told.append
    results = cluster.map(range(100))
    job = cluster.submit(50)
    assert list(results) == [2 * n for n in range(100)]
    assert job() == 100
    assert cluster.wait(DEADLINE)
    assert told == [job]


def test_threads_map_at_once(cluster: JobCluster) -> None:
    found: dict[int, list[int]] = {}

    def one(n: int) -> None:
        found[n] = list(cluster.map(range(n, n + 500)))

    threads = [threading.Thread(target=one, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert found == {n: [2 * m for m in range(n, n + 500)] for n in range(4)}


def test_chunks_grow_when_calls_are_short(cluster: JobCluster) -> None:
    results = cluster.map(range(100_000))
    assert sum(results) == 100_000 * 99_999
    assert sum(node.jobs_done for node in cluster.status().nodes) < 10_000


@pytest.mark.parametrize("chunksize", [0, -1, "2", True, 1.5])
def test_a_chunksize_is_a_number_of_items(cluster: JobCluster, chunksize: Any) -> None:
    with pytest.raises(DispyError, match="chunksize is a number of items, at least 1"):
        cluster.map([1], chunksize)


def test_programs_are_not_mapped(open_cluster: Open) -> None:
    with pytest.raises(DispyError, match="true is a program"):
        open_cluster("true").map([1])
