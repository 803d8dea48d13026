"""Events that work between the hub's thread and any thread of the user's program.

The embedding program may be patched by gevent: its `threading.Event` then blocks greenlets,
and must be set from another thread through the waiting hub's own loop.
"""

import contextlib
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("dispy.client")


def is_patched() -> bool:
    """Say whether this program's `threading` was patched by gevent."""
    monkey = sys.modules.get("gevent.monkey")
    # Without the function it is being imported at this moment, by the hub's thread.
    patched = getattr(monkey, "is_module_patched", None)
    return patched is not None and bool(patched("threading"))


def start_thread(run: Callable[[], None], name: str) -> threading.Thread | None:
    """Run `run` on a thread of the operating system, also in a patched program.

    A patched program's own kind of Thread is a greenlet, so that there is none to return.
    """
    if is_patched():
        from gevent import monkey

        monkey.get_original("_thread", "start_new_thread")(run, ())
        return None
    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def make_lock() -> Any:
    """Return a lock of the operating system's threads, also in a patched program.

    Whoever holds it must not wait: a greenlet would hold up its whole thread.
    """
    if is_patched():
        from gevent import monkey

        return monkey.get_original("_thread", "allocate_lock")()
    return threading.Lock()


def thread_number() -> int:
    """Return a number of the calling thread of the operating system, whatever greenlet runs."""
    if is_patched():
        from gevent import monkey

        number: int = monkey.get_original("_thread", "get_ident")()
        return number
    return threading.get_ident()


def make_event() -> "JobEvent":
    """Return an event that any thread may set and any thread or greenlet may wait for."""
    return _CrossThreadEvent() if is_patched() else JobEvent()


class JobEvent(threading.Event):
    """An event that can also call: `then` is for those who must not wait, as in asyncio.

    Waits on a lock of its own instead of a Condition, which costs 10 us of a round trip.
    """

    _calls: "deque[Callable[[], object]] | None" = None
    _is_set = False

    def __init__(self) -> None:  # nothing of the base class's own state is used
        self._sleepers: deque[Any] = deque()  # locks, each held until it is time to wake

    def is_set(self) -> bool:
        """Say whether it was set, and not cleared since."""
        return self._is_set

    isSet = is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, `timeout` seconds at most; say whether it is."""
        if self._is_set:
            return True
        sleeper = threading.Lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        if self._is_set:  # it came in between, and may have missed the sleeper
            return True
        if timeout is None:
            return bool(sleeper.acquire())
        if sleeper.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX))):
            return True
        with contextlib.suppress(ValueError):  # it came just now
            self._sleepers.remove(sleeper)
        return self._is_set

    def clear(self) -> None:
        """Make it an event that has not come."""
        self._is_set = False

    def then(self, call: Callable[[], object]) -> None:
        """Have `call` run once, in the thread that sets the event or, if it is set, here."""
        if self._calls is None:
            self._calls = deque()
        self._calls.append(call)
        if self._is_set:
            self._run_calls()

    def set(self) -> None:
        """Wake all who wait."""
        self._is_set = True
        while self._sleepers:
            with contextlib.suppress(IndexError):  # another thread sets it too
                self._sleepers.popleft().release()
        if self._calls is not None:
            self._run_calls()

    def _run_calls(self) -> None:
        calls = self._calls
        while calls:
            with contextlib.suppress(IndexError):  # the other side was faster
                call = calls.popleft()
                try:
                    call()
                except Exception:  # it is the event that must go on
                    logger.exception("a call at a job's end failed")


class _CrossThreadEvent(JobEvent):
    """For patched programs: each waiting greenlet is woken through its own hub's loop."""

    def __init__(self) -> None:
        super().__init__()
        self._guard = make_lock()
        self._wakers: list[Any] = []

    def set(self) -> None:
        with self._guard:
            self._is_set = True
            wakers, self._wakers = self._wakers, []
            for waker in wakers:
                waker.send()
        self._run_calls()

    def wait(self, timeout: float | None = None) -> bool:
        import gevent

        hub = gevent.get_hub()
        with self._guard:
            if self._is_set:
                return True
            waker = hub.loop.async_()
            self._wakers.append(waker)
        try:
            with gevent.Timeout(timeout, False):
                hub.wait(waker)
        finally:
            with self._guard:
                if waker in self._wakers:
                    self._wakers.remove(waker)
                waker.close()
        return self._is_set
