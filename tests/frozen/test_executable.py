"""The single executable is a node wherever there is a kernel and a C library."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from frozen.conftest import ROOT, wait_until
from other_pythons import OWN, interpreter, others
from system.conftest import DEADLINE
from system.other_users import NOBODY, needs_root, open_directory  # noqa: F401
from system.test_canonical_program import BRIEF, check

PROGRAM = """
import dispy, sys
cluster = dispy.JobCluster(sys.argv[1])
job = cluster.submit(*sys.argv[2:])
job()
print(job.status == dispy.DispyJob.Finished, job.result, job.stdout, job.stderr, job.exception)
cluster.close()
"""

OF_ALL_SORTS = """
import dataclasses, dispy, enum, sys

@dataclasses.dataclass(order=True)
class Point:
    x: int
    tags: list = dataclasses.field(default_factory=list)
    def moved(self, by): return dataclasses.replace(self, x=self.x + by)

class Color(enum.Enum):
    RED = 1

def scaled(n):
    def scale(point, function):
        return sys.version_info[1], helper(point.moved(n)), function(n), Color(1)
    return scale

def helper(point):
    \'\'\'Use a name of another version's bytecode: none is loaded.\'\'\'
    match point:
        case Point(x=x): return Point(x * base)

base = 10
if __name__ == "__main__":
    cluster = dispy.JobCluster(scaled(2))
    for n in range(3):
        minor, point, given, color = cluster.submit(Point(n), lambda x: x + base).get()
        print(point == Point((n + 2) * 10), given, color is Color.RED, minor - sys.version_info[1])
    names = {}
    exec("def made(): pass", names)
    try:
        cluster.submit(Point(1), names["made"]).get()
    except dispy.DispyError as error:
        print(error)
"""

BUSY = """
import dispy, time
cluster = dispy.JobCluster(time.sleep)
cluster.submit(1000)
cluster.wait()
"""


def test_the_canonical_program_runs_on_a_node_without_python(run_program, start_frozen) -> None:
    node = start_frozen()
    program = run_program(BRIEF)
    assert program.end() == 0, program.output
    check(program.output)
    assert "(frozen)" in program.output
    assert len(node.unpacked()) == 1, "workers use what the node has unpacked"
    assert node.end() == 0
    assert not node.unpacked()


def test_the_canonical_program_runs_in_a_bare_root(run_program, node_in_bare_root) -> None:
    program = run_program(BRIEF)
    assert program.end() == 0, program.output
    check(program.output)
    assert "(frozen)" in program.output
    assert node_in_bare_root.end() == 0
    assert not node_in_bare_root.unpacked()


def test_a_binary_and_a_script_run_in_a_bare_root(run_program, node_in_bare_root, tmp_path) -> None:
    echo = run_program(PROGRAM, "/bin/echo", "hello", "there")
    assert echo.end() == 0, echo.output
    assert "True 0 b'hello there\\n'" in echo.output
    script = tmp_path / "script.py"
    script.write_text("import json, sqlite3, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit(3)\n")
    run = run_program(PROGRAM, str(script), "one", "two")
    assert run.end() == 0, run.output
    assert """ 3 b'["one", "two"]\\n'""" in run.output
    assert node_in_bare_root.end() == 0


def test_a_function_may_import_what_it_likes_and_sees_its_users_environment(
    run_program, start_frozen
) -> None:
    start_frozen()
    program = run_program("""
def compute():
    import asyncio, ctypes, curses, decimal, email.mime.text, lzma, os, sqlite3, ssl, subprocess
    import concurrent.futures, multiprocessing.shared_memory, sys, unittest, xml.etree, zoneinfo

    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=10)
    memory.close()
    memory.unlink()
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        power = pool.submit(pow, 2, 10).result()
    path = subprocess.check_output("/usr/bin/printenv LD_LIBRARY_PATH", shell=True, text=True)
    return power, path.strip(), ssl.create_default_context().verify_mode.name

if __name__ == "__main__":
    import dispy
    job = dispy.JobCluster(compute).submit()
    print(job(), job.exception)
""")
    assert program.end() == 0, program.output
    assert "(1024, '/opt/of-the-user', 'CERT_REQUIRED')" in program.output


@needs_root
@pytest.mark.skipif(shutil.which("bwrap") is None, reason="takes bubblewrap, a Debian package")
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_its_jobs_run_in_a_sandbox(
    run_program,
    start_frozen,
    open_directory: Path,  # noqa: F811
    user: str,
) -> None:
    options = ["--sandbox", *(["--run-as=nobody"] if user == "nobody" else [])]
    node = start_frozen(open_directory, options=options)
    program = run_program("""
def look():
    import ctypes, os, sqlite3
    processes = [name for name in os.listdir("/proc") if name.isdecimal()]
    return os.getuid(), len(processes), os.path.exists("/root"), sqlite3.threadsafety

if __name__ == "__main__":
    import dispy
    print(dispy.JobCluster(look, local_node=False).submit().get(30))
""")
    assert program.end() == 0, program.output
    number = NOBODY if user == "nobody" else 0
    assert f"({number}, 3, False, " in program.output, program.output
    assert node.end() == 0
    assert not node.unpacked()


@pytest.mark.parametrize("version", others())
def test_a_client_with_another_python_runs_its_code_in_the_executable(
    run_program, start_frozen, version: str
) -> None:
    start_frozen()
    program = run_program(OF_ALL_SORTS, PYTHONPATH=str(ROOT), python=interpreter(version))
    assert program.end() == 0, program.output
    apart = sys.version_info[1] - int(version.partition(".")[2])
    assert program.output.count(f"True 12 True {apart}\n") == 3, program.output
    assert "'made' has no source text" in program.output
    assert f"runs cpython {OWN}, this program cpython {version}" in program.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("process", ["outer", "inner"])
def test_nothing_is_left_whichever_process_gets_a_signal(
    run_program, start_frozen, number: signal.Signals, process: str
) -> None:
    node = start_frozen()
    run_program(BUSY)
    node.read_until("connected")
    wait_until(lambda: len(node.inner.children(recursive=True)) >= 2, "a worker to start")
    processes = node.inner.children(recursive=True)
    os.kill(getattr(node, process).pid, number)
    status = node.wait()
    assert status == (0 if number != signal.SIGKILL else -signal.SIGKILL), node.said
    wait_until(lambda: not node.unpacked(), "the unpacked directory to go")
    _, alive = psutil.wait_procs(processes, timeout=DEADLINE)
    assert not alive


def test_ctrl_c_ends_both_processes_cleanly(start_frozen) -> None:
    node = start_frozen(start_new_session=True)
    os.killpg(node.outer.pid, signal.SIGINT)
    assert node.wait() == 0, node.said
    assert "Traceback" not in node.said
    assert not node.unpacked()


def test_what_two_killed_processes_left_is_removed_by_the_next(start_frozen) -> None:
    killed = start_frozen()
    (left,) = killed.unpacked()
    killed.outer.send_signal(signal.SIGSTOP)  # else it removes it before it is killed
    killed.inner.kill()
    killed.outer.kill()
    killed.wait()
    assert killed.unpacked() == [left]
    an_hour_ago = left.stat().st_mtime - 3600
    os.utime(left, (an_hour_ago, an_hour_ago))
    node = start_frozen()
    in_use = node.unpacked()
    assert left not in in_use
    os.utime(in_use[0], (an_hour_ago, an_hour_ago))
    command = [node.outer.args[0], "--help"]
    subprocess.run(command, env={"TMPDIR": str(node.temporary)}, check=True, capture_output=True)
    assert node.unpacked() == in_use, "a directory in use is left alone, however old"


def test_it_is_the_same_command_as_that_of_an_installation(executable: Path) -> None:
    for arguments in (["--help"], ["--version"], ["node", "--help"], ["nonsense"], []):
        frozen, installed = (
            subprocess.run([*command, *arguments], capture_output=True, text=True)
            for command in ([executable], [sys.executable, "-m", "dispy"])
        )
        assert frozen.stdout or frozen.stderr
        assert (frozen.returncode, frozen.stdout, frozen.stderr) == (
            installed.returncode, installed.stdout, installed.stderr
        )  # fmt: skip
