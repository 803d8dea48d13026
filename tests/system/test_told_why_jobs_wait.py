"""Nothing waits in silence: who waits is told for what, and what to do."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from system.conftest import DEADLINE, Program, ours

WAITS = """
import sys
import dispy

def compute(n):
    return n

if __name__ == "__main__":
    cluster = dispy.JobCluster(compute, nodes=sys.argv[1:] or None, local_node=False)
    job = cluster.submit(7)
    print("submitted", flush=True)
    sys.stdin.readline()
    print("why:", job.why(), flush=True)
    print("result:", job(), flush=True)
"""

HOLDS = """
import sys
import dispy

def hold(gate):
    print("held", file=open(gate + ".begun", "w"))
    with open(gate):
        return "let go"

if __name__ == "__main__":
    cluster = dispy.JobCluster(hold, nodes=sys.argv[2:] or None, reentrant=True)
    jobs = [cluster.submit(sys.argv[1])]
    print("submitted", flush=True)
    print("result:", jobs[0](), flush=True)
"""


def lines_until(program: Program, word: str) -> str:
    """Return what a program says up to a line with this word."""
    said = ""
    while word not in said:
        line = program.line()
        assert line, f"it ended without {word!r}: {program.output}"
        said += line
    return said


def wait_for(what: Callable[[], object], name: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, f"waited for {name}"
        time.sleep(0.01)


def test_whoever_waits_is_told_what_was_tried_and_what_to_do(run_program, start_node) -> None:
    node = start_node("--cpus=1")
    nobody = node.host[: node.host.rindex(".")] + ".250"
    node.end()
    program = run_program(WAITS, nobody, node.host)
    said = lines_until(program, "dispy doctor")
    assert "jobs of compute (1) have waited for 2 s:" in said
    assert "no node is connected" in said
    for host in (nobody, node.host):
        assert f"asked {host} port 51348: no answer: Connection refused" in said
    assert f"`dispy doctor {nobody} {node.host}` checks the way to it" in said
    program.say("go on")
    why = lines_until(program, "dispy doctor")
    assert "why: jobs of compute wait: 1 for any of its nodes" in why
    assert f"asked {nobody} port 51348" in why
    start_node("--cpus=1", host=node.host)
    assert program.end() == 0, program.output
    assert "result: 7" in program.output


def test_a_pattern_tells_which_networks_were_asked(run_program) -> None:
    program = run_program(WAITS)
    said = lines_until(program, "dispy doctor HOST")
    assert "broadcast on loopback (127.255.255.255) port 51348: no node answered in" in said
    assert "start `dispy node` on this machine" in said


def test_whoever_waits_for_a_busy_node_is_told_whose_jobs_it_runs(
    run_program, start_node, tmp_path: Path
) -> None:
    node, gate = start_node("--cpus=1"), tmp_path / "gate"
    os.mkfifo(gate)
    holder = run_program(HOLDS, str(gate), node.host)
    wait_for((tmp_path / "gate.begun").exists, "the first job")
    waiter = run_program(WAITS, node.host)
    said = lines_until(waiter, "other clients' jobs")
    assert f"process {holder.process.pid} (1)" in said
    waiter.say("go on")
    assert f"process {holder.process.pid} (1)" in lines_until(waiter, "why:")
    with open(gate, "r+b", buffering=0):
        assert waiter.end() == 0, waiter.output
        assert holder.end() == 0, holder.output
    assert "result: 7" in waiter.output
    assert "result: let go" in holder.output


def test_a_local_node_that_is_killed_is_replaced(run_program, tmp_path: Path) -> None:
    gate, begun = tmp_path / "gate", tmp_path / "gate.begun"
    os.mkfifo(gate)
    program = run_program(HOLDS, str(gate))
    wait_for(begun.exists, "the job")
    begun.unlink()
    (local,) = psutil.Process(program.process.pid).children()
    local.kill()
    wait_for(begun.exists, "the job in the second local node")
    with open(gate, "r+b", buffering=0):
        assert program.end() == 0, program.output
    assert "the local node ended" in program.output
    assert program.output.count("started a local node") == 2
    assert "result: let go" in program.output


BROKEN = """
import sys
if "--serve-descriptor" in sys.orig_argv:
    sys.exit("this installation is broken")
"""


def test_a_local_node_that_cannot_start_says_why_and_is_given_up(
    run_program, tmp_path: Path
) -> None:
    before = ours()
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    program = run_program(HOLDS, "no gate", PYTHONPATH=str(tmp_path))
    said = lines_until(program, "so no more is started")
    assert said.count("started a local node") == 4
    assert "this installation is broken" in said
    waited = lines_until(program, "jobs of hold (1) have waited")
    waited += lines_until(program, "dispy doctor")
    assert "so no more is started" in waited
    program.process.kill()
    wait_for(lambda: ours() <= before, "the end of its processes")
