"""The thread on which a client's links and scheduler live: a gevent hub of its own.

Calls cross into it in order. A caller wakes the hub only when it is not awake already, so that
one wake-up serves a whole burst.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from dispy.client.waiting import is_patched, make_event, start_thread
from dispy.model.errors import DispyError

logger = logging.getLogger("dispy.client")

Result = TypeVar("Result")

LOOK_AGAIN_SECONDS = 0.5
END_SECONDS = 5.0  # that the thread may take to end


class Hub:
    """Owns the thread; `call` from any thread, never from the hub itself."""

    def __init__(self, look_again: Callable[[], None]) -> None:
        self._look_again = look_again  # called now and then, in case a wake-up was cut short
        self._calls: deque[Callable[[], Any]] = deque()
        self._wake: Any = None
        self._awake = True  # until the loop runs
        self._over: Any = None  # of the hub's own kind of events
        self._ended = make_event()
        if is_patched():
            _import_everything()
        self._thread = start_thread(self._run, "dispy-hub")

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self._ended.set()

    def _serve(self) -> None:
        from gevent.event import Event
        from gevent.hub import Hub as GeventHub
        from gevent.hub import set_hub

        # Not the default loop, although gevent takes this thread for the main one if it was first
        # imported here: a child forked meanwhile would find that loop in the middle of a run.
        hub = GeventHub(default=False)
        set_hub(hub)
        self._over = Event()
        hub.print_exception = _log_exception
        self._wake = hub.loop.async_()
        self._wake.start(self._take_calls)
        while not self._over.is_set():
            # A Ctrl-C in `post` may hit between the two lines that wake the hub.
            self._take_calls()
            self._look_again()
            self._over.wait(timeout=LOOK_AGAIN_SECONDS)
        self._awake = True  # nobody need wake it any more
        self._wake.close()
        hub.destroy()

    def end(self) -> None:
        """End the thread, and return when it has; later posts are ignored.

        A thread that still switches greenlets while the interpreter ends crashes the program:
        CPython unwinds its stack, and that of a greenlet cannot be unwound.
        """
        self.post(lambda: self._over.set())
        self._ended.wait(END_SECONDS)
        if self._thread is not None:
            self._thread.join(END_SECONDS)

    def post(self, call: Callable[[], Any]) -> None:
        """Have `call` run on the hub soon; it must not wait. Thread-safe, about 1 us."""
        if self._ended.is_set():
            return
        self._calls.append(call)
        if not self._awake:
            self._awake = True
            self._wake.send()

    def _take_calls(self) -> None:
        self._awake = False
        calls = self._calls
        while calls:
            call = calls.popleft()
            try:
                call()
            except Exception:  # a bug of ours must not end the loop for everybody
                logger.exception("a call on the hub failed")

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run a function in a greenlet of the hub, where it may wait; return its result.

        Raises DispyError once the hub has ended.
        """
        if self._ended.is_set():
            raise DispyError("this program has ended its clusters; nothing more can be done here")

        done = make_event()
        outcome: list[Any] = [None, None]

        def run() -> None:
            try:
                outcome[0] = function(*arguments)
            except BaseException as error:  # handed to the caller, whatever it is
                outcome[1] = error
            finally:
                done.set()

        self.post(lambda: _spawn(run))
        done.wait()
        if outcome[1] is not None:
            raise outcome[1]
        result: Result = outcome[0]
        return result


def _import_everything() -> None:
    """Import here what the hub will import, and have gevent import what it does on its first use.

    The locks of imports are gevent's own in a patched program. A thread that has to wait for one
    while it makes its hub makes another hub for that wait, and neither is ever done.
    """
    import tempfile  # noqa: F401

    import gevent

    import dispy.client.asking
    import dispy.client.discovery
    import dispy.client.recovery_writer
    import dispy.scheduler.service
    import dispy.shipping.arriving  # noqa: F401

    hub = gevent.get_hub()
    assert hub.resolver is not None
    assert hub.threadpool is not None


def _spawn(run: Callable[[], None]) -> None:
    """Start a greenlet; on the hub, which alone imports gevent.

    A caller that waits for that import may be hit by Ctrl-C while it holds the lock of all
    imports (CPython 3.11), and the hub then waits for that lock forever.
    """
    import gevent

    gevent.spawn(run)


def _log_exception(context: Any, kind: Any, value: Any, traceback: Any) -> None:
    if not issubclass(kind, (SystemExit, KeyboardInterrupt)):
        logger.error("a greenlet failed", exc_info=(kind, value, traceback))
