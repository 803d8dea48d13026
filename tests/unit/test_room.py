"""How many nodes and programs a scheduler has room for, by the limit of descriptors."""

import subprocess
import sys

import pytest

from dispy.protocol.admission import CONNECTIONS
from dispy.scheduler.room import RESERVE, room_for


@pytest.mark.parametrize("descriptors", [64, 100, 256, 1024, 4096, 20_000, 1_000_000])
def test_nodes_programs_and_strangers_together_fit_below_the_limit(descriptors: int) -> None:
    room = room_for(descriptors)
    assert room.nodes is not None
    assert room.nodes >= 1
    assert 1 <= room.door.known <= CONNECTIONS
    assert room.nodes + room.door.known + 2 * room.door.strangers + RESERVE <= descriptors
    assert bool(room.warning()) == (descriptors < 4096)
    assert f"{descriptors} descriptors: room for {room.nodes} nodes" in room.tell()


def test_ten_thousand_nodes_and_thousands_of_programs_fit_below_a_usual_limit() -> None:
    room = room_for(20_000)
    assert room.nodes is not None
    assert room.nodes > 10_000
    assert room.door.known > 1000
    assert room_for(None).nodes is None
    assert not room_for(None).warning()


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    script = (
        "import resource; from dispy.system.descriptors import raise_descriptor_limit as more\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128)); print(more(), more())"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "128 128\n"
