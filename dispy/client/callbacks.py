"""The one thread on which a program's callbacks run, in order, off the hub."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from dispy.client.waiting import make_lock, start_thread

logger = logging.getLogger("dispy.client")


class Callbacks:
    """A queue of calls; what a call raises is logged, and a slow one delays only later calls."""

    def __init__(self) -> None:
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._guard = make_lock()
        self._signal = make_lock()
        self._signal.acquire()
        self._asleep = False
        self._started = False

    def put(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have a call run after all that were put before it. Thread-safe."""
        with self._guard:
            self._calls.append((function, arguments))
            if not self._started:
                self._started = True
                start_thread(self._run, "dispy-callbacks")
            elif self._asleep:
                self._asleep = False
                self._signal.release()

    def start(self) -> None:
        """Start the thread now: a program at its end may not start threads any more."""
        self.put(int)

    def _run(self) -> None:
        while True:
            with self._guard:
                call = self._calls.popleft() if self._calls else None
                self._asleep = call is None
            if call is None:
                self._signal.acquire()
                continue
            function, arguments = call
            try:
                function(*arguments)
            except BaseException:  # the user's own code; SystemExit ends nothing here
                logger.exception("callback %r failed", getattr(function, "__name__", function))
