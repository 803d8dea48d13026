"""`dispy node`: its options, several clients, several nodes, and every way it may end."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from system.conftest import RunningNode

from dispy import DispyJob, JobCluster
from dispy.system.interpreter import own_command

DEADLINE = 30.0  # seconds; for machines that are busy with something else


def act(source: str) -> object:
    names: dict = {}
    exec(source, names)
    return names.get("result")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)


@contextlib.contextmanager
def opened(*hosts: str, **settings: Any):
    cluster = JobCluster(act, nodes=list(hosts), **settings)
    try:
        yield cluster
    finally:
        cluster.close(timeout=0, terminate=True)


def says(program: Any, word: str) -> None:
    """Return when a program has printed a line."""
    while (line := program.line()) != f"{word}\n":
        assert line, program.output


def hold(cluster: JobCluster, mark: Path) -> DispyJob:
    """Submit a job that never ends; return when it runs."""
    job = cluster.submit(f"open({str(mark)!r}, 'w').close()\nimport time; time.sleep(1000)")
    wait_until(mark.exists, "the job to begin")
    return job


# -- options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cpus=0"], "0 processors would run nothing"),
        (["--cpus=many"], "--cpus: 'many' is not a whole number"),
        (["--cpus=-1000"], "--cpus: -1000 would leave nothing to offer"),
        (["--port=99999"], "--port: 99999 is not 0 to 65535"),
        (["--host=no.such.host.invalid"], "'no.such.host.invalid' is not an address"),
        (["--host=0.0.0.0"], "would let everybody"),
        (["--host=203.0.113.7", "--insecure"], "cannot listen on 203.0.113.7, port 51348"),
        (["--dest_path_prefix=/proc/none"], "cannot use /proc/none/dispy-node"),
        (["--no-such-option"], "Usage:"),
    ],
)
def test_options_that_cannot_be_used_are_refused_with_a_sentence(
    nothing_left: None, options: list[str], words: str
) -> None:
    ended = subprocess.run(
        own_command("node", *options), capture_output=True, text=True, timeout=DEADLINE
    )
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_negative_number_of_cpus_leaves_so_many(start_node: Any, tmp_path: Path) -> None:
    here = len(os.sched_getaffinity(0))
    node = start_node(f"--cpus={1 - here}", "--name=small", "-d")
    with opened(node.host) as cluster:
        hold(cluster, tmp_path / "begun")
        (view,) = cluster.status().nodes
        assert (view.cpus, view.name, view.ip_addr) == (1, "small", node.host)
    assert node.end() == 0
    assert "serves 1 processors" in node.said


def test_the_names_of_dispy_4_work_and_a_taken_port_is_refused(
    nothing_left: None, tmp_path: Path
) -> None:
    host = f"127.3.{os.getpid() % 250}.1"
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]
        options = [f"--ip_addr={host}", f"--node_port={port}", f"--dest_path_prefix={tmp_path}"]
        ended = subprocess.run(
            own_command("node", *options), capture_output=True, text=True, timeout=DEADLINE
        )
    assert ended.returncode == 2
    assert f"cannot listen on {host}, port {port}: Address already in use" in ended.stderr


def test_a_second_node_of_one_address_is_refused_and_clean_removes_what_a_first_one_left(
    start_node: Any, tmp_path: Path
) -> None:
    node = start_node()
    options = [f"--host={node.host}", f"--dest_path_prefix={node.directory}"]
    ended = subprocess.run(
        own_command("node", *options), capture_output=True, text=True, timeout=DEADLINE
    )
    assert ended.returncode == 2
    assert "is running already" in ended.stderr
    node.process.kill()
    node.process.wait()
    (left,) = [path for path in node.directory.glob("dispy-node-*") if path.is_dir()]
    (left / "old").write_text("")
    again = start_node("--clean", host=node.host)
    assert not (left / "old").exists()
    assert again.end() == 0
    assert not left.exists()


# -- sharing


def test_two_programs_share_the_processors_from_the_start(
    start_node: Any, run_program: Any, tmp_path: Path
) -> None:
    """Neither is shut out, and a long queue of the one does not delay the other."""
    node = start_node("--cpus=2")
    log = tmp_path / "log"
    source = f"""
def note(name):
    import os, time
    time.sleep(0.002)
    os.write(os.open({str(log)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND), name.encode())

if __name__ == "__main__":
    import sys, dispy
    cluster = dispy.JobCluster(note, nodes=[{node.host!r}])
    cluster.submit("-")()
    print("ready", flush=True)
    sys.stdin.readline()
    jobs = [cluster.submit(sys.argv[1]) for _ in range(500)]
    for job in jobs:
        job()
    cluster.close()
"""
    programs = [run_program(source, name) for name in "ab"]
    for program in programs:
        says(program, "ready")
    for program in programs:
        program.process.stdin.write("go\n")
        program.process.stdin.flush()
    for program in programs:
        assert program.end() == 0, program.output
    order = log.read_text().replace("-", "")
    assert Counter(order) == {"a": 500, "b": 500}
    # Both began within moments of each other: in the middle neither may have much the better.
    first_ended = min(order.rindex("a"), order.rindex("b"))
    both = order[max(order.index("a"), order.index("b")) : first_ended]
    assert len(both) > 400
    assert 0.35 < both.count("a") / len(both) < 0.65
    assert node.end() == 0


def test_a_client_that_is_killed_and_one_that_floods_disturb_nobody(
    start_node: Any, run_program: Any
) -> None:
    node = start_node("--cpus=2")
    source = f"""
def wait(n):
    import time
    time.sleep(n)

if __name__ == "__main__":
    import dispy
    cluster = dispy.JobCluster(wait, nodes=[{node.host!r}])
    jobs = [cluster.submit(0.01) for _ in range(20000)]
    jobs[10]()
    print("going", flush=True)
    jobs[-1]()
"""
    program = run_program(source)
    says(program, "going")
    with opened(node.host) as cluster:
        assert [cluster.submit(f"result = {n}")() for n in range(20)] == list(range(20))
        program.process.kill()
        assert [cluster.submit(f"result = {n}")() for n in range(20)] == list(range(20))
    flood = socket.create_connection((node.host, 51348))
    with contextlib.suppress(OSError):
        for _ in range(200):
            flood.sendall(os.urandom(1 << 20))
    flood.close()
    with opened(node.host) as cluster:
        assert cluster.submit("result = 7")() == 7
    assert node.end() == 0
    assert "Traceback" not in node.said


def test_several_nodes_on_one_machine_share_the_jobs(start_node: Any, tmp_path: Path) -> None:
    nodes = [start_node("--cpus=1"), start_node("--cpus=1")]
    third = start_node("--cpus=1", host=nodes[0].host, port=51360)
    places = [nodes[0].host, nodes[1].host, (third.host, 51360)]
    cluster = JobCluster(act, nodes=places)
    met = tmp_path / "met"
    met.mkdir()
    meet = f"""
import os, time
open(os.path.join({str(met)!r}, str(os.getpid())), "w").close()
while len(os.listdir({str(met)!r})) < 3:
    time.sleep(0.01)
"""
    jobs = [cluster.submit(meet) for _ in range(3)]
    for job in jobs:
        assert job.wait(DEADLINE)
    assert {view.ip_addr for view in cluster.status().nodes if view.jobs_done} == {
        node.host for node in nodes
    }
    assert sorted(view.jobs_done > 0 for view in cluster.status().nodes) == [True] * 3
    cluster.close()


# -- endings


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_told_to_end_gives_back_what_has_not_begun(
    start_node: Any, tmp_path: Path, number: int
) -> None:
    first = start_node("--cpus=1", "--name=first")
    ran = tmp_path / "ran"
    note = f"import os; os.write(os.open({str(ran)!r}, 1 | 64 | 1024), b'%d '); result = %d"
    with opened(first.host, f"{first.host[:-1]}9") as cluster:
        assert [cluster.submit("result = 1")() for _ in range(50)] == [1] * 50
        before = [cluster.submit(note % (n, n)) for n in range(20)]
        held = hold(cluster, tmp_path / "begun")
        behind = [cluster.submit(note % (n, n)) for n in range(20, 40)]
        wait_until(lambda: all(job.done for job in before), "the first jobs")
        first.process.send_signal(number)
        assert held.wait(DEADLINE)
        assert held.status == DispyJob.Abandoned
        assert "first" in held.exception
        assert "ended by its operator" in held.exception
        _, said = first.process.communicate(timeout=DEADLINE)
        assert first.process.returncode == 0, said
        assert "Traceback" not in said
        assert [job.status for job in behind] == [DispyJob.Created] * 20, behind
        start_node("--cpus=1", host=f"{first.host[:-1]}9")
        assert [job() for job in [*before, *behind]] == list(range(40))
    assert sorted(map(int, ran.read_text().split())) == list(range(40))
    assert not list(tmp_path.glob(f"dispy-node-{first.host}-*/*"))


def test_running_jobs_of_a_reentrant_cluster_go_elsewhere(start_node: Any, tmp_path: Path) -> None:
    first = start_node("--cpus=1", "--name=first")
    gate = tmp_path / "gate"
    with opened(first.host, f"{first.host[:-1]}9", reentrant=True) as cluster:
        job = cluster.submit(
            f"import os, time\nopen({str(tmp_path / 'begun')!r}, 'w').close()\n"
            f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)\nresult = 'done'"
        )
        wait_until((tmp_path / "begun").exists, "the job to begin")
        second = start_node("--cpus=1", host=f"{first.host[:-1]}9")
        assert first.end() == 0
        gate.touch()
        assert job.wait(DEADLINE)
        assert (job.result, job.ip_addr) == ("done", second.host)


def test_a_second_signal_ends_a_node_at_once(start_node: Any, tmp_path: Path) -> None:
    node = start_node("--cpus=1")
    with opened(node.host) as cluster:
        hold(cluster, tmp_path / "begun")
        (nursery,) = [
            process for process in psutil.Process(node.process.pid).children() if process.children()
        ]
        nursery.suspend()  # the node now waits for it
        node.process.send_signal(signal.SIGINT)
        while "ending" not in node.said:
            node.said += node.process.stderr.readline()
        node.process.send_signal(signal.SIGINT)
        assert node.process.wait(DEADLINE) == 130
        nursery.resume()


def test_all_processes_end_with_a_node_that_is_killed(start_node: Any, tmp_path: Path) -> None:
    node = start_node("--cpus=2")
    ignores = """
import signal, subprocess, time
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
subprocess.Popen(["setsid", "sleep", "1000"])
subprocess.Popen(["sleep", "1000"])
"""
    with opened(node.host) as cluster:
        cluster.submit(ignores)()
        mark = tmp_path / "begun"
        held = cluster.submit(f"{ignores}\nopen({str(mark)!r}, 'w').close()\ntime.sleep(1000)")
        wait_until(mark.exists, "the job to begin")
        everybody = psutil.Process(node.process.pid).children(recursive=True)
        assert len(everybody) >= 4  # nurseries, a worker, what its job started
        node.process.kill()
        _, alive = psutil.wait_procs(everybody, timeout=DEADLINE)
        assert not alive
        assert held.wait(DEADLINE)
        assert held.status == DispyJob.Abandoned


def test_the_local_node_and_all_it_started_end_with_a_program_that_is_killed(
    run_program: Any, tmp_path: Path
) -> None:
    source = """
def ignore(mark):
    import signal, subprocess, time
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    subprocess.Popen(["setsid", "sleep", "1000"])
    open(mark, "w").close()
    time.sleep(1000)

if __name__ == "__main__":
    import sys, dispy
    cluster = dispy.JobCluster(ignore, nodes=["127.0.0.*"], node_port=51399)
    cluster.submit(sys.argv[1])()
"""
    mark = tmp_path / "begun"
    program = run_program(source, str(mark))
    wait_until(mark.exists, "the job to begin")
    everybody = psutil.Process(program.process.pid).children(recursive=True)
    assert len(everybody) >= 4  # the node, its nursery, the worker, what the job started
    program.process.kill()
    _, alive = psutil.wait_procs(everybody, timeout=DEADLINE)
    assert not alive


def test_an_idle_node_and_its_idle_workers_use_no_processor(start_node: Any) -> None:
    node = start_node("--cpus=2")
    with opened(node.host) as cluster:
        for job in [cluster.submit("result = 1") for _ in range(100)]:
            job()
        workers = [
            process
            for nursery in psutil.Process(node.process.pid).children()
            for process in [nursery, *nursery.children()]
        ]

        def switches() -> list[int]:
            return [sum(process.num_ctx_switches()) for process in workers]

        wait_until(lambda: _is_still(switches), "the workers to be still")
        before = switches()
        time.sleep(1)  # nothing to wait for: it is about what does not happen
        assert switches() == before


def _is_still(count: Callable[[], list[int]]) -> bool:
    before = count()
    time.sleep(0.2)
    return count() == before


def test_a_directory_may_be_named_from_where_the_node_is_started(
    nothing_left: None, tmp_path: Path
) -> None:
    needed = tmp_path / "needed"
    needed.write_text("it is here")
    place = Path(os.path.relpath(tmp_path))
    node = RunningNode(place, f"127.5.{os.getpid() % 250}.1", 51348, "--cpus=1")
    with JobCluster(act, nodes=[node.host], depends=[str(needed)]) as cluster:
        job = cluster.submit("result = open('needed').read()")
        assert job.get(DEADLINE) == "it is here"
    assert node.end() == 0
