"""`JobCluster.map`: one call for each item, sent in chunks that grow with what was measured.

A chunk is one job inside. The first chunks hold one item; then a chunk holds about
CHUNK_SECONDS of measured work, and enough chunks are out to keep every worker busy. Results
come out in order. Plain lists are chained, so that an item costs no Python code of ours; only a
chunk with failures is walked item by item. `itertools.chain` goes on with the same list after
an exception, which is what lets `next` continue behind a failed item.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from dispy.client.calling import need
from dispy.client.job import DispyJob, JobFailed, RemoteTraceback
from dispy.model.errors import DispyError
from dispy.model.statuses import FINAL, Status
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

    is_call = False
    __slots__ = ("items", "refusal")
    items: Sequence[Any]
    refusal: CannotPack | None  # why it was not sent

    def __init__(self, items: Sequence[Any], number: int) -> None:
        super().__init__(number=number)
        self.items, self.refusal = items, None


def map_calls(
    cluster: "JobCluster", iterable: Iterable[Any], chunksize: int | None
) -> Iterator[Any]:
    """Return the iterator of `JobCluster.map`; sends the first chunks at once."""
    if cluster._is_program:
        raise DispyError(f"map calls a function for each item; {cluster.name} is a program")
    if chunksize is not None and (
        isinstance(chunksize, bool) or not isinstance(chunksize, int) or chunksize < 1
    ):
        raise DispyError(f"chunksize is a number of items, at least 1, not {chunksize!r}")
    if not cluster._open:
        raise cluster._closed_error()
    return chain.from_iterable(_Chunks(cluster, iterable, chunksize))


class _Chunks:
    """Iterates over the results of chunks, in order, and sends more while it is asked.

    What ends the items early, an exception of the iterable or a closed cluster, is raised
    behind the results of what was sent before.
    """

    def __init__(
        self, cluster: "JobCluster", iterable: Iterable[Any], chunksize: int | None
    ) -> None:
        self._cluster, self._fixed = cluster, chunksize
        self._size = chunksize or 1
        self._out: deque[ChunkJob] = deque()
        self._early_end: BaseException | None = None
        # A range is cut, not listed: a chunk of it is a few bytes on the wire.
        self._range = iterable if isinstance(iterable, range) else None
        self._rest = iter(iterable)
        self._send()

    def __iter__(self) -> Iterator[Iterable[Any]]:
        return self

    def __next__(self) -> Iterable[Any]:
        self._send()
        if not self._out:
            error, self._early_end, self._range, self._rest = (
                self._early_end, None, None, iter(()),
            )  # fmt: skip
            if error is not None:
                raise error
            raise StopIteration
        job = self._out[0]
        if job._cluster is None and job.refusal is None:
            self._send_late(job)
        job.wait()
        if self._out.popleft() is not job:
            raise DispyError("an iterator of map belongs to one thread at a time")
        results: Any = job.result if job.status == Status.Finished else None
        if job.status != Status.Finished:  # asked again: a result that cannot be rebuilt fails
            return self._without_results(job)
        self._measure(job)
        self._send()
        values, has_failures = results
        return _Walk(values) if has_failures else values

    def __del__(self) -> None:
        """Cancel what nobody will ask for; in any thread, so without waiting."""
        jobs = [job for job in self._out if job.status not in FINAL]
        if jobs and not self._cluster._session.forked:
            self._cluster._session.hub.post(partial(self._cluster._cancel_all, jobs))

    def _without_results(self, job: ChunkJob) -> Iterable[Any]:
        """Try each call alone if it may run twice; else fail them all for the chunk's reason.

        One after the other: when a worker dies, any of the jobs in its hands may be blamed.
        """
        retried = job.status in (Status.Terminated, Status.Abandoned)
        if retried and self._cluster.reentrant and self._cluster._open and len(job.items) > 1:
            for at in reversed(range(len(job.items))):
                self._out.extendleft(reversed(self._pack(job.items[at : at + 1])))
            return ()
        error: DispyError | None = job.refusal
        if error is None:
            rest = f" (with {len(job.items) - 1} others in its chunk)" if job.items[1:] else ""
            error = JobFailed(f"a call of {self._cluster.name} was lost{rest}: {job._exception}")
        return _Walk([_Raise(error)] * len(job.items))

    def _measure(self, job: ChunkJob) -> None:
        if self._fixed is None and job.start_time is not None and job.end_time is not None:
            seconds = max(job.end_time - job.start_time, 1e-9) / len(job.items)
            wanted = int(CHUNK_SECONDS / seconds)
            self._size = max(1, min(wanted, len(job.items) * GROWTH, CHUNK_ITEMS))

    def _send(self) -> None:
        processors = sum(node.cpus for node in self._cluster.status().nodes) or 2
        while len(self._out) < CHUNKS_AHEAD * processors and self._early_end is None:
            items = self._take()
            if not items:
                return
            for job in self._pack(items):
                try:
                    if job.refusal is None:
                        self._cluster._queue(job)
                except AttributeError as closed:
                    self._early_end = closed
                    return
                self._out.append(job)

    def _send_late(self, job: ChunkJob) -> None:
        try:
            self._cluster._queue(job)
        except AttributeError as closed:
            job.status, job.exception = Status.Cancelled, str(closed)

    def _take(self) -> Sequence[Any]:
        """Take the items of the next chunk; what the iterable raises comes later."""
        if self._range is not None:
            items, self._range = self._range[: self._size], self._range[self._size :]
            return items
        taken: list[Any] = []
        try:
            taken.extend(islice(self._rest, self._size))  # keeps what came before an exception
        except Exception as error:  # the user's own generator
            self._early_end = error
        return taken

    def _pack(self, items: Sequence[Any]) -> list[ChunkJob]:
        """Make a chunk; items that cannot be sent are found by halving it, and fail alone."""
        job = ChunkJob(items, next(self._cluster._session.numbers))
        try:
            self._pack_items(job, items)
        except CannotPack as error:
            if len(items) > 1:
                half = len(items) // 2
                return self._pack(items[:half]) + self._pack(items[half:])
            job.status, job.refusal = Status.Cancelled, error
        return [job]

    def _pack_items(self, job: ChunkJob, items: Sequence[Any]) -> None:
        session, name = self._cluster._session, self._cluster.name
        if not session.large.in_use:
            job._payload = pack_items(name, items)
            return
        options: dict[str, Any] = {}
        job._payload, needed = session.large.noting(lambda: pack_items(name, items))
        need(session, job._number, options, needed)
        if options:
            session.options[job._number] = options


class _Raise:
    """Stands in the place of a result that does not exist."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Walk:
    """Yields results one by one; a failed one raises, and the next call goes on behind it."""

    def __init__(self, results: list[Any]) -> None:
        self._rest = iter(results)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        value = next(self._rest)
        if type(value) is _Raise:
            raise value.error
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
