"""How often a node tells whom what it has to spare."""

from types import SimpleNamespace
from typing import Any

import pytest

from dispy.node.spare import SPARE_SECONDS, UNUSED_SECONDS, Spare


@pytest.mark.parametrize(
    ("uses", "pulse", "pause"),
    [
        (True, 0.0, SPARE_SECONDS),
        (True, 8.0, 8.0),
        (False, 8.0, UNUSED_SECONDS),
        (False, 60.0, 60.0),
    ],
)
def test_who_uses_a_node_is_told_more_often(uses: bool, pulse: float, pause: float) -> None:
    owner: Any = SimpleNamespace(owner_id="o", link=object(), pulse_seconds=pulse)
    spare = Spare({"o": owner}, lambda: "", lambda _: uses)
    try:
        assert spare._is_due(owner, 100.0), "at first in any case"
        spare._told["o"] = 100.0
        assert not spare._is_due(owner, 99.9 + pause)
        assert spare._is_due(owner, 100.0 + pause)
        owner.link = None
        assert not spare._is_due(owner, 1000.0), "it is away"
    finally:
        spare.stop()
