"""The one thread on which a program's callbacks run, in order, off the hub."""

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from dispy.client.waiting import make_lock, start_thread, thread_number

logger = logging.getLogger("dispy.client")


class Callbacks:
    """A queue of calls; what a call raises is logged, and a slow one delays only later calls."""

    def __init__(self, name: str = "dispy-callbacks") -> None:
        self._name = name
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._guard = make_lock()
        self._signal = make_lock()
        self._signal.acquire()
        self._asleep = False
        self._started = False
        self._thread = 0
        self._running: tuple[object, float] | None = None  # the call that runs, and since when

    def put(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a call run after all that were put before it. Thread-safe."""
        with self._guard:
            self._calls.append((function, arguments))
            if not self._started:
                self._started = True
                start_thread(self._run, self._name)
            elif self._asleep:
                self._asleep = False
                self._signal.release()

    def start(self) -> None:
        """Start the thread now: a program at its end may not start threads any more."""
        if not self._started:
            self.put(int)

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is the callbacks' own."""
        return self._thread == thread_number()

    def running_longer_than(self, seconds: float) -> object | None:
        """Return the call that has been running for so long, or None."""
        running = self._running
        return running[0] if running is not None and monotonic() - running[1] > seconds else None

    def _run(self) -> None:
        self._thread = thread_number()
        while True:
            with self._guard:
                call = self._calls.popleft() if self._calls else None
                self._asleep = call is None
                self._running = (call, monotonic()) if call is not None else None
            if call is None:
                self._signal.acquire()
                continue
            call_safely(call[0], None, *call[1])


def call_safely(callback: Callable[..., Any], job: Any, *arguments: Any) -> None:
    """Call the user's own code; what it raises is logged with the job's id and goes no further."""
    try:
        callback(*arguments)
    except BaseException:  # foreign code; SystemExit ends nothing here
        name = getattr(callback, "__name__", callback)
        if job is None:
            logger.exception("callback %r failed", name)
        else:
            logger.exception("callback %r failed for job %r", name, job.id)
