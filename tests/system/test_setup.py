"""setup once per node before the first job, cleanup after the last: what is promised of them."""

import contextlib
import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue

import psutil
import pytest
from system.conftest import DEADLINE, Gate, RunningNode, expect, ours

import dispy.client.preparing
from dispy import DispyJob, DispyNode, JobCluster, NodeAllocate

Open = Callable[..., JobCluster]


def events_of(queue: "Queue[object]") -> Callable[..., None]:
    """Return a `cluster_status` that notes what happens to nodes."""
    return lambda status, node, job: queue.put((status, node, job)) if job is None else None


def told(events: "Queue[object]", wanted: int) -> DispyNode:
    return expect(events, f"node status {wanted}", lambda event: event[0] == wanted)[1]


def until(what: str, holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def prepare(*arguments: object) -> int:
    global prepared, begun
    prepared, begun = [*arguments], os.getcwd()
    with open("written_by_setup", "w") as file:
        file.write("here")
    return 0


def tell() -> tuple:
    with open("written_by_setup") as file:
        here = begun == os.getcwd() == dispy_job_path  # noqa: F821
        return prepared, here, begun in sys.path, file.read()


def test_each_job_finds_what_setup_left_in_globals_and_in_the_directory(
    open_cluster: Open, shared_node: RunningNode
) -> None:
    nodes = [NodeAllocate(shared_node.host, setup_args=(1, "two"))]
    cluster = open_cluster(tell, nodes=nodes, setup=prepare)
    jobs = [cluster.submit() for _ in range(6)]
    assert [job.get(DEADLINE) for job in jobs] == [([1, "two"], True, True, "here")] * 6


def test_setup_may_be_a_partial_and_its_arguments_come_from_allocate(
    open_cluster: Open, shared_node: RunningNode
) -> None:
    class Named(NodeAllocate):
        def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=""):
            self.setup_args = (ip_addr, cpus)
            return cpus

    setup = functools.partial(prepare, "first")
    cluster = open_cluster(tell, nodes=[Named(shared_node.host)], setup=setup)
    assert cluster.submit().get(DEADLINE)[0] == ["first", shared_node.host, 2]


def change() -> list:
    prepared.append("changed")
    return prepared


def test_a_job_may_change_what_setup_left_and_the_next_does_not_see_it(
    open_cluster: Open, shared_node: RunningNode
) -> None:
    cluster = open_cluster(change, nodes=[shared_node.host], setup=prepare)
    assert [cluster.submit().get(DEADLINE) for _ in range(4)] == [["changed"]] * 4


def test_setup_and_cleanup_use_names_that_nobody_imported(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path
) -> None:
    source = """
def setup(path):
    global started
    started = time.time()
def compute():
    return started > 0
def cleanup(path):
    with open(path, "w") as file:
        file.write(dispy_node_name + str(os.path.exists("written")))
"""
    names: dict = {"__name__": "__main__"}
    exec(source, names)
    nodes = [NodeAllocate(shared_node.host, setup_args=(str(tmp_path / "said"),))]
    cluster = open_cluster(
        names["compute"], nodes=nodes, setup=names["setup"], cleanup=names["cleanup"]
    )
    assert cluster.submit().get(DEADLINE) is True
    cluster.close()
    assert (tmp_path / "said").read_text() == f"{os.uname().nodename}False"


def note(path: str, *more: object) -> None:
    with open(path, "a") as file:
        print("cleaned", *prepared[1:], os.path.exists("written_by_setup"), file=file)


def test_cleanup_gets_the_same_arguments_before_files_go_and_close_waits_for_it(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path
) -> None:
    nodes = [NodeAllocate(shared_node.host, setup_args=(str(tmp_path / "said"), 7))]
    cluster = open_cluster(tell, nodes=nodes, setup=prepare, cleanup=note)
    cluster.submit().get(DEADLINE)
    cluster.close()
    assert (tmp_path / "said").read_text() == "cleaned 7 True\n"


def fail(path: str) -> object:
    with open(path, "x"):
        pass
    raise ValueError("no such table")


def later(path: str) -> object:
    if not os.path.exists(path):
        fail(path)
    return prepare(path)


def clean_after_failure(path: str) -> None:
    with open(path + ".cleaned", "w"):
        pass


def test_a_setup_that_raises_is_told_with_its_traceback_and_the_node_is_not_used(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events: Queue[object] = Queue()
    path = str(tmp_path / "tried")
    cluster = open_cluster(
        tell, nodes=[NodeAllocate(shared_node.host, setup_args=(path,))], setup=later,
        cleanup=clean_after_failure, cluster_status=events_of(events),
    )  # fmt: skip
    job = cluster.submit()
    node = told(events, DispyNode.Closed)
    for text in (node.error, caplog.text, job.why()):
        assert "ValueError: no such table" in text
    assert "in fail" in node.error
    assert (job.status, node.cpus) == (DispyJob.Created, 0)
    assert not os.path.exists(path + ".cleaned"), "cleanup ran after an exception"
    assert cluster.allocate_node(node) == 0  # this time it succeeds
    assert told(events, DispyNode.Initialized).error is None
    assert job.get(DEADLINE)[0] == [path]


def answer(path: str, value: object) -> object:
    return value


def one() -> int:
    return 1


@pytest.mark.parametrize("value", [None, 0, 1, 2])
def test_these_values_of_setup_mean_success(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path, value: object
) -> None:
    nodes = [NodeAllocate(shared_node.host, setup_args=(str(tmp_path / "x"), value))]
    assert open_cluster(one, nodes=nodes, setup=answer).submit().get(DEADLINE) == 1


def after(path: str, value: object) -> None:
    with open(path, "w"):
        raise OSError("nothing to clean")


@pytest.mark.parametrize("value", [3, True, "no"])
def test_other_values_mean_failure_and_cleanup_runs(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path, value: object
) -> None:
    events: Queue[object] = Queue()
    nodes = [NodeAllocate(shared_node.host, setup_args=(str(tmp_path / "x"), value))]
    open_cluster(
        one, nodes=nodes, setup=answer, cleanup=after, cluster_status=events_of(events)
    )  # fmt: skip
    error = told(events, DispyNode.Closed).error
    assert error.startswith(f"setup returned {value!r}; None, 0, 1 and 2 mean success")
    assert "then its cleanup failed" in error
    assert "nothing to clean" in error
    assert (tmp_path / "x").exists()


def hold(gate: str) -> None:
    descriptor = os.open(gate, os.O_RDONLY)
    os.read(descriptor, 1)
    os.close(descriptor)


def hang(gate: str) -> None:
    hold(gate)


def ignore_everything(gate: str) -> None:
    # A child in a session of its own must not be left behind either.
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    while True:
        with contextlib.suppress(BaseException):
            hang(gate)


@pytest.mark.parametrize("setup", [hang, ignore_everything])
def test_a_setup_that_takes_longer_than_it_may_is_ended_and_told(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path, setup: Callable
) -> None:
    os.mkfifo(tmp_path / "gate")
    events: Queue[object] = Queue()
    before = ours()
    open_cluster(
        one, nodes=[NodeAllocate(shared_node.host, setup_args=(str(tmp_path / "gate"),))],
        setup=setup, setup_timeout=0.3, cluster_status=events_of(events),
    )  # fmt: skip
    error = told(events, DispyNode.Closed).error
    assert "setup did not finish in 0.3 s (setup_timeout)" in error
    if setup is hang:
        assert "KeyboardInterrupt" in error
        assert "in hang" in error
    until("the processes of setup to be gone", lambda: len(ours() - before) <= 1)  # the next spare


def test_a_node_serves_others_while_a_setup_hangs_and_closing_ends_that(
    open_cluster: Open, shared_node: RunningNode, gate: Gate
) -> None:
    before = ours()
    hanging = open_cluster(
        one, nodes=[NodeAllocate(shared_node.host, setup_args=(str(gate),))], setup=hang
    )
    job = hanging.submit()
    other = open_cluster(one, nodes=[shared_node.host])
    assert other.submit().get(DEADLINE) == 1
    assert "is being set up there" in job.why()
    assert hanging.cancel(job) == 0
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Cancelled
    assert hanging.close(timeout=0, terminate=True)
    other.close()
    until("the setup to be ended", lambda: len(ours() - before) <= 1)


def test_whoever_waits_for_a_long_setup_is_told(
    open_cluster: Open, shared_node: RunningNode, gate: Gate, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(dispy.client.preparing, "SETUP_TOLD_SECONDS", 0.1)
    nodes = [NodeAllocate(shared_node.host, setup_args=(str(gate),))]
    cluster = open_cluster(one, nodes=nodes, setup=hang)
    until("a word", lambda: "waiting for setup of one on node" in caplog.text)
    gate.open()
    assert cluster.submit().get(DEADLINE) == 1


def share() -> None:
    import multiprocessing

    global lock, counter
    lock, counter = multiprocessing.Lock(), multiprocessing.Value("i", 0)


def count(times: int) -> int:
    for _ in range(times):
        with lock:
            counter.value += 1
    return counter.value


def test_shared_values_of_multiprocessing_work_across_jobs(
    open_cluster: Open, shared_node: RunningNode
) -> None:
    cluster = open_cluster(count, nodes=[shared_node.host], setup=share)
    jobs = [cluster.submit(100) for _ in range(10)]
    assert max(job.get(DEADLINE) for job in jobs) == 1000


def fill(size: int) -> None:
    global table
    table = bytearray(size)
    table[:: os.sysconf("SC_PAGESIZE")] = b"x" * len(table[:: os.sysconf("SC_PAGESIZE")])


def look(gate: str, ready: str) -> int:
    import gc

    found = sum(table[:: os.sysconf("SC_PAGESIZE")])
    gc.collect()
    with open(ready, "a") as file:
        file.write("x")
    hold(gate)
    return found


def proportional_set(pid: int) -> int:
    """Return the memory of a process in bytes, each page divided by who shares it."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def test_what_setup_left_is_in_memory_once_for_all_workers(
    open_cluster: Open, start_node: Callable, gate: Gate, tmp_path: Path
) -> None:
    size = 2**30 if psutil.virtual_memory().available > 4 * 2**30 else 2**28
    node = start_node("--cpus=8")
    nodes = [NodeAllocate(node.host, setup_args=(size,))]
    cluster = open_cluster(look, nodes=nodes, setup=fill)
    jobs = [cluster.submit(str(gate), str(tmp_path / "ready")) for _ in range(8)]
    ready = tmp_path / "ready"
    until("eight jobs to have read it", lambda: ready.exists() and ready.stat().st_size == 8)
    processes = psutil.Process(node.process.pid).children(recursive=True)
    assert len(processes) >= 9, "the nursery and eight workers"
    used = sum(proportional_set(process.pid) for process in processes)
    assert size < used < size + 2**29, f"{used / size:.2f} times the table"
    gate.open(8)
    assert [job.get(DEADLINE) for job in jobs] == [ord("x") * size // os.sysconf("SC_PAGESIZE")] * 8


def write_script(path: str) -> None:
    with open("data", "w") as file:
        file.write("from setup")


def note_script(path: str) -> None:
    with open(path, "w") as file:
        file.write(str(os.path.exists("data")))


def test_a_program_has_setup_and_cleanup_too(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path
) -> None:
    nodes = [NodeAllocate(shared_node.host, setup_args=(str(tmp_path / "said"),))]
    cluster = open_cluster("cat", nodes=nodes, setup=write_script, cleanup=note_script)
    job = cluster.submit("data")
    assert job.get(DEADLINE) == 0
    assert job.stdout == b"from setup"
    cluster.close()
    assert (tmp_path / "said").read_text() == "True"


def say() -> None:
    print("said by Python")
    subprocess.run(["sh", "-c", "echo said by a child >&2"])
    threading.Thread(target=time.sleep, args=(5,), name="ticker", daemon=True).start()


def say_and_fail() -> None:
    print("the last words")
    raise KeyError("gone")


def test_what_setup_and_cleanup_write_is_logged_and_threads_are_warned_of(
    open_cluster: Open, shared_node: RunningNode, caplog: pytest.LogCaptureFixture
) -> None:
    level = dispy.logger.level
    cluster = open_cluster(
        one, nodes=[shared_node.host], setup=say, cleanup=say_and_fail,
        loglevel=dispy.logger.DEBUG,
    )  # fmt: skip
    assert cluster.submit().get(DEADLINE) == 1
    cluster.close()
    dispy.logger.setLevel(level)
    assert "wrote to stdout:\nsaid by Python" in caplog.text
    assert "wrote to stderr:\nsaid by a child" in caplog.text
    assert "has left threads running (ticker)" in caplog.text
    assert "wrote to stdout:\nthe last words" in caplog.text
    assert "KeyError: 'gone'" in caplog.text


def parents_and_setups(path: str) -> int:
    with open(path) as file:
        return len(file.read())


def note_setup(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def test_setup_runs_again_where_its_process_was_killed(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path
) -> None:
    path = str(tmp_path / "setups")
    nodes = [NodeAllocate(shared_node.host, setup_args=(path,))]
    cluster = open_cluster(parents_and_setups, nodes=nodes, setup=note_setup)
    assert cluster.submit(path).get(DEADLINE) == 1
    node = psutil.Process(shared_node.process.pid)
    nursery = next(p for p in node.children() if p.children())
    nursery.kill()
    until("another setup", lambda: parents_and_setups(path) == 2)
    assert cluster.submit(path).get(DEADLINE) == 2


def test_a_node_that_ends_runs_cleanup_first(
    open_cluster: Open, start_node: Callable, tmp_path: Path
) -> None:
    node = start_node()
    nodes = [NodeAllocate(node.host, setup_args=(str(tmp_path / "said"), 7))]
    cluster = open_cluster(tell, nodes=nodes, setup=prepare, cleanup=note)
    cluster.submit().get(DEADLINE)
    assert node.end() == 0
    assert (tmp_path / "said").read_text() == "cleaned 7 True\n"


def shut_down() -> None:
    dispynode_shutdown()  # noqa: F821


def test_a_cleanup_ends_its_node_where_that_allows_it(
    open_cluster: Open, start_node: Callable
) -> None:
    node = start_node("--client_shutdown")
    cluster = open_cluster(one, nodes=[node.host], cleanup=shut_down)
    assert cluster.submit().get(DEADLINE) == 1
    cluster.close()
    assert node.process.wait(DEADLINE) == 0


def test_a_cleanup_does_not_end_a_node_that_does_not_allow_it(
    open_cluster: Open, shared_node: RunningNode, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = open_cluster(one, nodes=[shared_node.host], cleanup=shut_down)
    assert cluster.submit().get(DEADLINE) == 1
    cluster.close()
    assert "it must be started with --client_shutdown" in caplog.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"setup": 7}, "setup is a function, or functools.partial of one, not 7"),
        ({"cleanup": 7}, "cleanup is True, False, a function, or functools.partial of one, not 7"),
        ({"setup": functools.partial(one, threading.Lock())}, "cannot be sent"),
        ({"setup_timeout": -1}, "setup_timeout: -1 is not 0 to"),
    ],
)
def test_what_cannot_be_a_setup_is_refused_at_once(
    open_cluster: Open, options: dict, words: str
) -> None:
    with pytest.raises(dispy.DispyError, match=words):
        open_cluster(one, **options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (7, "setup_args of node .* is a tuple, not 7"),
        ((threading.Lock(),), "setup_args of node .* cannot be sent"),
        ((bytes(5 * 1024 * 1024),), "5242.* bytes, and 4194304 are allowed; send a file"),
    ],
)
def test_arguments_of_setup_that_cannot_be_sent_are_told(
    open_cluster: Open, shared_node: RunningNode, arguments: object, words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    import re

    nodes = [NodeAllocate(shared_node.host, setup_args=arguments)]
    open_cluster(one, nodes=nodes, setup=answer)
    until("a word", lambda: re.search(words, caplog.text))
