"""Waiting in programs that were patched by gevent, and in those that were not."""

import sys
import threading
from types import ModuleType

import pytest

from dispy.client.waiting import JobEvent, is_patched

DEADLINE = 30.0


def test_a_program_is_not_patched_while_the_hub_still_imports_gevent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gevent.monkey", ModuleType("gevent.monkey"))
    assert not is_patched()


def test_whoever_waits_is_woken_however_set_and_wait_cross() -> None:
    for _ in range(300):
        event, woken = JobEvent(), []

        def wait(event=event, woken=woken) -> None:
            woken.append(event.wait(DEADLINE))

        threads = [threading.Thread(target=wait) for _ in range(4)]
        for thread in threads[:2]:
            thread.start()
        event.set()
        for thread in threads[2:]:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert woken == [True] * 4


def test_a_wait_ends_in_time_and_a_cleared_event_is_waited_for_again() -> None:
    event = JobEvent()
    assert event.wait(0.001) is False
    assert event.wait(0) is False
    assert not event._sleepers, "who gave up still sleeps there"
    event.set()
    assert event.wait(0) is event.is_set() is True
    event.clear()
    assert event.wait(0.001) is False


def test_an_event_calls_once_also_when_it_was_set_before() -> None:
    event, called = JobEvent(), []
    event.then(lambda: called.append("first"))
    event.set()
    event.set()
    event.then(lambda: called.append("second"))
    assert called == ["first", "second"]
