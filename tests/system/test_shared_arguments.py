"""Large arguments of many jobs: sent once to each node, shared there, and never another's."""

import gc
import pickle
import time
from collections.abc import Callable

import numpy
import pytest
from system.conftest import DEADLINE, Gate
from system.test_large_kinds import check_kinds

from dispy import DispyError, DispyJob, JobCluster

Open = Callable[..., JobCluster]

SIZE = 8 * 1024 * 1024  # bytes


def sent_bytes(cluster: JobCluster) -> int:
    """Return what this program has sent to its nodes."""
    session = cluster._session
    return session.hub.call(
        lambda: sum(n.link.sent_bytes for n in session.scheduler.nodes.values() if n.link)
    )


def look(value: object, *more: object) -> list:
    arrays = value if isinstance(value, list) else list(value.values()) if isinstance(
        value, dict
    ) else [value]  # fmt: skip
    return [int(each[0]) + int(each[-1]) for each in arrays]


def array(byte: int, size: int = SIZE) -> numpy.ndarray:
    return numpy.full(size, byte, dtype=numpy.uint8)


@pytest.mark.parametrize("isolation", ["worker", "job"])
def test_what_was_put_is_sent_once_whatever_the_number_of_jobs(
    open_cluster: Open, start_node, isolation: str
) -> None:
    host = start_node("--cpus=2").host
    cluster = open_cluster(look, nodes=[host], isolation=isolation)
    data = [array(1), array(2)]
    put = cluster.put(data)
    data[0][:] = 99  # it was copied
    before = sent_bytes(cluster)
    jobs = [cluster.submit(put) for _ in range(20)]
    jobs += [cluster.submit({"a": put, "b": [put]}["a"]) for _ in range(3)]
    assert [job.get(DEADLINE) for job in jobs] == [[2, 4]] * 23
    assert 2 * SIZE <= sent_bytes(cluster) - before < 2.2 * SIZE
    assert list(cluster.map([put] * 5)) == [[2, 4]] * 5
    assert sent_bytes(cluster) - before < 2.2 * SIZE
    assert repr(put) == f"<an object of {put.size:,} bytes that was put>"


def nested(table: dict, *, also: object) -> tuple:
    arrays = [table["a"], table["list"][0], also]
    return len({id(each) for each in arrays}), arrays[0].flags.writeable, int(arrays[2][5])


def test_jobs_get_one_read_only_object_wherever_it_was_in_their_arguments(
    open_cluster: Open, start_node
) -> None:
    cluster = open_cluster(nested, nodes=[start_node("--cpus=1").host])
    put = cluster.put(array(7))
    for _ in range(2):
        job = cluster.submit({"a": put, "list": [put, 1]}, also=put)
        assert job.get(DEADLINE) == (1, False, 7)


def test_anything_can_be_put(open_cluster: Open, start_node) -> None:
    def echo(value: object) -> object:
        return value

    cluster = open_cluster(echo, nodes=[start_node("--cpus=1").host])
    for value in (
        5, b"small", b"x" * SIZE, bytearray(SIZE), list(range(100_000)), {"a": {1: "b"}}, None,
    ):  # fmt: skip
        result = cluster.submit(cluster.put(value)).get(DEADLINE)
        assert result == value
        assert type(result) is type(value)


def test_eight_workers_share_one_copy(open_cluster: Open, start_node, gate: Gate) -> None:
    """Each looks at what the whole costs it while all eight have it."""
    cluster = open_cluster(share_of, nodes=[start_node("--cpus=8").host])
    size = 64 * 1024 * 1024
    put = cluster.put(array(1, size))
    jobs = [cluster.submit(put, str(gate), 8) for _ in range(8)]
    results = [job.get(DEADLINE) for job in jobs]
    assert [total for total, _ in results] == [size] * 8
    kilobytes = sum(pss for _, pss in results)
    assert size * 0.9 < kilobytes * 1024 < size * 1.2, results


def share_of(data: object, gate: str, count: int) -> tuple:
    import os
    import time

    total = int(data.sum())

    def meet(name: str) -> None:
        open(f"{gate}-{name}-{os.getpid()}", "w").close()
        directory, base = os.path.split(gate)
        while sum(each.startswith(f"{base}-{name}-") for each in os.listdir(directory)) < count:
            time.sleep(0.01)

    meet("mapped")
    pss, inside = 0, False
    with open("/proc/self/smaps") as lines:
        for line in lines:
            if not line.split(":")[0].isidentifier() and "-" in line.split()[0]:
                inside = "/store/" in line
            elif inside and line.startswith("Pss:"):
                pss += int(line.split()[1])
    meet("counted")
    return total, pss


def test_a_node_that_takes_over_gets_what_was_put(open_cluster: Open, start_node) -> None:
    nodes = [start_node("--cpus=1") for _ in range(2)]
    cluster = open_cluster(
        slow_look, nodes=[node.host for node in nodes], reentrant=True, pulse_interval=0.2
    )
    put = cluster.put(array(3))
    jobs = [cluster.submit(put) for _ in range(12)]
    del put
    gc.collect()
    jobs[0].wait(DEADLINE)
    nodes[0].process.kill()
    assert [job.get(DEADLINE) for job in jobs] == [[6]] * 12


def slow_look(value: object) -> list:
    import time

    time.sleep(0.05)
    return look(value)


def test_what_nobody_refers_to_is_given_up(open_cluster: Open, start_node) -> None:
    cluster = open_cluster(look, nodes=[start_node("--cpus=1").host])
    held = cluster._session.contents._held
    before = len(held)
    put, other = cluster.put(array(1)), cluster.put(array(2))
    assert cluster.submit(put).get(DEADLINE) == [2]
    assert len(held) == before + 2
    del put
    gc.collect()
    wait_until(lambda: len(held) == before + 1)
    with pytest.raises(DispyError, match="only be in the arguments"):
        pickle.dumps(other)
    cluster.close()
    wait_until(lambda: len(held) == before)
    again = open_cluster(look, nodes=[cluster.allocations[0].ip_addr])
    assert again.submit(other) is None  # logged: its cluster is closed


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hold_look(value: object, gate: str) -> list:
    import os

    descriptor = os.open(gate, os.O_RDONLY)
    os.read(descriptor, 1)
    os.close(descriptor)
    return [*look(value), bool(getattr(value, "flags", None) is None or value.flags.writeable)]


def test_what_comes_again_is_sent_once_without_being_asked(
    open_cluster: Open, start_node, gate: Gate
) -> None:
    cluster = open_cluster(hold_look, nodes=[start_node("--cpus=2").host])
    for data in (array(1), b"\x01" * SIZE):
        before = sent_bytes(cluster)
        jobs = [cluster.submit(data, str(gate)) for _ in range(10)]
        gate.open(10)
        assert [job.get(DEADLINE) for job in jobs] == [[2, True]] * 10
        assert sent_bytes(cluster) - before < 2.2 * SIZE


def test_an_argument_that_was_changed_in_between_arrives_as_it_was(
    open_cluster: Open, start_node, gate: Gate
) -> None:
    cluster = open_cluster(hold_look, nodes=[start_node("--cpus=2").host])
    data = array(0)
    cluster.submit(data, str(gate))  # the first time it travels from where it lies
    jobs = []
    for byte in range(1, 8):
        jobs.append(cluster.submit(data, str(gate)))
        data[:] = byte
    gate.open(20)
    assert [job.get(DEADLINE)[0] for job in jobs] == [2 * byte for byte in range(7)]


def write_into(data: object) -> int:
    data[0] += 1
    return int(data[0])


def test_a_job_that_writes_to_its_argument_changes_nobody_elses(
    open_cluster: Open, start_node
) -> None:
    cluster = open_cluster(write_into, nodes=[start_node("--cpus=2").host])
    data = array(5)
    jobs = [cluster.submit(data) for _ in range(10)]
    assert [job.get(DEADLINE) for job in jobs] == [6] * 10
    assert data[0] == 5
    put = cluster.put(data)
    job = cluster.submit(put)
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Terminated
    assert "read-only" in job.exception


def echo(value: object) -> object:
    return value


def test_every_kind_comes_back_equal_over_tcp(open_cluster: Open, start_node) -> None:
    check_kinds(open_cluster(echo, nodes=[start_node("--cpus=1").host]))
