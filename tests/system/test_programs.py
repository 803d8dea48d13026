"""A program as a computation: any executable or script, its exit status is the result."""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import dispy
from dispy import DispyError, DispyJob, JobCluster

DEADLINE = 30.0  # seconds; for machines that are busy with something else


@pytest.fixture
def open_program(shared_node: Any) -> Iterator[Callable[..., JobCluster]]:
    opened: list[JobCluster] = []

    def open_cluster(program: Path | str) -> JobCluster:
        opened.append(JobCluster(str(program), nodes=[shared_node.host]))
        return opened[-1]

    yield open_cluster
    for cluster in opened:
        cluster.close(timeout=0, terminate=True)


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def run(cluster: JobCluster, *arguments: object) -> DispyJob:
    job = cluster.submit(*arguments)
    assert job.wait(DEADLINE), job.why()
    return job


def test_a_shell_script_gets_its_arguments_as_text_and_gives_status_and_bytes(
    open_program: Any, tmp_path: Path
) -> None:
    script = write(tmp_path / "work.sh", '#!/bin/sh\necho "$1,$2"\necho oops >&2\nexit 3\n')
    job = run(open_program(script), 7, None)
    assert (job.status, job.result, job.exception) == (DispyJob.Finished, 3, None)
    assert (job.stdout, job.stderr) == (b"7,None\n", b"oops\n")
    assert job.submit_time <= job.start_time <= job.end_time


def test_a_program_in_the_current_directory_is_found_by_its_name(
    open_program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "work", "#!/bin/sh\necho here\n")
    monkeypatch.chdir(tmp_path)
    assert run(open_program("work")).stdout == b"here\n"


def test_a_binary_on_the_path_of_the_client_runs(open_program: Any) -> None:
    job = run(open_program("expr"), 20, "+", 1)
    assert (job.result, job.stdout, job.stderr) == (0, b"21\n", b"")


def test_a_python_script_runs_with_the_interpreter_of_the_node(
    open_program: Any, tmp_path: Path
) -> None:
    script = tmp_path / "work.py"
    script.write_text("import sys\nprint(sys.executable)\nsys.exit(len(sys.argv))\n")
    assert not script.stat().st_mode & stat.S_IXUSR
    job = run(open_program(script), "a", "b")
    assert (job.result, job.stdout.decode().strip()) == (3, sys.executable)


def test_it_runs_in_the_computation_s_directory_and_knows_its_node(
    open_program: Any, shared_node: Any, tmp_path: Path
) -> None:
    script = write(
        tmp_path / "work.sh",
        "#!/bin/sh\npwd\necho $dispy_job_path\necho $dispy_node_ip_addr\necho $dispy_node_name\n"
        "echo $PATH\ncommand -v work.sh\nls\n",
    )
    lines = run(open_program(script)).stdout.decode().split("\n")
    directory, path, address, name, search, found, *files = lines
    assert directory == path
    assert directory.startswith(str(shared_node.directory))
    assert address == shared_node.host
    assert name == os.uname().nodename
    assert search == f"{directory}:{os.environ['PATH']}"
    assert found == f"{directory}/work.sh"
    assert files == ["work.sh", ""]


def test_a_program_that_dies_by_a_signal_has_its_number_as_result(
    open_program: Any, tmp_path: Path
) -> None:
    job = run(open_program(write(tmp_path / "work", "#!/bin/sh\necho so far\nkill -9 $$\n")))
    assert (job.status, job.result, job.stdout) == (DispyJob.Finished, -9, b"so far\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["'work' could not be started: its file is empty"]),
        ("#!/no/such/shell\n", ["this node has no '/no/such/shell'"]),
        ("echo no interpreter\n", ["neither an executable for this machine nor a script"]),
    ],
)
def test_a_program_that_cannot_be_started_says_why(
    open_program: Any, tmp_path: Path, content: str, words: list[str]
) -> None:
    cluster = open_program(write(tmp_path / "work", content))
    job = run(cluster)
    assert (job.status, job.result) == (DispyJob.Terminated, None)
    for word in words:
        assert word in job.exception
    assert "Traceback" not in job.exception
    assert run(cluster, "again").exception == job.exception


def test_a_cancelled_program_is_interrupted_and_its_signal_is_the_result(
    open_program: Any, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    script = write(tmp_path / "work", f"#!/bin/sh\necho said\n> {begun}\nexec sleep 1000\n")
    cluster = open_program(script)
    job = cluster.submit()
    deadline = time.monotonic() + DEADLINE
    while not begun.exists():
        assert time.monotonic() < deadline, job.why()
        time.sleep(0.005)
    assert cluster.cancel(job) == 0
    assert job.wait(DEADLINE)
    assert (job.status, job.result, job.stdout) == (DispyJob.Terminated, -2, b"said\n")
    assert job.exception == "cancelled while it ran; the program was killed by SIGINT"


def test_a_program_that_ignores_the_interrupt_is_ended_by_sigterm(
    open_program: Any, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    script = write(
        tmp_path / "work", f"#!/bin/sh\ntrap '' INT\necho said\n> {begun}\nexec sleep 1000\n"
    )
    cluster = open_program(script)
    job = cluster.submit()
    deadline = time.monotonic() + DEADLINE
    while not begun.exists():
        assert time.monotonic() < deadline, job.why()
        time.sleep(0.005)
    assert cluster.cancel(job) == 0
    assert job.wait(DEADLINE)
    assert (job.status, job.result, job.stdout) == (DispyJob.Terminated, -15, b"said\n")


def test_a_program_reads_what_was_given_as_its_standard_input(
    open_program: Any, tmp_path: Path
) -> None:
    script = write(tmp_path / "count.sh", "#!/bin/sh\nwc -c\n")
    cluster = open_program(script)
    large = b"x" * 3_000_000
    jobs = [cluster.submit(dispy_job_stdin=text) for text in ("four", large)] + [cluster.submit()]
    assert [job.wait(DEADLINE) for job in jobs] == [True] * 3
    assert [int(job.stdout) for job in jobs] == [4, len(large), 0]


def test_a_function_has_no_standard_input(shared_node: Any) -> None:
    with JobCluster(abs, nodes=[shared_node.host]) as cluster:
        with pytest.raises(DispyError, match="dispy_job_stdin is for programs"):
            cluster.submit(1, dispy_job_stdin="text")
        with pytest.raises(DispyError, match="dispy_job_nonsense is no option of a job"):
            cluster.submit(1, dispy_job_nonsense=1)


def test_a_program_that_may_not_be_executed_is_an_error_at_once(tmp_path: Path) -> None:
    script = write(tmp_path / "work.sh", "#!/bin/sh\n")
    script.chmod(0o644)
    with pytest.raises(DispyError, match=r"work\.sh' is not executable: chmod \+x"):
        JobCluster(str(script))
    with pytest.raises(DispyError, match="no program 'nowhere-to-be-found'"):
        JobCluster("nowhere-to-be-found")


def test_a_java_file_is_run_by_what_the_program_has_chosen(
    open_program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = write(tmp_path / "java", '#!/bin/sh\necho "ran $(basename $1) with $2"\n')
    source = tmp_path / "Work.java"
    source.write_text("class Work {}")
    monkeypatch.setattr(dispy.config, "Java", str(java))
    assert run(open_program(source), 7).stdout == b"ran Work.java with 7\n"
    monkeypatch.setattr(dispy.config, "Java", "/no/such/java")
    job = run(open_program(source))
    assert job.status == DispyJob.Terminated
    assert "needs '/no/such/java', which this node lacks" in job.exception
