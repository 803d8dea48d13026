"""What a callback gets for a provisional result: the job as it was at that moment.

The job itself may be further by the time the callback runs. What the callback writes to `id` or
`result` reaches the job, as in dispy 4, where it was the same object; and the two are equal.
"""

from typing import Any

from dispy.client.job import DispyJob
from dispy.client.waiting import JobEvent
from dispy.protocol.messages import Payload


class InterimJob(DispyJob):
    """A view of `job` with the status and result that it had when this was made, on the hub."""

    __slots__ = ("_job", "_sent")
    _job: DispyJob
    _sent: Payload | None  # the provisional value as it came

    def __init__(self, job: DispyJob) -> None:
        self._job, self._sent = job, job._packed
        for name in DispyJob.__slots__:
            if name not in ("id", "__weakref__"):
                object.__setattr__(self, name, getattr(job, name))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "result" and self._sent is not None and self._job._packed is self._sent:
            self._job.result = value  # often None: the user has taken it, nobody need keep it
        object.__setattr__(self, name, value)

    @property
    def id(self) -> Any:
        """The user's own name of the job, read from and written to the job itself."""
        return self._job.id

    @id.setter
    def id(self, value: Any) -> None:
        self._job.id = value

    @property
    def finish(self) -> JobEvent:
        """The event of the job itself."""
        return self._job.finish

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the job itself."""
        return self._job.wait(timeout)

    def __call__(self, clear: bool = False) -> Any:
        """Wait for the end of the job itself and return its final result."""
        return self._job(clear)

    def get(self, timeout: float | None = None) -> Any:
        """As `__call__`, and raise what the job raised."""
        return self._job.get(timeout)

    def __eq__(self, other: object) -> bool:
        return other is self._job or (isinstance(other, InterimJob) and other._job is self._job)

    def __hash__(self) -> int:
        return hash(self._job)
