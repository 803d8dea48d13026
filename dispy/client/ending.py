"""What happens when a program with clusters ends, however that comes about."""

import _imp
import atexit
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispy.client.cluster import JobCluster
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")

PATIENCE_SECONDS = 2.0  # with the jobs of a program that has ended, before it says so


def end_with_program(session: "Session", this: Callable[[], None]) -> None:
    """Wait for the jobs of a program that ends; not where it ends by an error or Ctrl-C.

    `this` is the exit function that calls it.
    """
    interrupted = False
    release_imports()
    try:
        if not ends_at_once():
            wait_for_all(list(session.clusters.values()))
    except KeyboardInterrupt:
        interrupted = True
    with undisturbed():
        if session.terminal is not None:
            session.terminal.flush()
        session.failures.tell()
        session.end()
    if interrupted:
        die_of_interrupt(this)


def release_imports() -> None:
    """Give up the lock of all imports, where a Ctrl-C in the midst of one has left it with us.

    CPython loses it then: no thread but this one could import any more, and the hub, which may
    be importing, would never answer. Only for moments at which this thread imports nothing.
    """
    with contextlib.suppress(RuntimeError):  # "not holding the import lock"
        while True:
            _imp.release_lock()


@contextlib.contextmanager
def interrupted_after() -> Iterator[None]:
    """Have a Ctrl-C that comes meanwhile count at the end: around imports beside the hub's.

    One in the midst of an import can be lost for good, with the lock that `release_imports`
    knows of. In other threads than the main one there is none.
    """
    came: list[tuple[Any, ...]] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *told: came.append(told))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        before(*came[0])


def ends_at_once() -> bool:
    """Say whether this program ends by an uncaught exception, or is a notebook's kernel.

    An interactive interpreter remembers each exception and goes on: its end is a normal one.
    """
    failed = getattr(sys, "last_value", None) is not None and not hasattr(sys, "ps1")
    return failed or "ipykernel.kernelapp" in sys.modules


def wait_for_all(clusters: "Sequence[JobCluster]") -> None:
    """Wait for the jobs of clusters and close these; KeyboardInterrupt ends it."""
    for cluster in clusters:
        if not cluster.wait(PATIENCE_SECONDS) and cluster.status().jobs_pending:
            logger.warning(
                "the program has ended and waits for %d jobs of %s; Ctrl-C ends it at once",
                cluster.status().jobs_pending, cluster.name,
            )  # fmt: skip
        cluster.close()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C for the seconds that an end may take: half of one crashes the program."""
    before = None
    try:
        with contextlib.suppress(ValueError):  # not the main thread, which alone is interrupted
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        yield
    except KeyboardInterrupt:
        logger.debug("interrupted at the very end")
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def die_of_interrupt(this: Callable[[], None]) -> None:
    """Run the exit functions after `this`, then end as a program does that Ctrl-C has ended.

    What an exit function raises does not become a program's exit status.
    """
    atexit.unregister(this)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or a pipe that nobody reads
            stream.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)
