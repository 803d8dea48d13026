"""What a job sees of those that ran before it, for both isolations, as docs/client.rst says."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dispy import DispyJob, JobCluster
from dispy.client.isolation import ClusterIsolation
from dispy.model.errors import DispyError

DEADLINE = 30.0  # seconds; for machines that are busy with something else

state = {"items": [1]}  # plays the part of what a setup leaves
counter = 0


class Tally:
    seen = 0


def act(source: str) -> object:
    """Run source text among the computation's own globals."""
    assert (state, counter, Tally) is not None  # they travel with the function
    names = globals()
    exec(source, names)
    return names.get("result")


@pytest.fixture(scope="module")
def one_processor(shared_node: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A node on which each job runs where the one before it did."""
    from tests.system.conftest import RunningNode

    host = f"127.1.{os.getpid() % 250}.{os.getpid() // 250 % 250 + 2}"
    node = RunningNode(tmp_path_factory.mktemp("node"), host, 51348, "--cpus=1")
    yield node
    assert node.end() == 0, node.said
    assert "Traceback" not in node.said


@pytest.fixture(scope="module", params=["worker", "job"])
def cluster(one_processor: Any, request: pytest.FixtureRequest) -> Iterator[JobCluster]:
    opened = JobCluster(act, nodes=[one_processor.host], isolation=request.param)
    opened.said = request.param  # type: ignore[attr-defined]
    yield opened
    opened.close(timeout=0, terminate=True)


@pytest.fixture
def forking(one_processor: Any) -> Iterator[JobCluster]:
    """A cluster with a process for each job."""
    opened = JobCluster(act, nodes=[one_processor.host], isolation="job")
    yield opened
    opened.close(timeout=0, terminate=True)


# What a job does; what another asks then; whether the answer is yes, by isolation.
TABLE: dict[str, tuple[str, str, bool, bool]] = {
    "rebinds a global": ("counter = 1", "counter == 1", False, False),
    "makes a new global": ("fresh = 1", "'fresh' in globals()", False, False),
    "deletes a global": ("del counter", "'counter' not in globals()", False, False),
    "changes what setup left": (
        "state['items'].append(2)", "len(state['items']) > 1", True, False,
    ),
    "sets an attribute of a class": ("Tally.seen = 1", "Tally.seen == 1", True, False),
    "sets an attribute of a module": (
        "import json; json.left = 1", "hasattr(__import__('json'), 'left')", True, False,
    ),
    "imports a module": ("import wave", "'wave' in __import__('sys').modules", True, False),
    "seeds random": (
        "import random; random.seed(7)",
        "__import__('random').random() == __import__('random').Random(7).random()", True, False,
    ),
    "opens a file by its descriptor": (
        "import os; os.open('/etc/hostname', os.O_RDONLY)",
        "'/etc/hostname' in OPEN", True, False,
    ),
    "keeps an open file in a global": (
        "kept = open('/etc/passwd')",
        "'/etc/passwd' in OPEN", False, False,
    ),
    "writes a file": ("open('left', 'w').close()", "os.path.exists('left')", True, True),
    "changes the directory": ("import os; os.chdir('/')", "os.getcwd() == '/'", False, False),
    "changes the environment": (
        "import os; os.environ['LEFT'] = '1'", "'LEFT' in os.environ", False, False,
    ),
    "extends sys.path": (
        "import sys; sys.path.append('/left')", "'/left' in __import__('sys').path", False, False,
    ),
    "handles a signal": (
        "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "(s := __import__('signal')).getsignal(s.SIGUSR1) is s.SIG_IGN", False, False,
    ),
    "sets the umask": (
        "import os; os.umask(0o111)",
        "'Umask:\\t0111\\n' in open('/proc/self/status').readlines()", False, False,
    ),
    "lowers a limit": (
        "import resource as r; r.setrlimit(r.RLIMIT_CORE, (0, 0)); r.setrlimit(r.RLIMIT_CPU, "
        "(9999, 9999))",
        "(r := __import__('resource')).getrlimit(r.RLIMIT_CPU)[0] == 9999", False, False,
    ),
    "leaves a thread": (
        "import threading, time; threading.Thread(target=time.sleep, args=(1e6,)).start()",
        "__import__('threading').active_count() > 1", False, False,
    ),
    "leaves a child": (
        "import subprocess; result = subprocess.Popen(['sleep', '1000']).pid",
        "not ends(BEFORE)", False, False,
    ),
    "leaves a daemon": (
        "import os, subprocess\n"
        "text = subprocess.run(['sh', '-c', 'setsid sleep 1000 >&- 2>&- & echo $!'], "
        "capture_output=True).stdout\nresult = int(text)",
        "not ends(BEFORE)", False, False,
    ),
}  # fmt: skip
LOOK = """
import os, time
OPEN = [os.path.realpath(f"/proc/self/fd/{{n}}") for n in os.listdir("/proc/self/fd")]
BEFORE = {before!r}
def ends(process):
    for _ in range(3000):  # what is left of a worker's job ends just after the job
        if not os.path.exists(f"/proc/{{process}}"):
            return True
        time.sleep(0.01)
result = {look}
"""


@pytest.mark.parametrize("name", TABLE)
def test_the_next_job_sees_what_the_table_says_of_one_that(cluster: JobCluster, name: str) -> None:
    deed, look, under_worker, under_job = TABLE[name]
    first = cluster.submit(deed)
    before = first.get(DEADLINE)
    second = cluster.submit(LOOK.format(look=look, before=before))
    expected = under_job if cluster.said == "job" else under_worker  # type: ignore[attr-defined]
    assert second.get(DEADLINE) is expected


def test_the_page_has_the_table(cluster: JobCluster) -> None:
    page = (Path(__file__).parents[2] / "docs" / "client.rst").read_text()
    rows = dict(TABLE)
    for line in page.partition("What a job sees of those before it")[2].splitlines():
        what = line[:40].strip()
        if what in rows:
            _, _, under_worker, under_job = rows.pop(what)
            words = [word == "yes" for word in line[40:].split()[:2]]
            assert words == [under_worker, under_job], line
    assert not rows, f"the page lacks {list(rows)}"


# -- a process for each job


def test_the_end_of_a_jobs_process_is_the_end_of_that_job_alone(forking: JobCluster) -> None:
    deed = "import os; result = os.getppid(), os.getpid()"
    jobs = [forking.submit(deed) for _ in range(3)]
    killed = forking.submit("import os; print('so far', flush=True); os.kill(os.getpid(), 9)")
    jobs += [forking.submit(deed) for _ in range(3)]
    seen = [job.get(DEADLINE) for job in jobs]
    assert len({worker for worker, _ in seen}) == 1  # it cost no worker
    assert len({process for _, process in seen}) == len(seen)
    assert killed.wait(DEADLINE)
    assert killed.status == DispyJob.Terminated
    assert killed.exception.startswith(
        "the worker process was killed by SIGKILL, while it ran this job on node "
        f"{os.uname().nodename}"
    )
    assert killed.stdout == "so far\n"


def test_interim_results_come_from_a_jobs_process_in_order_and_before_its_result(
    one_processor: Any,
) -> None:
    seen: list[object] = []
    deed = """
for n in range(3):
    assert dispy_provisional_result(n) == 0
assert dispy_provisional_result(bytes(300_000)) == 0
result = 'end'"""
    with JobCluster(
        act,
        nodes=[one_processor.host],
        isolation="job",
        callback=lambda job: seen.append(job.result),
    ) as opened:
        assert opened.submit(deed).get(DEADLINE) == "end"
        opened.wait(DEADLINE)
    assert seen == [0, 1, 2, bytes(300_000), "end"]


def test_the_items_of_a_chunk_share_a_process(forking: JobCluster) -> None:
    deed = "import os; result = os.getpid()"
    seen = list(forking.map([deed] * 6, chunksize=3))
    assert [seen[0]] * 3 + [seen[3]] * 3 == seen
    assert seen[0] != seen[3]


def test_each_job_draws_random_numbers_of_its_own(forking: JobCluster) -> None:
    forking.submit("import random; random.seed(1)").get(DEADLINE)
    deed = "import random; result = random.random()"
    drawn = [forking.submit(deed).get(DEADLINE) for _ in range(4)]
    assert len(set(drawn)) == 4


def test_each_job_draws_numpys_random_numbers_of_its_own(one_processor: Any) -> None:
    numpy_random = pytest.importorskip("numpy").random

    def draw() -> float:
        return float(numpy_random.random())  # loaded, and its state made, before the forks

    with JobCluster(draw, nodes=[one_processor.host], isolation="job") as opened:
        assert len({opened.submit().get(DEADLINE) for _ in range(4)}) == 4


HOOKS = """
import os, sys, types
hooks = sys.modules["fork_hooks"] = types.ModuleType("fork_hooks")
hooks.noted = noted = []
os.register_at_fork(
    before=lambda: noted.append("before"), after_in_child=lambda: noted.append(os.getpid())
)
"""


class Registers:
    """Registers hooks for forks where it is unpickled: when the computation is loaded."""

    def __reduce__(self) -> tuple:
        return exec, (HOOKS, {})


def noted_hooks(_: object = Registers()) -> tuple[list[object], int]:
    import fork_hooks  # type: ignore[import-not-found]

    return fork_hooks.noted, os.getpid()


def test_what_a_library_registers_for_forks_is_called_in_each_jobs_process(
    one_processor: Any,
) -> None:
    with JobCluster(noted_hooks, nodes=[one_processor.host], isolation="job") as opened:
        for _ in range(2):
            noted, process = opened.submit().get(DEADLINE)
            assert noted[-2:] == ["before", process]


def test_large_results_come_back_from_jobs_processes_over_and_over(forking: JobCluster) -> None:
    for size in (100_000, 300_000, 3_000_000):
        deed = f"result = b'ab' * {size}, bytearray(b'cd' * {size})"
        for job in [forking.submit(deed) for _ in range(5)]:
            assert job.get(DEADLINE) == (b"ab" * size, bytearray(b"cd" * size))


def test_a_job_that_closes_every_descriptor_is_told_that_its_result_was_too_large(
    forking: JobCluster,
) -> None:
    job = forking.submit("import os; os.closerange(0, 65536); result = bytes(1_000_000)")
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Terminated
    assert "its result could not be sent back" in job.exception
    assert forking.submit("result = 3").get(DEADLINE) == 3


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def _begin(cluster: JobCluster, deed: str, path: Path) -> tuple[DispyJob, int]:
    """Submit a job; return it and its process once it has come so far."""
    job = cluster.submit(f"import os, time\nBEGUN = {str(path)!r}\n{deed}")
    _wait_until(lambda: path.exists() and path.read_text() != "", "the job to begin")
    return job, int(path.read_text())


SAY = "open(BEGUN + '.new', 'w').write(str(os.getpid())); os.rename(BEGUN + '.new', BEGUN)"


def test_a_cancelled_jobs_process_may_clean_up_and_return_its_best_value(
    forking: JobCluster, tmp_path: Path
) -> None:
    deed = f"""
try:
    {SAY}
    time.sleep(1000)
except KeyboardInterrupt:
    result = 'the best so far'"""
    worker = forking.submit("import os; result = os.getppid()").get(DEADLINE)
    job, process = _begin(forking, deed, tmp_path / "begun")
    assert forking.cancel(job) == 0
    assert job.wait(DEADLINE)
    assert (job.status, job.result) == (DispyJob.Finished, "the best so far")
    assert process != worker
    assert forking.submit("import os; result = os.getppid()").get(DEADLINE) == worker


def test_a_signal_for_a_jobs_whole_group_ends_the_job_and_not_its_worker(
    forking: JobCluster, tmp_path: Path
) -> None:
    worker = forking.submit("import os; result = os.getppid()").get(DEADLINE)
    job, process = _begin(forking, f"{SAY}\ntime.sleep(1000)", tmp_path / "begun")
    os.killpg(os.getpgid(process), signal.SIGTERM)
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Terminated
    assert job.exception.startswith("the worker process was killed by SIGTERM, while it ran")
    assert forking.submit("import os; result = os.getppid()").get(DEADLINE) == worker


def test_jobs_behind_one_that_takes_long_are_given_to_another_worker(
    shared_node: Any, tmp_path: Path
) -> None:
    """A worker answers a poke while the process of a job runs."""
    with JobCluster(act, nodes=[shared_node.host], isolation="job") as opened:
        for job in [opened.submit("result = 1") for _ in range(100)]:
            assert job.get(DEADLINE) == 1
        held = opened.submit(f"open({str(tmp_path / 'x')!r}, 'w')\nimport time\ntime.sleep(1000)")
        jobs = [opened.submit("result = 2") for _ in range(100)]
        assert [job.get(DEADLINE) for job in jobs] == [2] * 100
        opened.cancel(held)


def test_a_jobs_process_ends_with_its_worker(forking: JobCluster, tmp_path: Path) -> None:
    job, process = _begin(forking, f"os.setpgid(0, 0)\n{SAY}\ntime.sleep(1000)", tmp_path / "x")
    child = psutil.Process(process)
    os.kill(child.ppid(), signal.SIGKILL)
    assert job.wait(DEADLINE)
    assert "killed by SIGKILL" in job.exception
    _wait_until(lambda: not child.is_running(), "the job's process to end")


def test_a_program_is_run_whatever_the_isolation(one_processor: Any) -> None:
    with JobCluster("echo", nodes=[one_processor.host], isolation="job") as opened:
        job = opened.submit("so")
        assert job.get(DEADLINE) == 0
        assert job.stdout == b"so\n"


# -- the setting


def test_another_word_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(DispyError, match="isolation: 'jobs' is not one of worker, job"):
        JobCluster(act, isolation="jobs")


def test_the_environment_chooses_for_old_programs(
    one_processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPY_ISOLATION", "job")
    with JobCluster(act, nodes=[one_processor.host]) as opened:
        seen = [opened.submit("import os; result = os.getpid()").get(DEADLINE) for _ in range(2)]
    assert seen[0] != seen[1]


def test_a_setup_chooses_a_process_for_each_job_unless_somebody_chose() -> None:
    assert ClusterIsolation("compute", None, has_setup=True).word == "job"
    assert ClusterIsolation("compute", None, has_setup=False).word == "worker"
    assert ClusterIsolation("compute", "worker", has_setup=True).word == "worker"


def prepare() -> int:
    return 0


def test_one_line_says_when_forking_limits_the_rate_that_nobody_chose(
    one_processor: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, "dispy.client"),
        JobCluster(act, nodes=[one_processor.host], setup=prepare) as opened,
    ):
        jobs = [opened.submit("result = 1") for _ in range(900)]
        assert [job.get(DEADLINE) for job in jobs] == [1] * 900
        opened._isolation.took([0.001, 0.002])  # from another worker
    (line,) = [line for line in caplog.messages if "DISPY_ISOLATION" in line]
    assert line.startswith("jobs of act are limited by the process that each gets")


def test_who_chose_a_process_for_each_job_is_not_told_of_its_price(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "dispy.client"):
        ClusterIsolation("act", "job", has_setup=True).took([0.001, 0.002])
        ClusterIsolation("act", None, has_setup=True).took("nonsense")
    assert not caplog.messages
