"""Large arguments and results arrive whole, by whichever way they travel, and stay as they are."""

import pytest

LARGE = """
import pickle, sys
import dispy

class Array:
    '''Holds memory that pickle passes beside its stream, as NumPy's arrays do.'''
    def __init__(self, data):
        self.data = data
    def __reduce_ex__(self, protocol):
        return Array, (pickle.PickleBuffer(self.data),)
    def whole(self, byte, size):
        view = memoryview(self.data)
        return len(view) == size and bytes(view) == bytes([byte]) * size

def echo(value):
    return value

def keep(value):
    import sys
    kept = sys.modules.setdefault("kept_by_a_job", [])
    kept.append(value)
    return [bytes(memoryview(each.data)[:1])[0] for each in kept]

def main():
    nodes = sys.argv[2:] or None
    with dispy.JobCluster(globals()[sys.argv[1]], nodes=nodes) as cluster:
        globals()["check_" + sys.argv[1]](cluster)
    print("all right")
"""

ECHO = """
def check_echo(cluster):
    sizes = [10, 70_000, 1_048_575, 1_048_576, 5_000_001, 9 << 20]
    for kind in (bytes, bytearray, Array):
        jobs = [cluster.submit(kind(bytearray([n + 1]) * size)) for n, size in enumerate(sizes)]
        for n, (job, size) in enumerate(zip(jobs, sizes)):
            result = job.get(60)
            assert type(result) is kind, (kind, type(result))
            data = result.data if kind is Array else result
            assert Array(data).whole(n + 1, size), (kind, size)
            if kind is Array:
                memoryview(data)[0] = 0  # what was writable is writable

    results = [cluster.submit(Array(bytearray([n]) * (2 << 20))).get(60) for n in range(100)]
    assert all(each.whole(n, 2 << 20) for n, each in enumerate(results)), "a result changed"
main()
"""

KEEP = """
def check_keep(cluster):
    for n in range(20):
        first = cluster.submit(Array(bytearray([n]) * (2 << 20))).get(60)
    assert first == sorted(set(first)), first
main()
"""


both_ways = pytest.mark.parametrize("way", ["shared memory", "loopback TCP"])


@both_ways
def test_large_values_come_back_whole_and_stay_so(run_program, start_node, way: str) -> None:
    hosts = [start_node("--cpus=2").host] if way == "loopback TCP" else []
    program = run_program(LARGE + ECHO, "echo", *hosts)
    assert program.end() == 0, program.output
    assert "all right" in program.output


@both_ways
def test_what_a_job_keeps_of_its_arguments_never_changes(run_program, start_node, way: str) -> None:
    hosts = [start_node("--cpus=1").host] if way == "loopback TCP" else []
    program = run_program(LARGE + KEEP, "keep", *hosts)
    assert program.end() == 0, program.output
    assert "all right" in program.output


HOLD = """
import sys
import dispy

def give(size):
    return bytearray(size)

with dispy.JobCluster(give) as cluster:
    kept = [cluster.submit(3_000_000).get(30) for _ in range(5)]
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_killed_program_that_holds_results_leaves_no_process(run_program) -> None:
    program = run_program(HOLD)
    while "ready" not in program.line():
        assert program.process.poll() is None, program.output
    program.process.kill()


def test_shared_segments_are_bounded_and_used_again() -> None:
    from dispy.system.segments import POOL_BYTES, POOL_SEGMENTS, SHARED_SIZE, SegmentPool

    pool = SegmentPool()
    data = bytes(SHARED_SIZE)
    leases = [pool.share(data) for _ in range(POOL_SEGMENTS + 5)]
    assert leases[-1] is None, "the pool has no bound"
    tokens = {lease.token for lease in leases if lease is not None}
    assert len(tokens) == POOL_SEGMENTS
    del leases
    again = pool.share(data)
    assert again is not None
    assert again.token in tokens, "a free segment is not used again"
    del again
    large = pool.share(bytes(POOL_BYTES // 4))
    assert large is not None, "free segments of another size are in the way"
