"""Which nodes are drained outlives the scheduler; what cannot be read or written is told."""

from pathlib import Path

import pytest

from dispy.scheduler.drained import NAME, Drained
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Node


def core_of(*names: str) -> Scheduling:
    core = Scheduling()
    for name in names:
        core.node_joined(Node(name, name, 1))
    return core


def test_nodes_stay_drained_also_those_that_come_back_later(tmp_path: Path) -> None:
    core = core_of("a", "b", "c")
    drained = Drained(str(tmp_path), core)
    for name, why in (("a", "by ann"), ("b", "by ben"), ("c", "by cy"), ("b", "")):
        core.drains.drain(core.nodes[name], why)
        drained.write()
    again = core_of("a", "b")
    Drained(str(tmp_path), again)
    again.node_joined(Node("c", "c", 1))
    assert {name: node.drained for name, node in again.nodes.items()} == {
        "a": "by ann", "b": "", "c": "by cy",
    }  # fmt: skip
    again.node_lost("a", "its link broke", 1.0)
    again.node_joined(Node("a", "a", 1))
    assert again.nodes["a"].drained == "by ann"
    Drained(None, again).write()


@pytest.mark.parametrize("content", ["", "[1]", "{", "7"])
def test_a_damaged_file_is_told_and_nothing_is_drained(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_text(content)
    (tmp_path / NAME).chmod(0o600)
    core = core_of("a")
    Drained(str(tmp_path), core)
    assert not core.nodes["a"].drained
    assert "which nodes were drained is not known" in caplog.text


def test_a_disk_that_takes_nothing_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    Drained(str(tmp_path / "file"), core_of()).write()
    assert "is forgotten at a restart" in caplog.text
