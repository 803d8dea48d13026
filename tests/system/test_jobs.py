"""Whatever a job does, it gets a clear final status, and no other job notices."""

import os
import re
import signal
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest

import dispy
from dispy import DispyJob, JobCluster

DEADLINE = 30.0  # seconds; for machines that are busy with something else

# What a job can see of its process; equal for all jobs, whatever ran there before them.
PROBE = """
import os, resource, signal, sys, threading
result = {
    "directory": os.getcwd(),
    "environment": dict(os.environ),
    "path": list(sys.path),
    "handlers": [
        (n, getattr(signal.getsignal(n), "__name__", signal.getsignal(n)))
        for n in range(1, 65) if n not in (32, 33)
    ],
    "mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
    "timer": signal.getitimer(signal.ITIMER_REAL),
    "recursion": sys.getrecursionlimit(),
    "descriptors": [os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)],
    "threads": [thread.name for thread in threading.enumerate()],
    "limits": [resource.getrlimit(n) for n in range(9)],
    "priority": os.getpriority(os.PRIO_PROCESS, 0),
    "umask": [line for line in open("/proc/self/status") if line.startswith("Umask")],
    "children": open(f"/proc/self/task/{os.getpid()}/children").read(),
    "trace": sys.gettrace(),
}
"""


def act(source: str) -> object:
    names: dict = {}
    exec(source, names)
    return names.get("result")


@pytest.fixture(scope="module", params=["worker", "job"])
def cluster(shared_node: Any, request: pytest.FixtureRequest) -> Iterator[JobCluster]:
    """A cluster whose jobs are known to be short, so that they travel in packets."""
    opened = JobCluster(act, nodes=[shared_node.host], isolation=request.param)
    for job in [opened.submit(PROBE) for _ in range(200)]:
        assert job.wait(DEADLINE)
    yield opened
    opened.close(timeout=0, terminate=True)


def _wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def perform(cluster: JobCluster, deed: str) -> DispyJob:
    """Run a deed among jobs that look around; check that none of them has seen anything."""
    before = [cluster.submit(PROBE) for _ in range(8)]
    job = cluster.submit(deed)
    after = [cluster.submit(PROBE) for _ in range(8)]
    assert job.wait(DEADLINE), job.why()
    seen = []
    for other in [*before, *after]:
        assert other.wait(DEADLINE), other.why()
        assert (other.status, other.exception) == (DispyJob.Finished, None)
        assert (other.stdout, other.stderr) == ("", "")
        seen.append(other.result)
    for what, first in seen[0].items():
        assert [view[what] for view in seen] == [first] * len(seen)
    assert job.ip_addr == before[0].ip_addr
    assert job.submit_time <= job.start_time <= job.end_time
    return job


FINISHES = {
    "closes 0 to 2": "import os; [os.close(n) for n in (0, 1, 2)]; result = 1",
    "closes all but 0 to 2": "import os; os.closerange(3, 65536); result = 1",
    "closes every descriptor": "import os; os.closerange(0, 65536); result = 1",
    "closes all and goes on": """
import os, time
os.closerange(0, 65536)
time.sleep(0.1)
result = 1""",
    "closes 1 by C": "import ctypes; ctypes.CDLL(None).close(1); result = 1",
    "points 1 elsewhere": "import os; os.dup2(os.open('/dev/null', 1), 1); print(2); result = 1",
    "replaces sys.stdout": "import io, sys; sys.stdout = io.StringIO(); print(2); result = 1",
    "closes sys.stdout": "import sys; sys.stdout.close(); result = 1",
    "has no sys.stdout": "import sys; sys.stdout = sys.stderr = None; result = 1",
    "leaves a thread": """
import threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
result = 1""",
    "leaves a child": "import subprocess; subprocess.Popen(['sleep', '1000']); result = 1",
    "leaves a daemon": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
os.wait()
result = 1""",
    "forks and both return": "import os; os.fork(); result = 1",
    "changes its surroundings": """
import os, sys
os.chdir('/')
os.environ['LEFT'] = 'behind'
os.environ.pop('PATH')
sys.path.insert(0, '/nowhere')
sys.setrecursionlimit(60)
globals()['act'] = None
result = 1""",
    "restores signals": """
import signal
for number in (signal.SIGURG, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
signal.setitimer(signal.ITIMER_REAL, 0.005)
signal.signal(signal.SIGALRM, print)
result = 1""",
    "blocks signals": """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
result = 1""",
    "lowers limits": """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
os.umask(0o777)
os.nice(5)
result = 1""",
    "traces": "import sys; sys.settrace(lambda *_: None); result = 1",
    "reads stdin": "import sys; result = len(sys.stdin.read()) + 1",
    "uses a pool": """
import multiprocessing
with multiprocessing.Pool(2) as pool:
    result = sum(pool.map(abs, [0, -1]))""",
    "uses asyncio": """
import asyncio
async def main():
    await asyncio.sleep(0.001)
    return 1
result = asyncio.run(main())""",
    "runs a program": """
import subprocess
result = int(subprocess.run(['echo', '1'], capture_output=True).stdout)""",
}


@pytest.mark.parametrize("name", FINISHES)
def test_a_job_finishes_and_leaves_no_trace_when_it(cluster: JobCluster, name: str) -> None:
    job = perform(cluster, FINISHES[name])
    assert (job.status, job.result, job.exception) == (DispyJob.Finished, 1, None)


def test_a_job_may_remove_the_directory_that_all_share(cluster: JobCluster) -> None:
    """Whoever runs at that moment is without one; those that begin later have it again."""
    job = cluster.submit("import os, shutil; shutil.rmtree(os.getcwd()); result = 1")
    assert job() == 1
    assert perform(cluster, "open('here', 'w').close(); result = 2").result == 2


FAILS = {
    "returns a lock": (
        "import threading; result = threading.Lock()",
        ["its result could not be sent back", "cannot pickle '_thread.lock'"],
    ),
    "returns what fails to pickle half way": (
        """
class Half:
    def __reduce__(self):
        raise ValueError('half way')
result = [b'x' * 300_000, Half()]""",
        ["its result could not be sent back", "half way", "in __reduce__"],
    ),
    "exits": ("import sys; sys.exit('so long')", ["SystemExit: so long"]),
    "exits with zero": ("raise SystemExit(0)", ["SystemExit: 0"]),
    "raises KeyboardInterrupt": ("raise KeyboardInterrupt", ["KeyboardInterrupt"]),
    "raises with a cause": (
        "try:\n    1 / 0\nexcept Exception as error:\n    raise ValueError('so') from error",
        ["ZeroDivisionError", "direct cause", "ValueError: so"],
    ),
    "raises what does not pickle": (
        """
class Bad(Exception):
    def __init__(self, one, two):
        self.lock = __import__('threading').Lock()
raise Bad(1, 2)""",
        ["in act", "Bad: (1, 2)"],
    ),
    "raises what cannot be shown": (
        """
class Bad(Exception):
    def __str__(self):
        raise ValueError
raise Bad""",
        ["Bad: <exception str() failed> or Bad: <unprintable Bad object>"],
    ),
    "raises a huge text": (
        "raise ValueError('x' * 50_000_000)",
        ["ValueError: xxx", "[dispy left out 49"],
    ),
    "raises half a character": ("raise ValueError('\\udc80')", ["ValueError: \\udc80"]),
    "recurses": ("def f():\n    f()\nf()", ["RecursionError"]),
    "wants too much memory": ("bytearray(1 << 60)", ["MemoryError"]),
    "leaves at once": ("import os; os._exit(7)", ["exited with status 7, while it ran this job"]),
    "aborts": ("import os; os.abort()", ["killed by SIGABRT"]),
    "crashes": ("import ctypes; ctypes.string_at(0)", ["killed by SIGSEGV"]),
    "is killed": ("import os; os.kill(os.getpid(), 9)", ["killed by SIGKILL"]),
    "sets an alarm": (
        "import signal, time; signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(30)",
        ["killed by SIGALRM"],
    ),
    "overflows the C stack": (
        """
import functools, sys
sys.setrecursionlimit(10**9)
def f(*_):
    return functools.reduce(f, [1, 2])
f()""",
        ["killed by SIGSEGV or RecursionError"],
    ),
}


@pytest.mark.parametrize("name", FAILS)
def test_a_job_is_terminated_with_a_reason_when_it(cluster: JobCluster, name: str) -> None:
    deed, words = FAILS[name]
    job = perform(cluster, deed)
    assert (job.status, job.result) == (DispyJob.Terminated, None)
    for word in words:
        assert any(form in job.exception for form in word.split(" or ")), job.exception
    assert len(job.exception) < 100_000
    if name != "overflows the C stack":  # of which Python may show frames from before, by chance
        assert os.path.join("dispy", "") not in job.exception.replace("[dispy", "")


def test_the_exception_of_a_job_is_raised_on_request(cluster: JobCluster) -> None:
    job = perform(cluster, "{}['missing']")
    with pytest.raises(KeyError, match="missing") as raised:
        job.get(0)
    assert re.search(r"in act\n.*KeyError", str(raised.value.__cause__), re.S)


def test_a_result_that_cannot_be_rebuilt_here_says_so(cluster: JobCluster) -> None:
    deed = """
class Odd:
    def __reduce__(self):
        return (int, ('no number',))
result = Odd()"""
    job = perform(cluster, deed)
    assert job.result is None
    assert job.status == DispyJob.Terminated
    assert "could not be rebuilt" in job.exception
    assert "no number" in job.exception


class Calls:
    """Pickles as a call, which the worker then makes."""

    def __init__(self, function, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    ("argument", "word"),
    [
        (Calls(int, "no number"), "invalid literal for int() with base 10: 'no number'"),
        (Calls(__import__, "no_such_module"), "No module named 'no_such_module'"),
    ],
)
def test_arguments_that_cannot_be_rebuilt_name_what_is_missing(
    cluster: JobCluster, argument: Calls, word: str
) -> None:
    jobs = [cluster.submit("result = 1"), cluster.submit(argument), cluster.submit("result = 2")]
    assert [job() for job in jobs] == [1, None, 2]
    assert jobs[1].status == DispyJob.Terminated
    assert "its arguments could not be rebuilt on the node" in jobs[1].exception
    assert word in jobs[1].exception


def test_output_of_python_of_c_of_descriptors_and_of_children_is_captured(
    cluster: JobCluster,
) -> None:
    job = perform(
        cluster,
        """
import ctypes, logging, os, sys
c = ctypes.CDLL(None)
c.puts(b"puts")
c.printf(b"printf %d", 1)
print("print")
print("error", file=sys.stderr)
os.write(1, b"write")
os.system("echo child; echo of >&2")
logging.warning("logged")
""",
    )
    assert job.status == DispyJob.Finished, job.exception
    for word in ("puts\n", "printf 1", "print\n", "write", "child\n"):
        assert word in job.stdout
    for word in ("error\n", "of\n", "WARNING:root:logged"):
        assert word in job.stderr


def test_endless_output_is_bounded_in_memory_and_in_the_result(
    cluster: JobCluster, shared_node: Any
) -> None:
    deed = "import os, subprocess\nopen(%r, 'w').close()\nsubprocess.run(['yes'])"
    started = shared_node.directory / "yes started"
    job = cluster.submit(deed % str(started))
    _wait_until(started.exists, "the job to start")
    (child,) = _children_named(shared_node, "yes")
    written = 0
    freed = 0  # how often: by the node, which looks ten times a second, however fast it is filled
    held = 0
    while written < 300_000_000 or freed < 3:  # bytes
        written = int(re.search(r"wchar: (\d+)", Path(f"/proc/{child.pid}/io").read_text())[1])
        before, held = held, os.stat(f"/proc/{child.pid}/fd/1").st_blocks * 512
        freed += held < before
    child.kill()
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Finished
    assert len(job.stdout) < 1_100_000
    assert job.stdout.startswith("y\ny\n")
    assert re.search(r"\[dispy dropped \d{9,} bytes beyond 1048576\]", job.stdout[-100:])


def _children_named(shared_node: Any, name: str) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    deadline = time.monotonic() + DEADLINE
    while not found and time.monotonic() < deadline:
        everybody = psutil.Process(shared_node.process.pid).children(recursive=True)
        found = [process for process in everybody if process.name() == name]
    return found


def test_what_a_job_leaves_running_ends_soon(cluster: JobCluster, shared_node: Any) -> None:
    perform(cluster, FINISHES["leaves a daemon"])
    perform(cluster, "import subprocess; subprocess.Popen(['setsid', 'sleep', '1000'])")

    def none_sleeps() -> bool:
        everybody = psutil.Process(shared_node.process.pid).children(recursive=True)
        return all(process.name() != "sleep" for process in everybody)

    _wait_until(none_sleeps, "the job's child to be ended")


def test_a_result_of_200_megabytes_comes_back(cluster: JobCluster) -> None:
    job = perform(cluster, "result = b'ab' * 100_000_000")
    result = job.result
    assert job.status == DispyJob.Finished, job.exception
    assert len(result) == 200_000_000
    assert result[-4:] == b"abab"


def test_jobs_around_a_killed_worker_run_once_and_finish(
    cluster: JobCluster, tmp_path: Path
) -> None:
    """Those that it had done but not told of are not lost; those behind them not run twice."""
    path = tmp_path / "ran"
    note = (
        f"import os; f = os.open({str(path)!r}, 1 | 64 | 1024); os.write(f, b'%d\\n'); result = %d"
    )
    jobs = []
    for number in range(400):
        deed = note % (number, number)
        if number % 40 == 20:
            deed += "; os.kill(os.getpid(), 9)"
        jobs.append(cluster.submit(deed))
    for number, job in enumerate(jobs):
        killed = number % 40 == 20
        assert job.wait(DEADLINE)
        assert job.result == (None if killed else number), job.exception
        assert job.status == (DispyJob.Terminated if killed else DispyJob.Finished)
    assert sorted(map(int, path.read_text().split())) == list(range(400))


def test_each_item_of_a_chunk_has_its_own_result_or_exception(cluster: JobCluster) -> None:
    deeds = ["result = 1", "import threading; result = threading.Lock()", "1 / 0", "result = 2"]
    results, outcomes = cluster.map(deeds, chunksize=4), []
    while len(outcomes) < 4:
        try:
            outcomes.append(next(results))
        except (dispy.DispyError, ZeroDivisionError) as error:
            outcomes.append(type(error).__name__)
    assert outcomes == [1, "CannotPack", "ZeroDivisionError", 2]


def test_a_worker_killed_from_outside_is_replaced(cluster: JobCluster, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    deed = (
        f"import os, time\nprint(os.getpid(), '', file=open({str(begun)!r}, 'w'), flush=True)\n"
        "time.sleep(1000)"
    )
    held = cluster.submit(deed)
    _wait_until(lambda: begun.exists() and begun.read_text().endswith("\n"), "the job to begin")
    os.kill(int(begun.read_text()), signal.SIGKILL)
    assert held.wait(DEADLINE)
    assert held.status == DispyJob.Terminated
    assert "killed by SIGKILL" in held.exception
    assert cluster.submit("result = 5")() == 5


def test_a_nursery_killed_from_outside_is_replaced_and_its_jobs_children_end(
    cluster: JobCluster, shared_node: Any
) -> None:
    held = [cluster.submit("import subprocess; subprocess.run(['sleep', '1000'])") for _ in "ab"]
    sleepers: list[psutil.Process] = []
    while len(sleepers) < 2:
        sleepers = _children_named(shared_node, "sleep")
    nursery = sleepers[0].parent()
    while nursery.ppid() != shared_node.process.pid:
        nursery = nursery.parent()
    behind = [cluster.submit("result = 6") for _ in range(50)]
    nursery.kill()
    for job in held:
        assert job.wait(DEADLINE)
        assert job.status == DispyJob.Terminated
        assert "nursery" in job.exception
    assert [job() for job in behind] == [6] * 50
    _wait_until(lambda: not any(s.is_running() for s in sleepers), "the jobs' children to end")


WITHOUT_IMPORTS = """
def compute():
    def inner():
        return os.path.basename(dispy_job_path)
    assert dispy_provisional_result("half") == 0
    return inner().isdigit(), time.time() > 0, dispy_node_name, dispy_node_ip_addr
"""


def test_jobs_have_the_names_that_dispy_4_gave_them(
    shared_node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "without_imports.py").write_text(WITHOUT_IMPORTS)
    monkeypatch.syspath_prepend(tmp_path)
    compute = import_module("without_imports").compute
    seen: list = []
    with JobCluster(
        compute, nodes=[shared_node.host], callback=lambda job: seen.append(job.result)
    ) as cluster:
        job = cluster.submit()
        assert job.get(DEADLINE) == (True, True, os.uname().nodename, shared_node.host)
    assert seen == ["half", job.result]
