"""Large data of every usual kind goes to a job and back whole, beside its pickle."""

import os
from collections.abc import Callable
from typing import Any

import numpy
import pandas
import pytest
from system.conftest import DEADLINE, Gate

from dispy import JobCluster

Open = Callable[..., JobCluster]

SIZE = 3 * 1024 * 1024  # bytes, at least


def echo(value: Any) -> Any:
    return value


def numbers(*shape: int) -> Any:
    return numpy.arange(numpy.prod(shape), dtype=numpy.float64).reshape(shape)


def frame() -> Any:
    rows = SIZE // 16
    return pandas.DataFrame(
        {"a": numpy.arange(rows), "b": numpy.arange(rows) / 7, "c": ["text", None] * (rows // 2)},
        index=pandas.date_range("2020-01-01", periods=rows, freq="s"),
    )


KINDS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: os.urandom(SIZE),
    "bytearray": lambda: bytearray(os.urandom(SIZE)),
    "memoryview": lambda: memoryview(os.urandom(SIZE)),
    "small memoryview": lambda: memoryview(b"small"),
    "memoryview of numbers": lambda: memoryview(numbers(512, 1024)),
    "strided memoryview": lambda: memoryview(os.urandom(2 * SIZE))[::2],
    "array": lambda: numbers(SIZE // 8),
    "Fortran's order": lambda: numpy.asfortranarray(numbers(512, 1024)),
    "a part of an array": lambda: numbers(1024, 1024)[100:900:2, ::3],
    "arrays in a dictionary": lambda: {"x": numbers(SIZE // 8), "y": [numbers(SIZE // 8)]},
    "array of objects": lambda: numpy.array(["a", None, 5], dtype=object),
    "records": lambda: numpy.zeros(SIZE // 12, dtype=[("a", "i4"), ("b", "f8")]),
    "data frame": frame,
    "series": lambda: frame()["b"],
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(numpy.array_equal(one["x"], each) for each in (other["x"], other["y"][0]))
    if isinstance(one, (pandas.DataFrame, pandas.Series)):
        return bool(one.equals(other))
    if isinstance(one, numpy.ndarray):
        return one.dtype == other.dtype and numpy.array_equal(one, other)
    return bool(one == other)


def test_every_kind_comes_back_equal_in_shared_memory(open_cluster: Open) -> None:
    check_kinds(open_cluster(echo))


def check_kinds(cluster: JobCluster) -> None:
    for kind, make in KINDS.items():
        value = make()
        result = cluster.submit(value).get(DEADLINE)
        assert type(result) is type(value), kind
        assert equal(value, result), kind


@pytest.mark.parametrize("kind", ["bytes", "memoryview", "array", "data frame"])
def test_its_memory_is_not_copied_into_the_pickle(kind: str) -> None:
    from dispy.protocol.messages import Bulk
    from dispy.shipping.payloads import pack_call

    payload = pack_call("echo", (KINDS[kind](),), {})
    assert isinstance(payload, Bulk)
    # Texts of a frame are objects, which pickle writes out.
    assert len(memoryview(payload.pickled)) < (SIZE if kind == "data frame" else 2000)
    assert sum(memoryview(each).nbytes for each in payload.beside) >= SIZE // 2


def give_late(gate: str, size: int) -> Any:
    import os

    os.read(os.open(gate, os.O_RDONLY), 1)
    return bytearray(size)


def test_a_result_is_final_only_when_its_memory_is_mapped(
    open_cluster: Open, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = open_cluster(give_late)
    memory, done = cluster._session.memory, []
    map_result = memory.map_result

    def watch(result: Any) -> Any:
        done.append(job.done)
        return map_result(result)

    monkeypatch.setattr(memory, "map_result", watch)
    job = cluster.submit(str(gate), SIZE)
    gate.open()
    assert job.get(DEADLINE) == bytearray(SIZE)
    assert done == [False]


def give_or_die(value: Any, deed: str) -> Any:
    import os
    import signal

    if deed == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return value


def test_segments_are_used_again_when_workers_die(open_cluster: Open) -> None:
    cluster = open_cluster(give_or_die)
    kept = cluster.submit(numpy.full(SIZE, 7, numpy.uint8), "give").get(DEADLINE)
    pool = cluster._session.memory.segments
    for _ in range(3):
        cluster.submit(numpy.full(SIZE, 1, numpy.uint8), "die").wait(DEADLINE)
    before = pool._count
    for number in range(12):
        job = cluster.submit(numpy.full(SIZE, number, numpy.uint8), "die" if number % 2 else "give")
        assert job.wait(DEADLINE)
        assert number % 2 or bool((job.result == number).all())
        del job
    assert pool._count <= before + 1
    assert bool((kept == 7).all()), "a result changed when its worker had died"
