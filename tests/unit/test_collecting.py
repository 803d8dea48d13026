"""What a program has not asked for stays with the scheduler, also what comes as it leaves."""

from types import SimpleNamespace
from typing import Any

from dispy.client.collecting import Collecting, KeptJob
from dispy.client.job import DispyJob
from dispy.protocol.messages import Kind


def test_an_end_that_comes_when_the_cluster_was_just_left_is_not_collected() -> None:
    said: list[tuple[int, Any]] = []
    remote = SimpleNamespace(say=lambda kind, body: said.append((kind, body)))
    jobs: dict[int, Any] = {1: KeptJob.__new__(KeptJob), 3: DispyJob.__new__(DispyJob)}
    collecting = Collecting(SimpleNamespace(jobs=jobs, remote=remote))  # type: ignore[arg-type]
    collecting.told(10, [1])
    collecting.told(11, [2])  # it was left to the scheduler
    assert said == []
    collecting.told(12, [3])  # a chunk of `map`, for this program alone
    assert said == [(Kind.COLLECTED, [[12]])]
