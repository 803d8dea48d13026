"""However a program ends or closes, its nodes are then as if it had never been there.

Each program has a computation that is being set up, large arguments on their way, jobs that ignore
every signal that can be ignored, and what these have started in sessions of their own.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from soak.counted import CountedNode, grown
from system.conftest import DEADLINE

PROGRAM = """
import os, signal, sys, time
import dispy
from dispy.client import session

def never_ready():
    import time
    open("left_by_setup", "w").close()
    time.sleep(1000)

def take(argument):
    return len(argument)

def stay(path):
    import os, signal, time
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not os.fork():
        os.setsid()
        if not os.fork():
            open("left_by_a_daemon", "w").close()
            open(path + ".daemon", "w").close()
            time.sleep(1000)
        os._exit(0)
    while not os.path.exists(path + ".go"):
        time.sleep(0.01)

def break_links():
    for link in list(session._session.scheduler._links):
        link.close()

how, host, path = sys.argv[1:]
options = {"nodes": [host], "recover_file": False}
being_set_up = dispy.JobCluster(take, setup=never_ready, **options)
sending = dispy.JobCluster(take, **options)
staying = dispy.JobCluster(stay, isolation="job" if len(how) % 2 else "worker", **options)
job = staying.submit(path)
while not os.path.exists(path + ".daemon"):
    time.sleep(0.01)
if how != "exit":
    being_set_up.submit(b"")
    sending.submit(os.urandom(32 << 20))
if how.startswith("close"):
    if how == "close without a link":
        session._session.hub.call(break_links)
    for cluster in (being_set_up, sending, staying):
        cluster.close(timeout=0, terminate=True)
    print("closed", flush=True)
    sys.stdin.read()
elif how == "exit":
    open(path + ".go", "w").close()
elif how == "exit without a link":
    session._session.hub.call(break_links)
    os._exit(0)
elif how == "raise":
    raise ValueError("as it should")
else:
    os.kill(os.getpid(), getattr(signal, how))
    time.sleep(60)
"""
ENDS = [
    "close", "close without a link", "exit", "exit without a link", "raise", "SIGINT", "SIGTERM",
    "SIGKILL",
]  # fmt: skip
OWNERS = "node: rows: Node._owners"
OF_COMPUTATIONS = (
    "processes of the node", "files of the node", "node: rows: Node._table",
    "node: rows: Running.workers", "node: rows: Execution.computations",
)  # fmt: skip
# A greenlet that waits may still have in its hands what it looked at last.
AT_HAND = 3


@pytest.fixture
def node(tmp_path: Path, nothing_left: None) -> Iterator[CountedNode]:
    """A node with room for all programs at once, which soon gives up who is gone."""
    host = f"127.4.{os.getpid() % 250}.{os.getpid() // 250 % 250 + 1}"
    started = CountedNode(tmp_path, host, "--cpus=32", "--zombie_interval=0.03")
    yield started
    started.end()
    assert "Traceback" not in started.said


def counts(name: str) -> bool:
    """Say whether a figure tells of what programs leave; memory and threads are kept for more."""
    kept = "Thread" in name or "_Frame" in name
    return name.startswith(("processes", "files", "node: descriptors", "node: rows")) and not kept


def wait_until(what: Callable[[], str], condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


def start(node: CountedNode, directory: Path, how: str) -> subprocess.Popen:
    (directory / how).mkdir()
    (directory / how / "program.py").write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, "program.py", how, node.host, str(directory / how / "job")],
        cwd=directory / how, env=node.environment, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def test_nothing_stays_on_a_node_of_programs_that_close_or_end_in_any_way(
    node: CountedNode, tmp_path: Path
) -> None:
    assert start(node, tmp_path, "exit").wait(DEADLINE) == 0  # what stays of the very first is kept
    wait_until(lambda: "the first has left", lambda: not node.look().get(OWNERS))
    first = node.look()
    (tmp_path / "exit").rename(tmp_path / "first exit")
    programs = {how: start(node, tmp_path, how) for how in ENDS}
    for how, program in programs.items():
        if how.startswith("close"):
            assert program.stdout is not None
            assert program.stdout.readline() == "closed\n", how
        else:
            program.wait(DEADLINE)
    left: list[str] = []

    def is_as_before(but: tuple[str, ...] = ()) -> bool:
        there = {
            name: number
            for name, number in node.look().items()
            if name in but or (not but and counts(name))
        }
        left[:] = grown(first, there, jobs=0, slack=AT_HAND)
        left.extend(name for name in OF_COMPUTATIONS if there.get(name, 0) > first.get(name, 0))
        return not left

    def what_is_left() -> str:
        processes = [" ".join(process.cmdline()) for process in node.processes()]
        files = [str(path) for path in node.directory.rglob("*")]
        return f"{left}, processes {processes}, files {files}"

    # Two of them have closed and live on.
    wait_until(what_is_left, lambda: is_as_before(OF_COMPUTATIONS))
    for program in programs.values():
        program.communicate(timeout=DEADLINE)
    wait_until(what_is_left, is_as_before)
    assert not node.look().get(OWNERS)
