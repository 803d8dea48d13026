"""What a limit may be, what a worker undoes, and when a node is short of memory."""

import os
from typing import Any

import pytest

from dispy.client.options import take_options
from dispy.model.errors import DispyError
from dispy.model.limits import check_limits, limits_of_job
from dispy.model.settings import SETTINGS
from dispy.model.sizes import read_bytes, tell_bytes
from dispy.node.reserve import Reserve
from dispy.worker.limits import JobLimits


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096), ("2 GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("512m", 2**29),
        ("10 kB", 10_000), ("1k", 1024), ("1_000 b", 1000), ("0", 0), (" 3TB ", 3 * 10**12),
    ],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1 GB", "1 GBit", "nan", "inf", "GB", "1 2", "1e99"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of bytes|could not convert"):
        read_bytes(text)


def test_sizes_are_told_with_three_digits() -> None:
    told = [tell_bytes(size) for size in (0, 999, 1000, 1_536_000, 2 * 10**9, 5 * 10**15)]
    assert told == ["0 bytes", "999 bytes", "1 kB", "1.54 MB", "2 GB", "5e+03 TB"]


def test_a_size_may_be_said_in_every_place() -> None:
    setting = SETTINGS["client.memory"]
    assert setting.read("2 GB", "DISPY_MEMORY") == setting.check("2 GB", "file") == 2 * 10**9
    assert setting.check(2e9, "memory") == setting.check(2 * 10**9, "memory") == 2 * 10**9
    for nonsense in (True, 0.5, [], -1):
        with pytest.raises(DispyError, match="^memory: "):
            setting.check(nonsense, "memory")


def test_numbers_in_an_environment_become_text() -> None:
    own, options = take_options({"x": 1, "dispy_job_env": {"A": 1, "B": "b"}})
    assert (own, options) == ({"x": 1}, {"env": {"A": "1", "B": "b"}})
    with pytest.raises(DispyError, match="dispy_job_env: C is a text or a number, not None"):
        take_options({"dispy_job_env": {"C": None}})


@pytest.mark.parametrize(
    "table",
    [
        {"timeout": "1"}, {"timeout": -1}, {"memory": float("nan")}, {"cpu_time": True},
        {"nice": []}, {"env": ["A"]}, {"env": {"A": []}}, {"env": {"": "x"}}, {"grace": 2.0**63},
        {"jobs_per_worker": b"1"}, {"env": {1: "x"}}, {"env": {"A\0": "x"}},
    ],
)  # fmt: skip
def test_a_peer_s_nonsense_is_no_limit(table: dict[str, Any]) -> None:
    with pytest.raises(DispyError):
        check_limits(table)


def test_a_refusal_does_not_say_a_peer_s_megabytes_again() -> None:
    for name, text in (("a" * 5000, None), ("a=" * 5000, ""), ("a", "\0" * 5000)):
        with pytest.raises(DispyError) as refused:
            check_limits({"env": {name: text}})
        assert len(str(refused.value)) < 300


def test_what_a_job_says_wins_and_other_options_are_left_alone() -> None:
    table = {"timeout": 2, "stdin": b"x", "memory": None}
    assert check_limits(table) == {"timeout": 2}
    assert limits_of_job({"timeout": 9, "grace": 1}, table) == {
        "timeout": 2, "grace": 1, "memory": None,
    }  # fmt: skip


def test_a_node_is_short_of_memory_until_there_is_clearly_more() -> None:
    reserve = Reserve(1000, total=10**9)
    assert not reserve.look(1000)
    assert not reserve.short
    assert reserve.look(999)
    assert "999 bytes are available, and 1 kB are kept free" in reserve.short
    assert not reserve.look(1100), "it flaps"
    assert reserve.short
    assert reserve.look(1250)
    assert not reserve.short


def test_a_reserve_suits_the_machine_and_0_is_none() -> None:
    assert Reserve(None, total=4 * 10**9).kept == 2 * 10**8
    assert Reserve(None, total=10**12).kept == 10**9
    assert not Reserve(0, total=10**12).look(0)


def test_a_worker_that_may_not_become_urgent_again_is_worn() -> None:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:  # a process's niceness cannot be put back without a privilege
        if os.geteuid() == 0:
            os.setuid(65534)
        limits = JobLimits({})
        limits.surround()
        limits.begin({"nice": 3}, 0.0)
        nice = os.getpriority(os.PRIO_PROCESS, 0) - limits._urgency
        before = limits.is_worn()
        limits.end()
        os.write(theirs, f"{nice} {before} {limits.may_wear and limits.is_worn()}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    try:
        assert os.read(ours, 100) == b"3 False True"
    finally:
        os.close(ours)
        os.close(theirs)
