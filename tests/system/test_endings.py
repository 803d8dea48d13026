"""How a program ends: at once or after its jobs, and never with anything left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from system.conftest import DEADLINE

PROLOGUE = """
import os, signal, sys, threading, time

def hold(gate):
    import os, time
    with open(gate + f".{os.getpid()}", "w"):
        pass
    while not os.path.exists(gate):
        time.sleep(0.01)
    with open(gate + ".done", "a") as file:
        file.write("x")

def fail(n):
    raise ValueError(f"number {n}")

def double(n):
    return 2 * n

if __name__ == "__main__":
    import dispy
    gate = sys.argv[1]
    nodes = sys.argv[2:] or None
    cluster = dispy.JobCluster(hold, nodes=nodes, pulse_interval=0.3)
"""


def program(body: str) -> str:
    return PROLOGUE + "".join(f"    {line}\n" for line in body.strip().splitlines())


def wait_for(what: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.01)


def running(gate: Path) -> list[Path]:
    """Return what each job that has begun has left."""
    return [path for path in gate.parent.glob(f"{gate.name}.*") if path.suffix != ".done"]


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


def test_a_program_without_close_waits_for_its_jobs_and_ends(run_program, gate: Path) -> None:
    ran = run_program(program("for n in range(4): cluster.submit(gate)"), str(gate))
    wait_for("the first job", lambda: running(gate))
    gate.touch()
    assert ran.end() == 0
    assert Path(f"{gate}.done").read_text() == "xxxx"
    assert ran.output.count("\n") == 1, ran.output


def test_whoever_waits_at_the_end_of_a_program_is_told_and_may_interrupt(
    run_program, gate: Path
) -> None:
    ran = run_program(program("cluster.submit(gate)"), str(gate))
    while "waits for 1 jobs of hold; Ctrl-C ends it at once" not in ran.line():
        assert ran.process.poll() is None
    ran.process.send_signal(signal.SIGINT)
    assert ran.end() == -signal.SIGINT, ran.output
    assert not Path(f"{gate}.done").exists()


def test_other_exit_functions_run_when_the_wait_at_the_end_is_interrupted(
    run_program, gate: Path
) -> None:
    body = "import atexit\natexit.register(print, 'my own', end='')\ncluster.submit(gate)"
    ran = run_program(program(body), str(gate))
    while "Ctrl-C ends it at once" not in ran.line():
        assert ran.process.poll() is None
    ran.process.send_signal(signal.SIGINT)
    assert ran.end() == -signal.SIGINT, ran.output
    assert "my own" in ran.output


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_in_a_job_ends_the_program_at_once(run_program, gate: Path, times: int) -> None:
    ran = run_program(program("job = cluster.submit(gate)\njob()"), str(gate))
    wait_for("the job", lambda: running(gate))
    for _ in range(times):
        ran.process.send_signal(signal.SIGINT)
    assert ran.end() == -signal.SIGINT, ran.output
    told = [line for line in ran.output.splitlines() if "interrupted while waiting" in line]
    assert len(told) == 1, ran.output
    assert "1 jobs of hold run on and 0 wait; the local node ends with this program" in told[0]
    assert not Path(f"{gate}.done").exists()


def test_ctrl_c_in_a_job_leaves_it_running_for_a_program_that_goes_on(
    run_program, gate: Path
) -> None:
    body = """
job = cluster.submit(gate)
try:
    job()
except KeyboardInterrupt:
    print("caught", flush=True)
print(job.wait(), job.status.name)
"""
    ran = run_program(program(body), str(gate))
    wait_for("the job", lambda: running(gate))
    ran.process.send_signal(signal.SIGINT)
    while "caught" not in ran.line():
        pass
    gate.touch()
    assert ran.end() == 0, ran.output
    assert "True Finished" in ran.output


def test_an_uncaught_exception_ends_the_program_at_once(run_program, gate: Path) -> None:
    ran = run_program(program("cluster.submit(gate)\nraise ValueError('mine')"), str(gate))
    assert ran.end() == 1
    assert "ValueError: mine" in ran.output
    assert not Path(f"{gate}.done").exists()


def test_an_exception_in_a_with_block_ends_the_program_at_once(run_program, gate: Path) -> None:
    body = "with cluster:\n    cluster.submit(gate)\n    raise ValueError('mine')"
    ran = run_program(program(body), str(gate))
    assert ran.end() == 1
    assert "ValueError: mine" in ran.output


def test_sys_exit_waits_for_the_jobs_and_keeps_its_status(run_program, gate: Path) -> None:
    ran = run_program(program("cluster.submit(gate)\nsys.exit(3)"), str(gate))
    wait_for("the job", lambda: running(gate))
    gate.touch()
    assert ran.end() == 3
    assert Path(f"{gate}.done").exists()


@pytest.mark.parametrize("deed", ["os.kill(os.getpid(), signal.SIGTERM)", "os._exit(5)"])
def test_an_end_without_farewell_takes_the_local_node_along(
    run_program, gate: Path, deed: str
) -> None:
    ran = run_program(program(f"cluster.submit(gate)\ncluster.wait(0.5)\n{deed}"), str(gate))
    assert ran.end() in (5, -signal.SIGTERM)


def test_real_nodes_go_on_with_what_an_interrupted_program_gave_them(
    run_program, start_node, gate: Path
) -> None:
    node = start_node("--cpus=1")
    ran = run_program(program("cluster.submit(gate)()"), str(gate), node.host)
    wait_for("the job", lambda: running(gate))
    ran.process.send_signal(signal.SIGINT)
    assert ran.end() == -signal.SIGINT, ran.output
    assert "local node" not in ran.output
    gate.touch()
    wait_for("the job's end", Path(f"{gate}.done").exists)
    assert node.end() == 0


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_no_hang_at_the_end_when_a_node_is(run_program, start_node, gate: Path, how: str) -> None:
    node = start_node("--cpus=1")
    ran = run_program(program("job = cluster.submit(gate)"), str(gate), node.host)
    wait_for("the job", lambda: running(gate))
    node.process.send_signal(signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
    assert ran.end() == 0, ran.output
    assert "is lost" in ran.output
    assert "job 1 of hold was Abandoned and nobody looked at it: node" in ran.output
    if how == "stopped":
        node.process.send_signal(signal.SIGCONT)


BREAK_LINKS = """
from dispy.client import session
def break_links():
    for link in list(session._session.scheduler._links):
        link.close()
cluster.close()
cluster = dispy.JobCluster(hold, nodes=nodes)  # that bears a longer silence
cluster.submit(gate).get()
print("ready", flush=True)
sys.stdin.readline()
session._session.hub.call(break_links)
"""


def test_a_program_waits_a_moment_to_tell_a_node_that_is_away_of_its_end(
    run_program, start_node, gate: Path
) -> None:
    node = start_node("--cpus=1")
    gate.touch()
    ran = run_program(program(BREAK_LINKS), str(gate), node.host)
    while "ready" not in ran.line():
        pass
    node.process.send_signal(signal.SIGSTOP)
    ran.say("end")
    while "waits for node" not in ran.line():
        assert ran.process.poll() is None, ran.output
    node.process.send_signal(signal.SIGCONT)
    assert ran.end() == 0, ran.output
    clients = next(node.directory.iterdir()) / "clients"
    wait_for("the node's own end of it", lambda: not clients.exists() or not any(clients.iterdir()))
    assert "was not told" not in ran.output


def test_an_exception_ends_at_once_beside_a_stopped_node(
    run_program, start_node, gate: Path
) -> None:
    node = start_node("--cpus=1")
    body = "cluster.submit(gate)\nsys.stdin.readline()\nraise ValueError('mine')"
    ran = run_program(program(body), str(gate), node.host)
    wait_for("the job", lambda: running(gate))
    node.process.send_signal(signal.SIGSTOP)
    ran.say("go on")
    assert ran.end() == 1, ran.output
    node.process.send_signal(signal.SIGCONT)


def test_a_stopped_local_node_ends_with_its_program(run_program, gate: Path) -> None:
    body = "cluster.submit(gate)\nsys.stdin.readline()\nraise ValueError('mine')"
    ran = run_program(program(body), str(gate))
    wait_for("the job", lambda: running(gate))
    (local,) = psutil.Process(ran.process.pid).children()
    local.suspend()
    ran.say("go on")
    assert ran.end() == 1, ran.output
    assert not local.is_running()


@pytest.mark.parametrize("body", ["pass", "cluster.close()", "time.sleep(0.05)"])
def test_a_program_without_jobs_ends_at_once_with_or_without_nodes(
    run_program, gate: Path, body: str
) -> None:
    assert run_program(program(body), str(gate)).end() == 0
    assert run_program(program(body), str(gate), "127.0.0.77").end() == 0


def test_a_program_whose_node_is_not_there_ends_at_ctrl_c(run_program, gate: Path) -> None:
    ran = run_program(program("cluster.submit(gate)"), str(gate), "127.0.0.77")
    while "waits for 1 jobs" not in ran.line():
        assert ran.process.poll() is None
    ran.process.send_signal(signal.SIGINT)
    assert ran.end() == -signal.SIGINT, ran.output


def test_daemon_threads_that_wait_for_jobs_do_not_hold_up_the_end(run_program, gate: Path) -> None:
    body = """
job = cluster.submit(gate)
threading.Thread(target=job, daemon=True).start()
threading.Thread(target=cluster.wait, daemon=True).start()
raise ValueError("mine")
"""
    assert run_program(program(body), str(gate)).end() == 1


def test_failed_jobs_that_nobody_looked_at_are_told_once_at_the_end(
    run_program, gate: Path
) -> None:
    body = """
failing = dispy.JobCluster(fail)
jobs = [failing.submit(n) for n in range(8)]
failing.wait()
assert jobs[0].exception
try:
    jobs[1].get()
except ValueError:
    pass
assert jobs[2]() is None
"""
    ran = run_program(program(body), str(gate))
    assert ran.end() == 0, ran.output
    lines = [line for line in ran.output.splitlines() if "nobody looked" in line]
    assert len(lines) == 5, ran.output
    assert "of fail was Terminated and nobody looked at it: ValueError: number" in lines[0]
    assert not [line for line in lines if "job 1 " in line or "job 2 " in line]
    assert "1 more jobs failed unseen" in ran.output


def test_a_job_that_its_user_has_cancelled_is_not_told_as_failed(run_program, gate: Path) -> None:
    body = """
job = cluster.submit(gate)
wait_until_running(job)
assert cluster.cancel(job) == 0
assert job.wait(30)
assert job.status == dispy.DispyJob.Terminated, job.status
"""
    waiting = """
def wait_until_running(job):
    import time
    while job.status != dispy.DispyJob.Running:
        time.sleep(0.01)
"""
    ran = run_program(program(waiting + body), str(gate))
    assert ran.end() == 0, ran.output
    assert "nobody looked" not in ran.output


def test_where_logging_is_configured_nothing_else_is_written(run_program, gate: Path) -> None:
    body = (
        PROLOGUE.replace(
            "import dispy\n",
            "import dispy, logging\n    "
            + ("logging.basicConfig(filename='log', level=logging.INFO)\n"),
        )
        + "    dispy.JobCluster(fail).submit(1)()\n"
    )
    ran = run_program(body, str(gate))
    assert ran.end() == 0
    assert ran.output == ""
    log = (gate.parent / "log").read_text()
    assert "started a local node" in log
    assert "nobody looked" in log


def test_an_interactive_interpreter_waits_at_its_end(gate: Path, nothing_left: None) -> None:
    script = gate.parent / "definitions.py"
    script.write_text(PROLOGUE)
    with subprocess.Popen(
        [sys.executable, "-i", str(script), str(gate)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        cwd=gate.parent, env={**os.environ, "PYTHONSTARTUP": "", "TERM": "dumb"},
    ) as ran:  # fmt: skip
        try:
            gate.touch()
            lines = "1/0\ndispy.JobCluster(double).submit(21)()\njob = cluster.submit(gate)\n"
            output, _ = ran.communicate(lines, timeout=DEADLINE)
        finally:
            ran.kill()
    assert ran.returncode == 0
    assert "42" in output
    assert "ZeroDivisionError" in output
    assert Path(f"{gate}.done").exists()


def test_a_ctrl_c_between_submits_loses_no_job(run_program, gate: Path) -> None:
    body = """
counting = dispy.JobCluster(double)
counting.submit(1)()
jobs, caught, inside = [], 0, False
def interrupt(*_):
    if inside:  # else one that comes while another is counted ends the program
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
parent = os.getpid()
child = os.fork()
if child == 0:
    for _ in range(40):
        time.sleep(0.005)
        os.kill(parent, signal.SIGINT)
    time.sleep(0.1)
    os._exit(0)
ended = False
while not ended:
    try:
        inside = True
        while not ended:
            jobs.append(counting.submit(len(jobs)))
            ended = os.waitpid(child, os.WNOHANG)[0] == child
        inside = False
    except KeyboardInterrupt:
        inside = False
        caught += 1
print(counting.wait(20), all(job.done for job in jobs), caught > 3)
"""
    ran = run_program(program(body), str(gate))
    assert ran.end() == 0, ran.output
    assert "True True True" in ran.output
