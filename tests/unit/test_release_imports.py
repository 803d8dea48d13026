"""What a Ctrl-C in the midst of an import may leave behind, and that it is given up."""

import _imp
import contextlib
import signal
import threading
from importlib import import_module

import pytest

from dispy.client.ending import interrupted_after, release_imports


def test_another_thread_can_import_after_an_import_was_cut_short() -> None:
    for _ in range(2):  # as an interrupted import leaves it, once for each that was under way
        _imp.acquire_lock()
    done = threading.Event()

    def try_it() -> None:
        with contextlib.suppress(ImportError):
            import_module("a_module_that_does_not_exist")
        done.set()

    thread = threading.Thread(target=try_it, daemon=True)
    thread.start()
    assert not done.wait(0.1), "it waits for the lock"
    release_imports()
    assert done.wait(30)
    thread.join()
    assert not _imp.lock_held()


def test_nothing_happens_where_nothing_was_left() -> None:
    release_imports()
    assert not _imp.lock_held()


def interrupted(steps: list[str], error: Exception | None = None) -> None:
    with interrupted_after():
        signal.raise_signal(signal.SIGINT)
        steps.append("went on")
        if error is not None:
            raise error
    steps.append("after it")


def test_an_interrupt_waits_for_the_end_and_is_not_lost() -> None:
    before, steps = signal.getsignal(signal.SIGINT), list[str]()
    with pytest.raises(KeyboardInterrupt):
        interrupted(steps)
    assert steps == ["went on"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_within_is_what_is_told() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ImportError):
        interrupted([], ImportError())
    assert signal.getsignal(signal.SIGINT) is before
