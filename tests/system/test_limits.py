"""What a job may use: who goes beyond is asked to end, then made to, and its status says why."""

import functools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from system.conftest import DEADLINE, hold

from dispy import DispyError, DispyJob, JobCluster, JobFailed


@pytest.fixture
def limited(shared_node: Any) -> Iterator[Callable[..., JobCluster]]:
    """Open clusters on the module's node, with limits."""
    opened: list[JobCluster] = []

    def open_one(computation: Any, **limits: Any) -> JobCluster:
        opened.append(JobCluster(computation, nodes=[shared_node.host], **limits))
        return opened[-1]

    yield open_one
    for cluster in opened:
        cluster.close(timeout=0, terminate=True)


@pytest.fixture(params=["worker", "job"])
def either(limited: Any, request: Any) -> Callable[..., JobCluster]:
    """Open clusters of either isolation, one after the other."""
    return functools.partial(limited, isolation=request.param)


def ended(job: DispyJob | None) -> DispyJob:
    assert job is not None
    assert job.wait(DEADLINE), job.why()
    return job


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# -- time


def save_when_told(path: str) -> str:
    import time

    import dispy

    try:
        while True:
            time.sleep(1)
    except dispy.JobTimeout as reason:
        with open(path, "w") as file:
            file.write(str(reason))
    return "what there was"


def test_a_job_that_ran_out_of_time_may_save_and_says_so(either: Any, tmp_path: Path) -> None:
    job = ended(either(save_when_told, timeout=0.3).submit(str(tmp_path / "saved")))
    assert (tmp_path / "saved").read_text() == "its timeout of 0.3 s is over"
    assert (job.status, job.result) == (DispyJob.Terminated, "what there was")
    assert job.exception.startswith("it reached its limit, a timeout of 0.3 s: it had run for 0.")
    assert "on node" in job.exception
    with pytest.raises(JobFailed, match="a timeout of 0.3 s"):
        job.get()


def test_a_job_that_does_not_save_ends_with_the_place_where_it_was(limited: Any) -> None:
    job = ended(limited(time.sleep, grace=0.2).submit(100, dispy_job_timeout=0.2))
    assert (job.status, job.result) == (DispyJob.Terminated, None)
    assert "a timeout of 0.2 s" in job.exception
    assert "JobTimeout: its timeout of 0.2 s is over" in job.exception


def in_one_call(endless: bool) -> str:
    import os

    if endless:
        sum(range(10**15))  # no signal handler of Python's runs meanwhile
    return f"ran in {os.getpid()}"


def test_a_job_in_one_c_call_is_killed_and_those_behind_it_run(either: Any) -> None:
    cluster = either(in_one_call, grace=0.2)
    cluster.submit(False)()  # its duration is known: the next ones travel in packets
    jobs = [cluster.submit(False) for _ in range(50)]
    endless = cluster.submit(True, dispy_job_timeout=0.2)
    jobs += [cluster.submit(False) for _ in range(50)]
    assert ended(endless).status == DispyJob.Terminated
    assert "killed because it did not end within 0.2 s" in endless.exception
    assert {ended(job).status for job in jobs} == {DispyJob.Finished}


def with_its_own_handler() -> str:
    import signal
    import time

    told = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    while not told:
        time.sleep(0.01)
    return f"told by {told}"


def test_a_handler_of_the_job_s_own_wins(either: Any) -> None:
    cluster = either(with_its_own_handler, timeout=0.2)
    for _ in range(2):  # the second in a process whose handlers were put back
        job = ended(cluster.submit())
        assert (job.status, job.result) == (DispyJob.Terminated, "told by [15]")


def test_a_limit_of_0_takes_back_what_was_said_for_all(limited: Any, gate: Any) -> None:
    cluster = limited(hold, timeout=0.2, grace=0)
    held = cluster.submit(str(gate), "free", dispy_job_timeout=0)
    assert ended(cluster.submit(str(gate))).status == DispyJob.Terminated
    gate.open()
    assert ended(held).result == "free"


def test_a_program_is_told_by_sigterm_and_killed_if_it_goes_on(
    limited: Any, tmp_path: Path
) -> None:
    text = 'trap "echo saved; exit 7" TERM\nwhile :; do sleep 0.05; done'
    job = ended(limited(script(tmp_path / "saves", text), timeout=0.3).submit())
    assert (job.status, job.result, job.stdout) == (DispyJob.Terminated, 7, b"saved\n")
    assert "a timeout of 0.3 s" in job.exception
    deaf = script(tmp_path / "deaf", 'trap "" TERM\nwhile :; do sleep 0.05; done')
    job = ended(limited(deaf, timeout=0.2, grace=0.2).submit())
    assert job.status == DispyJob.Terminated
    assert "killed because it did not end within 0.2 s" in job.exception


def spin(where: str) -> str:
    import subprocess
    import time

    if where == "child":
        subprocess.run(["sh", "-c", "while :; do :; done"])
    while where == "here":
        pass
    time.sleep(0.5)
    return "slept"


@pytest.mark.parametrize("where", ["here", "child"])
def test_processor_time_is_limited_with_that_of_children(either: Any, where: str) -> None:
    cluster = either(spin, cpu_time=0.3, grace=0.5)
    job = ended(cluster.submit(where))
    assert job.status == DispyJob.Terminated
    assert job.exception.startswith("it reached its limit, a cpu_time of 0.3 s: it had taken 0.")
    assert "JobTimeout: its cpu_time of 0.3 s is over" in job.exception
    assert ended(cluster.submit("sleep")).result == "slept", "waiting is no processor time"


def ends_its_children(count: int) -> set[int]:
    import os
    import signal

    ends = set()
    for _ in range(count):
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(child, signal.SIGTERM)  # it may not have begun to run
        ends.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return ends


def test_children_of_a_limited_job_end_by_sigterm_as_ever(either: Any) -> None:
    assert ended(either(ends_its_children, timeout=60).submit(100)).result == {-15}


def test_a_sigterm_of_somebody_else_s_ends_a_limited_job_as_any_other(limited: Any) -> None:
    job = ended(limited(os.kill, timeout=60).submit(0, 15))  # 0: its own process group
    assert "the worker process was killed by SIGTERM, while it ran this job" in job.exception


def test_a_call_of_a_map_that_takes_too_long_says_which_limit_it_was(limited: Any) -> None:
    results = limited(time.sleep, timeout=0.3, grace=2).map([100, 100, 0], chunksize=2)
    for _ in range(2):
        with pytest.raises(JobFailed, match="a timeout of 0.3 s") as lost:
            next(results)
        assert "killed" not in str(lost.value), "the chunk went on to its next call"
    assert next(results) is None


# -- memory


def take(size: int, children: int = 0) -> int:
    import os

    block = b"x" * size
    below = [os.fork() for _ in range(children)] if children else []
    if 0 in below:
        os._exit(0)
    return len(block)


def take_apart(size: int, children: int) -> None:
    import os
    import time

    for _ in range(children):
        if os.fork() == 0:
            block = b"x" * size  # noqa: F841
            time.sleep(60)
    time.sleep(60)


def test_memory_beyond_the_limit_is_refused_and_the_next_job_has_its_own(either: Any) -> None:
    cluster = either(take)
    job = ended(cluster.submit(300_000_000, dispy_job_memory="100 MB"))
    assert job.status == DispyJob.Terminated
    assert job.exception.startswith("it reached its limit, a memory of 100 MB: it had taken ")
    assert "MemoryError" in job.exception
    assert ended(cluster.submit(30_000_000, dispy_job_memory="100 MB")).result == 30_000_000
    assert ended(cluster.submit(300_000_000)).result == 300_000_000


def test_memory_of_all_processes_of_a_job_counts_together(either: Any) -> None:
    job = ended(either(take_apart, memory="200 MB").submit(150_000_000, 3))
    assert job.status == DispyJob.Terminated
    assert job.exception.startswith("it reached its limit, a memory of 200 MB: it had taken ")
    assert "MB (on node" in job.exception


def test_what_a_forked_child_only_shares_does_not_count_twice(either: Any) -> None:
    job = ended(either(take, memory="100 MB").submit(60_000_000, 4))
    assert (job.status, job.result) == (DispyJob.Finished, 60_000_000), job.exception


def take_and_die(size: int) -> None:
    import os

    block = b"x" * size
    os.kill(os.getpid(), 9 if block else 0)


def test_how_a_worker_died_tells_the_most_memory_that_it_had(either: Any) -> None:
    job = ended(either(take_and_die).submit(200_000_000))
    assert "was killed by SIGKILL, while it ran this job" in job.exception
    assert float(job.exception.split("it had used ")[1].split(" MB of memory")[0]) >= 200


# -- surroundings


class SeesAtLoading:
    """What a library finds that looks at its environment when it is loaded."""

    def __setstate__(self, state: object) -> None:
        import os

        self.seen = {**os.environ}

    def __getstate__(self) -> object:
        return "anything"

    def __call__(self, *names: str) -> tuple[list[str | None], list[str | None], str]:
        import os
        import subprocess

        child = subprocess.run(["env"], capture_output=True, text=True).stdout
        now = {**os.environ}
        return [self.seen.get(n) for n in names], [now.get(n) for n in names], child


def test_variables_are_there_before_the_computation_is_loaded(limited: Any) -> None:
    cluster = limited(SeesAtLoading(), env={"OURS": "all", "NUMBER": 7})
    seen, now, child = ended(cluster.submit("OURS", "NUMBER")).result
    assert seen == now == ["all", "7"]
    assert "OURS=all\n" in child
    other = limited(SeesAtLoading())
    assert ended(other.submit("OURS")).result[:2] == ([None], [None])


def test_variables_of_one_job_are_gone_after_it(either: Any) -> None:
    cluster = either(SeesAtLoading(), env={"OURS": "all"})
    mine = {"OURS": "mine", "MORE": "yes"}
    _, now, child = ended(cluster.submit("OURS", "MORE", dispy_job_env=mine)).result
    assert now == ["mine", "yes"]
    assert "MORE=yes\n" in child
    for _ in range(4):  # in either worker
        assert ended(cluster.submit("OURS", "MORE")).result[1] == ["all", None]


def test_a_program_has_its_variables(limited: Any, tmp_path: Path) -> None:
    says = script(tmp_path / "says", 'echo "$OURS,$MORE,$OMP_NUM_THREADS"')
    cluster = limited(says, env={"OURS": "all"})
    assert ended(cluster.submit(dispy_job_env={"MORE": 1})).stdout == b"all,1,1\n"
    assert ended(cluster.submit()).stdout == b"all,,1\n"


def test_numerical_libraries_take_one_processor_unless_told_otherwise(limited: Any) -> None:
    names = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"]
    assert ended(limited(SeesAtLoading()).submit(*names)).result[0] == ["1", "1", "1"]
    told = limited(SeesAtLoading(), env={"OMP_NUM_THREADS": 4})
    assert ended(told.submit(*names)).result[0] == ["4", "4", "4"]
    told = limited(SeesAtLoading(), env={"MKL_NUM_THREADS": 3})
    assert ended(told.submit(*names)).result[0] == ["1", "1", "3"]


def test_a_job_of_several_processors_may_have_as_many_threads(limited: Any) -> None:
    cluster = limited(SeesAtLoading(), cpus=2)
    seen, now, _ = ended(cluster.submit("OMP_NUM_THREADS")).result
    assert seen == now == ["2"]
    wide = limited(SeesAtLoading()).submit("OMP_NUM_THREADS", dispy_job_cpus=2)
    assert "OMP_NUM_THREADS=2\n" in ended(wide).result[2]


def niceness() -> tuple[int, int]:
    import os

    return os.getpriority(os.PRIO_PROCESS, 0), os.getpid()


def test_jobs_are_as_nice_as_said_and_the_next_one_is_not(either: Any) -> None:
    here = os.getpriority(os.PRIO_PROCESS, 0)
    cluster = either(niceness, nice=2)
    assert ended(cluster.submit()).result[0] == here + 2
    assert ended(cluster.submit(dispy_job_nice=5)).result[0] == here + 5
    for _ in range(4):
        assert ended(cluster.submit()).result[0] == here + 2


# -- replaced workers


def own_process(n: int) -> tuple[int, int]:
    import os

    return n, os.getpid()


@pytest.mark.parametrize("most", [1, 7])
def test_a_worker_is_replaced_after_so_many_jobs_and_none_is_lost(limited: Any, most: int) -> None:
    cluster = limited(own_process, jobs_per_worker=most, isolation="worker")
    jobs = [cluster.submit(n) for n in range(60)]
    results = [ended(job).result for job in jobs]
    assert [n for n, _ in results] == list(range(60))
    ran = Counter(process for _, process in results)
    assert max(ran.values()) <= most
    assert len(ran) <= 60 // most + 4, "workers are replaced too early"


def leak(kept: list[bytes] = []) -> int:  # noqa: B006
    import os
    import time

    kept.append(b"x" * 5_000_000)
    time.sleep(0.03)  # workers are looked at now and then
    return os.getpid()


def test_a_worker_that_has_grown_is_replaced_between_two_jobs(limited: Any) -> None:
    cluster = limited(leak, worker_growth="20 MB", isolation="worker")
    processes = Counter(ended(job).result for job in [cluster.submit() for _ in range(30)])
    assert len(processes) >= 4
    assert max(processes.values()) >= 3, "a worker is replaced that has not grown"


# -- a machine without memory


SHORT = """
import ctypes, os, sys
import dispy

MEMORY = sys.argv[1].encode()
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0  # CLONE_NEWNS
assert libc.mount(None, b"/", None, 0x44000, None) == 0  # MS_REC | MS_PRIVATE
assert libc.mount(MEMORY, b"/proc/meminfo", None, 0x1000, None) == 0  # MS_BIND

def compute(n):
    return n

if __name__ == "__main__":
    cluster = dispy.JobCluster(compute, node_port=51999)  # where no other node is
    job = cluster.submit(7)
    sys.stdin.readline()
    print("why:", job.why(), flush=True)
    print("result:", job(), flush=True)
"""


def memory_file(path: Path, available: int) -> Path:
    """Write what the kernel says of a machine with 4 GB, in kB."""
    path.write_text(f"MemTotal: 4000000 kB\nMemAvailable: {available:7} kB\n")
    return path


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="needs a mount namespace of its own"
)
def test_a_node_short_of_memory_starts_no_job_says_so_and_goes_on(
    run_program: Callable[..., Any], tmp_path: Path
) -> None:
    memory = memory_file(tmp_path / "meminfo", 150_000)
    program = run_program(SHORT, str(memory))
    while "have waited" not in (line := program.line()):
        assert line, program.output
    assert "its machine is short of memory: 154 MB are available, and 205 MB are kept free" in (
        program.line()
    )
    program.say("go on")
    while "why:" not in (line := program.line()):
        assert line, program.output
    memory_file(memory, 210_000)  # not enough more
    memory_file(memory, 3_000_000)
    assert program.end() == 0, program.output
    assert "it waits there: its machine is short of memory" in program.output
    assert "result: 7" in program.output


# -- nonsense


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"timeout": "1 s"}, "timeout: '1 s' is not a number of seconds"),
        ({"memory": "much"}, "memory: 'much' is not a whole number of bytes"),
        ({"nice": -5}, "nice: -5 is not 0 to 19 steps"),
        ({"env": ["A=1"]}, "env: a table of variables and their values, not"),
        ({"env": {"A=B": "1"}}, "env: 'A=B' cannot be the name of a variable"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_at_once(limits: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DispyError, match=complaint):
        JobCluster(abs, **limits)


def test_a_job_s_limit_that_cannot_be_is_refused_at_once(limited: Any) -> None:
    with pytest.raises(DispyError, match="dispy_job_memory: -1 is not 0 to"):
        limited(abs).submit(1, dispy_job_memory=-1)
