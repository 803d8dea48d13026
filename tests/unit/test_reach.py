"""A node of root's reaches processes and files of jobs with no more rights than these have."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from dispy.system.reach import (
    belongs_to,
    kill_all,
    signal_group,
    signal_process,
)

NOBODY = 65534
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root can become another user"
)
CAT = ["cat"]  # ends with its input, or by a signal


@pytest.fixture
def start() -> Iterator[Any]:
    started: list[subprocess.Popen[bytes]] = []

    def one(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
        )
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.communicate()


AS_NOBODY: dict[str, Any] = {
    "user": NOBODY, "group": NOBODY, "extra_groups": [NOBODY], "start_new_session": True,
}  # fmt: skip


def is_alive(process: subprocess.Popen[bytes]) -> bool:
    """Say whether it answers."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"x\n")
    process.stdin.flush()
    return process.stdout.readline() == b"x\n"


def test_no_process_of_another_user_is_signalled(start: Any) -> None:
    ours = start(CAT, start_new_session=True)
    signal_process(ours.pid, signal.SIGKILL, NOBODY)
    signal_group(ours.pid, signal.SIGKILL, NOBODY)
    kill_all([ours.pid], NOBODY)
    assert is_alive(ours)
    theirs = start(CAT, **AS_NOBODY)
    assert belongs_to(theirs.pid, NOBODY)
    signal_process(theirs.pid, signal.SIGTERM, NOBODY)
    assert theirs.wait(timeout=30) == -signal.SIGTERM
    assert not belongs_to(theirs.pid, NOBODY)


def test_a_process_that_gave_up_only_some_of_roots_rights_is_left_alone(start: Any) -> None:
    half = start(["setpriv", f"--euid={NOBODY}", *CAT], start_new_session=True)
    assert is_alive(half)
    signal_process(half.pid, signal.SIGKILL, NOBODY)
    assert is_alive(half)


def test_what_a_dead_leader_has_left_of_its_group_is_signalled(start: Any) -> None:
    leader = start(["sh", "-c", "exec 3<&0; cat <&3 & echo $!"], **AS_NOBODY)
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    leader.wait(timeout=30)
    assert not belongs_to(leader.pid, NOBODY)
    assert os.getpgid(child) == leader.pid
    signal_group(leader.pid, signal.SIGKILL, NOBODY)
    assert leader.stdout.read() == b"", "it ends with the child, which holds it open"
