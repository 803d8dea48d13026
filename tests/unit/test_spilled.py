"""The file of what a node owes clients that are away."""

from pathlib import Path

import pytest

from dispy.node.owed import Owed
from dispy.node.spilled import Spilled
from dispy.protocol.messages import Kind

GOOD = Owed(Kind.RESULTS, [1, 7], (), 1)
BAD = Owed(Kind.RESULTS, [2, object()], (), 1)  # cannot be written, as on a full disk


def test_a_first_write_that_fails_leaves_no_file(tmp_path: Path) -> None:
    spilled = Spilled(tmp_path)
    with pytest.raises(TypeError):
        spilled.write("identity", "name", 0.0, [GOOD, BAD])
    assert not list(tmp_path.iterdir())


def test_a_later_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    spilled = Spilled(tmp_path)
    spilled.write("identity", "name", 0.0, [GOOD])
    with pytest.raises(TypeError):
        spilled.write("identity", "name", 0.0, [BAD])
    assert [owed.body for owed in spilled.read("identity", 0, 9, 1)] == [[1, 7]]
    spilled.close()
