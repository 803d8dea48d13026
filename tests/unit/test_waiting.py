"""Waiting in programs that were patched by gevent, and in those that were not."""

import sys
from types import ModuleType

import pytest

from dispy.client.waiting import is_patched


def test_a_program_is_not_patched_while_the_hub_still_imports_gevent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gevent.monkey", ModuleType("gevent.monkey"))
    assert not is_patched()
