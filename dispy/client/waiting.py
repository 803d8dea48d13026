"""Events that work between the hub's thread and any thread of the user's program.

The embedding program may be patched by gevent: its `threading.Event` then blocks greenlets,
and must be set from another thread through the waiting hub's own loop.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any


def is_patched() -> bool:
    """Say whether this program's `threading` was patched by gevent."""
    monkey = sys.modules.get("gevent.monkey")
    # Without the function it is being imported at this moment, by the hub's thread.
    patched = getattr(monkey, "is_module_patched", None)
    return patched is not None and bool(patched("threading"))


def start_thread(run: Callable[[], None], name: str) -> None:
    """Run `run` on a thread of the operating system, also in a patched program."""
    if is_patched():
        from gevent import monkey

        monkey.get_original("_thread", "start_new_thread")(run, ())
    else:
        threading.Thread(target=run, name=name, daemon=True).start()


def make_lock() -> Any:
    """Return a lock of the operating system's threads, also in a patched program.

    Whoever holds it must not wait: a greenlet would hold up its whole thread.
    """
    if is_patched():
        from gevent import monkey

        return monkey.get_original("_thread", "allocate_lock")()
    return threading.Lock()


def make_event() -> threading.Event:
    """Return an event that any thread may set and any thread or greenlet may wait for."""
    return _CrossThreadEvent() if is_patched() else threading.Event()


class _CrossThreadEvent(threading.Event):
    """For patched programs: each waiting greenlet is woken through its own hub's loop."""

    def __init__(self) -> None:
        super().__init__()
        self._done = False
        self._guard = make_lock()
        self._wakers: list[Any] = []

    def is_set(self) -> bool:
        return self._done

    isSet = is_set

    def set(self) -> None:
        with self._guard:
            self._done = True
            wakers, self._wakers = self._wakers, []
            for waker in wakers:
                waker.send()

    def clear(self) -> None:
        self._done = False

    def wait(self, timeout: float | None = None) -> bool:
        import gevent

        hub = gevent.get_hub()
        with self._guard:
            if self._done:
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
        return self._done
