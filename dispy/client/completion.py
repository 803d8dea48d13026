"""Jobs in the order in which they end."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic

from dispy.client.job import DispyJob
from dispy.client.waiting import make_event


def as_completed(jobs: Iterable[DispyJob], timeout: float | None = None) -> Iterator[DispyJob]:
    """Yield jobs of any clusters as they end, those that have ended first.

    Raises TimeoutError when the next does not end within `timeout` seconds of the call.
    """
    deadline = None if timeout is None else monotonic() + timeout
    return _in_order({job._number: job for job in jobs}, timeout, deadline)


def _in_order(
    left: dict[int, DispyJob], timeout: float | None, deadline: float | None
) -> Iterator[DispyJob]:
    arrived: deque[DispyJob] = deque()
    more = make_event()

    def listen(done: Sequence[DispyJob]) -> None:
        arrived.extend(done)
        more.set()

    clusters = {job._cluster for job in left.values() if job._cluster is not None}
    for cluster in clusters:
        cluster._session.check_process()
        cluster._listeners.append(listen)
    try:
        arrived.extend([job for job in left.values() if job.done])
        while left:
            more.clear()
            while arrived:
                job = arrived.popleft()
                if left.pop(job._number, None) is not None:
                    yield job
            if left and not arrived:
                pause = None if deadline is None else max(0.0, deadline - monotonic())
                if not more.wait(pause) and not arrived:
                    raise TimeoutError(f"{len(left)} jobs are not done after {timeout} seconds")
    finally:
        for cluster in clusters:
            cluster._listeners.remove(listen)
