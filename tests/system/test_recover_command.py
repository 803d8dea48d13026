"""`dispy recover`: the results of a program that died, as files."""

import csv
import pickle
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from system.conftest import DEADLINE, Program, RunningNode, node_without_a_trace

from dispy.client.job import DispyJob
from dispy.client.recovered_files import write_jobs
from dispy.client.recovering import Recovered
from dispy.model.errors import DispyError
from dispy.protocol.messages import Bulk
from dispy.system.interpreter import own_command

PROGRAM = """
import os, signal, sys, time

class Own:
    pass

def work(n, program):
    while os.path.exists(f"/proc/{program}"):
        time.sleep(0.01)
    if n == 1:
        print("its last words", file=sys.stderr)
        sys.exit("not well")
    print("did", n)
    return [n, "text", Own(), bytearray(100_000)][n]

if __name__ == "__main__":
    import dispy
    cluster = dispy.JobCluster(work, nodes=[sys.argv[1]], local_node=False)
    jobs = [cluster.submit(n, os.getpid()) for n in (int(text) for text in sys.argv[2:])]
    while any(job.status != dispy.DispyJob.Running for job in jobs):
        time.sleep(0.01)
    while not any(name.startswith("_dispy_") for name in os.listdir()):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    with node_without_a_trace(tmp_path_factory.mktemp("node"), cpus=4) as node:
        yield node


def recover(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        own_command("recover", *arguments), cwd=directory, capture_output=True, text=True,
        timeout=DEADLINE,
    )  # fmt: skip


def test_each_job_has_a_line_and_a_directory(
    run_program: Callable[..., Program], node: RunningNode, tmp_path: Path
) -> None:
    run_program(PROGRAM, node.host, "0", "1", "2", "3").end()
    (file,) = tmp_path.glob("_dispy_*")
    ran = recover(tmp_path)
    assert ran.returncode == 1, ran.stderr
    assert ran.stdout.splitlines() == [
        f"job 1 of work on {node.host}: Finished",
        f"job 2 of work on {node.host}: Terminated: SystemExit: not well",
        f"job 3 of work on {node.host}: Finished",
        f"job 4 of work on {node.host}: Finished",
    ]
    where = Path(f"{file}_results")
    assert f"dispy recover: 4 jobs in {where}" in ran.stderr
    names = {path.name: {part.name for part in path.iterdir()} for path in where.glob("[0-9]")}
    assert names == {
        "1": {"result.pickle", "result.txt", "stdout.txt"},
        "2": {"stderr.txt", "exception.txt"},
        "3": {"result.pickle", "stdout.txt"},
        "4": {"result.pickle", "stdout.txt"},
    }
    assert pickle.loads((where / "1" / "result.pickle").read_bytes()) == 0
    assert (where / "1" / "result.txt").read_text() == "0\n"
    assert (where / "2" / "stderr.txt").read_text() == "its last words\n"
    assert pickle.loads((where / "4" / "result.pickle").read_bytes()) == bytearray(100_000)
    rows = list(csv.DictReader((where / "jobs.csv").read_text().splitlines()))
    assert [row["job"] for row in rows] == ["1", "2", "3", "4"]
    assert {row["cluster"] for row in rows} == {"work"}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+\+00:00", rows[0]["ended"])
    assert not file.exists()
    again = recover(tmp_path)
    assert (again.returncode, again.stdout) == (2, "")
    assert "dispy: there is no recovery file" in again.stderr


def test_what_cannot_be_written_stays_at_the_nodes(
    run_program: Callable[..., Program], node: RunningNode, tmp_path: Path
) -> None:
    run_program(PROGRAM, node.host, "0").end()
    (tmp_path / "taken").touch()
    ran = recover(tmp_path, "--output=taken", "--quiet")
    assert ran.returncode == 2
    assert "results cannot be written to taken (File exists); nodes keep them" in ran.stderr
    ran = recover(tmp_path, "--output=mine", "--quiet")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert (tmp_path / "mine" / "1" / "result.txt").read_text() == "0\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--timeout=soon"], "--timeout: 'soon' is not a number of seconds"),
        (["--timeout=-1"], "timeout is a number of seconds, not -1.0"),
        (["nowhere"], "nowhere cannot be opened: No such file or directory"),
        (["notes"], "notes is no recovery file of dispy"),
    ],
)
def test_a_wrong_use_is_told(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    (tmp_path / "notes").touch(mode=0o600)
    ran = recover(tmp_path, *arguments)
    assert ran.returncode == 2
    assert complaint in ran.stderr
    assert (tmp_path / "notes").exists()


def test_a_result_that_cannot_be_rebuilt_is_written_as_it_came(tmp_path: Path) -> None:
    job = DispyJob(number=7)
    job._packed = Bulk(b"cno_such_module\nx\n.", [memoryview(b"one"), memoryview(b"two")])
    other = DispyJob(number=8)
    other._packed = b"cno_such_module\nx\n."
    write_jobs(Recovered("file", [job, other], {}), str(tmp_path / "out"))
    written = {path.name: path.read_bytes() for path in (tmp_path / "out" / "7").iterdir()}
    assert written == {
        "result.pickle": b"cno_such_module\nx\n.", "result.buffer1": b"one",
        "result.buffer2": b"two",
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "out" / "8").iterdir()] == ["result.pickle"]
    with pytest.raises(DispyError, match="results cannot be written to /proc/none"):
        write_jobs(Recovered("file", [job], {}), "/proc/none")
