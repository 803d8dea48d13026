"""`JobCluster.map`: one call for each item, sent in chunks that grow with what was measured.

A chunk is one job inside. The first chunks hold one item; then a chunk holds about
CHUNK_SECONDS of measured work, and enough chunks are out to keep every worker busy. Results
come out in order. Plain lists are chained, so that an item costs no Python code of ours; only a
chunk with failures is walked item by item. `itertools.chain` goes on with the same list after
an exception, which is what lets `next` continue behind a failed item.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from dispy.client.job import DispyJob, JobFailed, RemoteTraceback
from dispy.model.errors import DispyError
from dispy.model.statuses import Status
from dispy.shipping.failures import Failure
from dispy.shipping.payloads import CannotPack, pack_items, unpack

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster

CHUNK_SECONDS = 0.01
CHUNK_ITEMS = 50_000  # however short the calls are: what one result may hold back
GROWTH = 8  # of a chunk over the one before: one fast call says little about the next
CHUNKS_AHEAD = 4  # for each processor


class ChunkJob(DispyJob):
    """The calls of one chunk; no callback ever sees it."""

    __slots__ = ("size",)
    size: int  # items


def map_calls(
    cluster: "JobCluster", iterable: Iterable[Any], chunksize: int | None
) -> Iterator[Any]:
    """Return the iterator of `JobCluster.map`; sends the first chunks at once."""
    if cluster._is_program:
        raise DispyError(f"map calls a function for each item; {cluster.name} is a program")
    if chunksize is not None and chunksize < 1:
        raise DispyError(f"chunksize is a number of items, at least 1, not {chunksize!r}")
    return chain.from_iterable(_Chunks(cluster, iterable, chunksize))


class _Chunks:
    """Iterates over the results of chunks, in order, and sends more while it is asked."""

    def __init__(
        self, cluster: "JobCluster", iterable: Iterable[Any], chunksize: int | None
    ) -> None:
        self._cluster, self._fixed = cluster, chunksize
        self._size = chunksize or 1
        self._out: deque[ChunkJob] = deque()
        # A range is cut, not listed: a chunk of it is a few bytes on the wire.
        self._range = iterable if isinstance(iterable, range) else None
        self._rest = iter(iterable)
        self._send()

    def __iter__(self) -> Iterator[Iterable[Any]]:
        return self

    def __next__(self) -> Iterable[Any]:
        self._send()
        if not self._out:
            raise StopIteration
        job = self._out[0]
        job.wait()
        self._out.popleft()
        if job.status != Status.Finished:
            failed = JobFailed(f"{job.size} items in one chunk: {job.exception}")
            return _Walk([failed] * job.size)
        results, has_failures = job.result
        self._measure(job)
        self._send()
        return _Walk(results) if has_failures else results

    def _measure(self, job: ChunkJob) -> None:
        if self._fixed is None and job.start_time is not None and job.end_time is not None:
            seconds = max(job.end_time - job.start_time, 1e-9) / job.size
            wanted = int(CHUNK_SECONDS / seconds)
            self._size = max(1, min(wanted, job.size * GROWTH, CHUNK_ITEMS))

    def _send(self) -> None:
        processors = sum(node.cpus for node in self._cluster.status().nodes) or 2
        while len(self._out) < CHUNKS_AHEAD * processors:
            items: Any
            if self._range is not None:
                items, self._range = self._range[: self._size], self._range[self._size :]
            else:
                items = list(islice(self._rest, self._size))
            if not items:
                return
            job = ChunkJob(number=next(self._cluster._session.numbers))
            job.size = len(items)
            try:
                job._payload = pack_items(self._cluster.name, items)
            except CannotPack as error:
                job.status, job.exception = Status.Cancelled, str(error)
            else:
                self._cluster._queue(job)
            self._out.append(job)


class _Walk:
    """Yields results one by one; a failed one raises, and the next call goes on behind it."""

    def __init__(self, results: list[Any]) -> None:
        self._rest = iter(results)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        value = next(self._rest)
        if isinstance(value, JobFailed):
            raise value
        if type(value) is not Failure:
            return value
        error: object = None
        if value.error is not None:
            try:
                error = unpack(value.error)
            except BaseException:  # foreign code: the exception's own class
                error = None
        if not isinstance(error, BaseException):
            error = JobFailed(value.text)
        raise error from RemoteTraceback(value.text)
