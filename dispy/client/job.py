"""A job as its submitter holds it."""

import contextlib
import logging
from collections.abc import Generator
from functools import partial
from time import time
from typing import Any

from dispy.client.waiting import JobEvent, make_event
from dispy.model.errors import DispyError
from dispy.model.statuses import FINAL, Status
from dispy.protocol.messages import Payload
from dispy.shipping.payloads import unpack

logger = logging.getLogger("dispy.client")

_NO_KEYWORDS: dict[str, Any] = {}  # shared: an empty dictionary costs 64 bytes a job


class JobFailed(DispyError):
    """A job ended without a result, and there is no exception of its own to raise."""


class RemoteTraceback(Exception):
    """The traceback of an exception that a job raised, as text; its cause."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class DispyJob:
    """One call of a computation, or one run of a program.

    Attributes, as in dispy 4: `id` (the user's own, any object; a counter until it is set),
    `args`, `kwargs`, `status`, `result`, `stdout`, `stderr` (str; bytes for programs),
    `exception` (traceback text or None), `ip_addr`, `submit_time`, `start_time`, `end_time`
    (seconds since the epoch), `finish` (an event, set at the end).

    Written by the hub's thread, read by any. A result is rebuilt in the thread that first asks.
    """

    is_call = True  # the user's own: callbacks are told of it

    __slots__ = (
        "id", "args", "kwargs", "status", "stdout", "stderr", "ip_addr", "submit_time",
        "start_time", "end_time", "_number", "_cluster", "_payload", "_packed", "_value",
        "_exception", "_error", "_finish", "__weakref__",
    )  # fmt: skip

    Created = Status.Created
    Running = Status.Running
    ProvisionalResult = Status.ProvisionalResult
    Cancelled = Status.Cancelled
    Terminated = Status.Terminated
    Abandoned = Status.Abandoned
    Finished = Status.Finished

    def __init__(
        self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, number: int = 0
    ) -> None:
        self.id: Any = number
        self.args, self.kwargs = args, kwargs or _NO_KEYWORDS
        self.status: Status = Status.Created
        self.stdout: Any = None
        self.stderr: Any = None
        self.ip_addr: str | None = None
        self.submit_time: float | None = time()
        self.start_time: float | None = None
        self.end_time: float | None = None
        self._number = number
        self._cluster: Any = None
        self._payload: Payload | None = None
        self._packed: Payload | None = None  # the result before anybody asked for it
        self._value: Any = None
        self._exception: str | None = None
        self._error: bytes | None = None
        self._finish: JobEvent | None = None

    @property
    def _args(self) -> tuple[Any, ...]:
        return self.args

    @property
    def _kwargs(self) -> dict[str, Any]:
        return self.kwargs

    @property
    def done(self) -> bool:
        """Whether the job has its final status."""
        return self.status in FINAL

    @property
    def finish(self) -> JobEvent:
        """An event that is set when the job is done; made when first asked for."""
        event = self._finish
        if event is None:
            event = self._finish = make_event()
            if self.status in FINAL:  # read after the event is there for the hub to set
                event.set()
        return event

    @property
    def exception(self) -> str | None:
        """The traceback of what the job raised, or the reason why it has no result, or None."""
        if self._exception is not None:
            self._seen()
        return self._exception

    @exception.setter
    def exception(self, text: str | None) -> None:
        self._exception = text

    def _seen(self) -> None:
        """Note that somebody looks at a failure, which need not be told at the end then."""
        if self._cluster is not None:
            self._cluster._session.failures.seen(self._number)

    @property
    def result(self) -> Any:
        """The return value or exit status; the newest provisional value; None without one."""
        packed = self._packed
        if packed is not None:
            try:
                self._value = unpack(packed)
            except BaseException as error:  # foreign code: the result's own classes
                self._exception = f"its result could not be rebuilt: {error!r}"
                if self.status == Status.Finished:
                    self.status = Status.Terminated
                logger.error("job %r: %s", self.id, self._exception)
            self._packed = None
        return self._value

    @result.setter
    def result(self, value: Any) -> None:
        self._packed, self._value = None, value

    def __call__(self, clear: bool = False) -> Any:
        """Wait for the job's end and return its result, None if it failed.

        `clear` re-arms `finish`, for jobs that are waited for again after a provisional result.
        """
        self.wait()
        if clear and self._finish is not None:
            self._finish.clear()
        return self.result

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end, `timeout` seconds at most; say whether the job is done.

        Ctrl-C leaves the job running. Raises DispyError where it can never end: in a process
        that was forked from the one that submitted it, or for a job that nobody submitted.
        """
        if self.status in FINAL:
            return True
        if self._cluster is None:
            raise DispyError("this job was not submitted; jobs come from `cluster.submit`")
        self._cluster._session.check_process()
        try:
            return self.finish.wait(timeout)
        except KeyboardInterrupt:
            logger.warning("interrupted while waiting for %r: %s", self, self._cluster._standing())
            raise

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the result, or raise what the job raised.

        The exception's cause is the traceback on the node. Raises TimeoutError after
        `timeout` seconds, and JobFailed where the job raised nothing itself.
        """
        if not self.wait(timeout):
            raise TimeoutError(f"job {self.id!r} is not done after {timeout:g} seconds")
        result = self.result
        if self.status == Status.Finished:
            return result
        self._seen()
        error: BaseException | None = None
        if self._error is not None:
            try:
                error = unpack(self._error)
            except BaseException:  # foreign code: the exception's own class
                logger.debug("the exception of job %r could not be rebuilt", self.id)
        if not isinstance(error, BaseException):
            raise JobFailed(f"job {self.id!r} was {self.status.name}: {self._exception}")
        raise error from RemoteTraceback(self._exception or "")

    def __await__(self) -> Generator[Any, None, Any]:
        """In asyncio: `await job` gives the result, or raises what the job raised."""
        if self.status not in FINAL:
            import asyncio

            loop = asyncio.get_running_loop()
            waiting: asyncio.Future[None] = loop.create_future()
            self.finish.then(partial(_wake_in, loop, waiting))
            yield from waiting
        return self.get()

    def why(self) -> str:
        """Say why the job has not started, node by node, or where it is; one line for each."""
        if self._cluster is None:
            return "it was not submitted"
        text: str = self._cluster._why(self)
        return text

    def __repr__(self) -> str:
        return f"<DispyJob {self.id!r} {self.status.name}>"


def _wake_in(loop: Any, waiting: Any) -> None:
    """On the hub: resume whoever awaits a job, in the thread of the loop that it runs in."""

    def resume() -> None:
        if not waiting.done():
            waiting.set_result(None)

    with contextlib.suppress(RuntimeError):  # that loop has been closed; nobody waits any more
        loop.call_soon_threadsafe(resume)
