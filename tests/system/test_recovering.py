"""What a program had at nodes when it died comes back: all of it, and once."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from system.conftest import DEADLINE, Gate, Program, RunningNode, node_without_a_trace
from system.hostile import SECRET, FalseNode, Impostor, Peer
from system.test_endings import wait_for

import dispy
from dispy import DispyError, DispyJob
from dispy.client.recovery_file import InUse, RecoveryFile
from dispy.client.recovery_form import Content, KnownCluster, KnownNode
from dispy.client.recovery_form import Program as Dead
from dispy.protocol.messages import Kind

PROGRAM = """
import os, signal, sys

def work(n, gate, program=0):
    import os, time
    while os.path.exists(f"/proc/{program}"):
        time.sleep(0.01)  # what the program gets before its end is its own affair
    if n == "bad":
        raise ValueError("it is bad")
    if n == "file":
        os.makedirs("plots", exist_ok=True)
        with open("plots/one", "w") as file:
            file.write("1" * 3_000_000)
    if gate:
        dispy_provisional_result([n, "old"])
        dispy_provisional_result([n, "so far"])
        print("waiting", flush=True)
        descriptor = os.open(gate, os.O_RDONLY)
        os.read(descriptor, 1)
    if n == "file":
        dispy_send_file("plots/one")
    print("did", n)
    return [n] * 2

if __name__ == "__main__":
    import dispy
    hosts, secret, gate, *jobs = sys.argv[1:]
    cluster = dispy.JobCluster(work, nodes=hosts.split(","), secret=secret, local_node=False)
    hosts = {node: 0 for node in hosts.split(",")}
    import time
    while {node.ip_addr for node in cluster.status().nodes} != set(hosts):
        time.sleep(0.01)
    submitted = []
    for at, n in enumerate(jobs):
        host = list(hosts)[at % len(hosts)]
        call = (n[1:], gate) if n[0] == "-" else (n, "", os.getpid())
        submitted.append(cluster.submit_node(host, *call))
    while any(job.status == dispy.DispyJob.Created for job in submitted):
        time.sleep(0.01)
    import glob
    while not glob.glob("_dispy_*"):  # it is written by a thread, beside the first job
        time.sleep(0.01)
    print("at work", flush=True)
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGKILL)
"""
RECOVER = """
import dispy
from dispy.scheduler import recovery

if __name__ == "__main__":
    recovery.TELL_SECONDS = 0.2
    print("begins", flush=True)
    jobs = dispy.recover_jobs()
    print([(job.id, job.status.name, job.result) for job in jobs], flush=True)
"""
Run = Callable[..., Program]
Start = Callable[..., RunningNode]
Die = Callable[..., None]


@pytest.fixture(autouse=True)
def _here(own_session: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Recover in the directory where the programs of the test have run."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def node(own_session: None, tmp_path_factory: Any) -> Iterator[RunningNode]:
    """A node on which all jobs of a test run at once; nothing may be left of these in the end."""
    with node_without_a_trace(tmp_path_factory.mktemp("node"), cpus=4) as node:
        yield node
    assert "has another key" not in node.said


@pytest.fixture
def mortal(own_session: None, start_node: Start, tmp_path_factory: Any) -> RunningNode:
    """The same, for a test that ends it."""
    return start_node("--cpus=4", directory=tmp_path_factory.mktemp("node"))


@pytest.fixture
def die(run_program: Run) -> Die:
    """Run a program with these jobs, and kill it. They end then, those with a `-` at the gate."""

    def die(node: RunningNode | str, gate: object, *jobs: str, secret: str = "") -> None:
        hosts = node if isinstance(node, str) else node.host
        ran = run_program(PROGRAM, hosts, secret, str(gate), *jobs)
        while "at work" not in (line := ran.line()):
            assert line, ran.output
        ran.say("")
        ran.process.wait(DEADLINE)

    return die


def files(directory: Path) -> list[str]:
    """Return the recovery files that are there, and what has been written beside them."""
    return sorted(path.name for path in directory.iterdir() if path.name.startswith("_dispy_"))


def told(jobs: list[DispyJob]) -> list[tuple[int, str, Any]]:
    return [(job.id, job.status.name, job.result) for job in jobs]


def look(path: str) -> list[tuple[int, str, Any]]:
    """Return what could be recovered, and leave it where it is."""
    found: list[tuple[int, str, Any]] = []

    def refuse(jobs: list[DispyJob]) -> None:
        found.extend(told(jobs))
        raise InterruptedError

    with pytest.raises(InterruptedError):
        dispy.recover_jobs(path, 0.3, keep=refuse)
    return found


def directories(node: RunningNode) -> list[Path]:
    """Return the working directories of computations at a node."""
    return [path for path in node.directory.rglob("*") if path.name == "plots"]


@pytest.mark.parametrize("secret", ["", "a secret of this test"])
def test_results_output_errors_and_files_come_back_and_nothing_is_left(
    node: RunningNode, start_node: Start, die: Die, gate: Gate, tmp_path: Path,
    tmp_path_factory: Any, caplog: pytest.LogCaptureFixture, secret: str,
) -> None:  # fmt: skip
    if secret:
        directory = tmp_path_factory.mktemp("node")
        node = start_node("--cpus=4", f"--secret={secret}", directory=directory)
    die(node, gate, "a", "bad", "-b", "-file", secret=secret)
    wait_for("the job that writes a file", lambda: directories(node))
    (name,) = files(tmp_path)
    if secret:
        with pytest.raises(DispyError, match=r"had a secret \(from secret\), and none is known"):
            dispy.recover_jobs()
    gate.open(2)
    jobs = dispy.recover_jobs(secret=secret)
    assert told(jobs) == [
        (1, "Finished", ["a"] * 2), (2, "Terminated", None), (3, "Finished", ["b"] * 2),
        (4, "Finished", ["file"] * 2),
    ]  # fmt: skip
    assert [job.stdout for job in jobs] == [
        "did a\n",
        "",
        "waiting\ndid b\n",
        "waiting\ndid file\n",
    ]
    assert "ValueError: it is bad" in jobs[1].exception
    with pytest.raises(ValueError, match="it is bad"):
        jobs[1].get()
    for job in jobs:
        assert job.finish.is_set()
        assert job.ip_addr == node.host
        assert job.start_time <= job.end_time
    assert (tmp_path / "plots" / "one").read_text() == "1" * 3_000_000
    assert files(tmp_path) == []
    assert directories(node) == []
    assert dispy.recover_jobs() == []
    assert f"there is no recovery file, _dispy_..., in {tmp_path}" in caplog.text
    assert dispy.recover_jobs(name) == []
    assert f"{tmp_path / name} cannot be opened: No such file or directory" in caplog.text


def test_after_a_timeout_the_rest_stays_for_another_recovery(
    node: RunningNode, die: Die, gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    die(node, gate, "a", "-b")
    (name,) = files(tmp_path)
    so_far = (2, "ProvisionalResult", ["b", "so far"])
    wait_for("the value", lambda: so_far in look(name))
    ended = (1, "Finished", ["a"] * 2)
    wait_for("its end", lambda: ended in look(name))
    assert told(dispy.recover_jobs(name, 0.5)) == [ended, so_far]
    assert "has 1 jobs that have not ended: recover again to get them" in caplog.text
    assert files(tmp_path) == [name]
    assert told(dispy.recover_jobs(name, 0.5)) == [so_far]  # it is told as long as nothing is newer
    gate.open()
    assert told(dispy.recover_jobs()) == [(2, "Finished", ["b"] * 2)]
    assert files(tmp_path) == []


@pytest.mark.parametrize("timeout", [None, 0.5])
def test_what_still_runs_is_cancelled_where_that_is_wanted(
    node: RunningNode, die: Die, gate: Gate, tmp_path: Path, timeout: float | None
) -> None:
    die(node, gate, "-a", "-b", "-c")
    jobs = dispy.recover_jobs(timeout=timeout, terminate_pending=True)
    assert [job.id for job in jobs] == [1, 2, 3]
    assert {job.status.name for job in jobs} <= {"Cancelled", "Terminated"}
    assert files(tmp_path) == []


def test_a_recovery_that_is_ended_has_recovered_nothing(
    node: RunningNode, die: Die, gate: Gate, run_program: Run, tmp_path: Path
) -> None:
    die(node, gate, "a", "-b")
    for how in (signal.SIGKILL, signal.SIGINT):
        ran = run_program(RECOVER)
        while "recovery waits for 1 jobs" not in (line := ran.line()):
            assert line, ran.output
        with pytest.raises(InUse, match="somebody else recovers from it"):
            dispy.recover_jobs(files(tmp_path)[0])
        ran.process.send_signal(how)
        assert ran.end() == -how

    def refuse(jobs: list[DispyJob]) -> None:
        assert len(jobs) == 2
        raise OSError("no space left")

    gate.open()
    with pytest.raises(OSError, match="no space left"):
        dispy.recover_jobs(keep=refuse)
    assert told(dispy.recover_jobs()) == [(1, "Finished", ["a"] * 2), (2, "Finished", ["b"] * 2)]
    assert files(tmp_path) == []


def test_a_living_program_is_left_alone(
    node: RunningNode, run_program: Run, gate: Gate, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    ran = run_program(PROGRAM, node.host, "", str(gate), "-a")
    while "at work" not in (line := ran.line()):
        assert line, ran.output
    with pytest.raises(InUse, match="is in use: its program still runs"):
        dispy.recover_jobs(files(tmp_path)[0])
    assert dispy.recover_jobs() == []
    assert f"{files(tmp_path)[0]} is in use" in caplog.text
    ran.process.kill()


def test_a_node_that_is_out_of_reach_is_named_and_stays_in_the_file(
    node: RunningNode, start_node: Start, die: Die, gate: Gate, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from dispy.scheduler import recovery

    monkeypatch.setattr(recovery, "PATIENCE_SECONDS", 0.5)
    other = start_node(host="127.0.0.77")
    die(f"{node.host},{other.host}", gate, "a", "b")
    os.kill(other.process.pid, signal.SIGSTOP)  # its machine takes connections, and says nothing
    try:
        name, ended = files(tmp_path)[0], [(1, "Finished", ["a"] * 2)]
        wait_for("its end", lambda: look(name) == ended)
        assert told(dispy.recover_jobs(name, 0.5)) == ended
    finally:
        os.kill(other.process.pid, signal.SIGCONT)
    assert f"at {other.host}, port 51348 did not answer (it is being dialled)" in caplog.text
    assert "not lost before its zombie_interval is over" in caplog.text
    assert told(dispy.recover_jobs()) == [(2, "Finished", ["b"] * 2)]
    assert files(tmp_path) == []


def test_a_node_that_is_down_is_given_up_after_a_while_and_a_restarted_one_is_named(
    mortal: RunningNode, start_node: Start, die: Die, gate: Gate, tmp_path: Path,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from dispy.scheduler import recovery

    monkeypatch.setattr(recovery, "PATIENCE_SECONDS", 0.5)
    die(mortal, gate, "-a", "b")
    wait_for("the result on the disk", lambda: b"did b" in stored(mortal))
    mortal.process.kill()
    mortal.process.wait()
    assert dispy.recover_jobs() == []
    assert "Connection refused, for 0.5 seconds): what it has is not lost" in caplog.text
    assert len(files(tmp_path)) == 1
    start_node(host=mortal.host, directory=mortal.directory)
    assert told(dispy.recover_jobs()) == [
        (1, "Abandoned", ["a", "so far"]), (2, "Finished", ["b"] * 2),
    ]  # fmt: skip
    assert "was restarted: what it ran for the program is lost" in caplog.text
    assert files(tmp_path) == []


def stored(node: RunningNode) -> bytes:
    """Return what a node has of results on its disk."""
    return b"".join(path.read_bytes() for path in node.directory.rglob("owed*") if path.is_file())


def test_who_is_not_known_to_any_node_is_told_and_keeps_the_file(
    node: RunningNode, die: Die, gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    die(node, gate, "a")
    true_one = become(files(tmp_path)[0], "0" * 32)
    assert dispy.recover_jobs() == []
    assert "none of its nodes knows the program of" in caplog.text
    become(files(tmp_path)[0], true_one)
    assert told(dispy.recover_jobs()) == [(1, "Finished", ["a"] * 2)]
    assert files(tmp_path) == []


def become(path: str, identity: str) -> str:
    """Change whose file it is, and return whose it was."""
    file = RecoveryFile.open(path)
    content = file.read()
    before = content.program.identity
    content.program = replace(content.program, identity=identity)
    file.rewrite(content.lines())
    file.close(remove=False)
    return before


def test_a_node_that_ends_during_a_recovery_abandons_what_it_ran(
    mortal: RunningNode, die: Die, gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from dispy.scheduler import recovery

    monkeypatch.setattr(recovery, "TELL_SECONDS", 0.1)
    die(mortal, gate, "a", "-b")

    def end() -> None:
        wait_for("the recovery", lambda: "recovery waits for 1 jobs" in caplog.text)
        mortal.process.terminate()

    ending = threading.Thread(target=end)
    ending.start()
    jobs = dispy.recover_jobs()
    ending.join()
    assert told(jobs) == [(1, "Finished", ["a"] * 2), (2, "Abandoned", ["b", "so far"])]
    assert f"node {os.uname().nodename} at {mortal.host}, port 51348 has ended" in jobs[1].exception
    assert files(tmp_path) == []


def test_a_link_that_breaks_is_made_again_and_nothing_comes_twice(
    node: RunningNode, die: Die, gate: Gate, tmp_path: Path
) -> None:
    die(node, gate, "a", "-b")
    broken = threading.Event()

    def pass_on(peer: Peer) -> None:
        with socket.create_connection((node.host, node.port)) as other:
            back = threading.Thread(target=_pass, args=(peer.sock, other))
            back.start()
            while data := other.recv(65536):
                peer.sock.sendall(data)
                if b"did a" in data and not broken.is_set():  # the result has come
                    broken.set()
                    break
            for sock in (peer.sock, other):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            back.join()

    relay = Impostor("127.5.1.8", pass_on)
    through(relay.host, tmp_path)

    def open_the_gate() -> None:
        relay.wait_for_connections(2)
        gate.open()

    opening = threading.Thread(target=open_the_gate)
    opening.start()
    jobs = dispy.recover_jobs()
    opening.join()
    relay.close()
    assert told(jobs) == [(1, "Finished", ["a"] * 2), (2, "Finished", ["b"] * 2)]
    assert files(tmp_path) == []


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def through(host: str, directory: Path) -> None:
    """Have the node of a recovery file reached at another address."""
    file = RecoveryFile.open(str(directory / files(directory)[0]))
    content = file.read()
    (node,) = content.nodes.values()
    content.add(KnownNode(node.node_id, node.name, host, node.port))
    file.rewrite(content.lines())
    file.close(remove=False)


def test_a_program_recovers_in_a_thread_beside_clusters_of_its_own(
    node: RunningNode, die: Die, gate: Gate, open_cluster: Any, tmp_path: Path
) -> None:
    die(node, gate, "a", "-b")
    (name,) = files(tmp_path)
    cluster = open_cluster(abs, nodes=[node.host])
    assert cluster.submit(-1)() == 1
    # The newest is its own, and is passed over.
    wait_for("its own file", lambda: len(files(tmp_path)) == 2)
    found: list[DispyJob] = []
    recovering = threading.Thread(target=lambda: found.extend(dispy.recover_jobs()))
    recovering.start()
    assert [job() for job in [cluster.submit(-n) for n in range(20)]] == list(range(20))
    gate.open()
    recovering.join()
    assert told(found) == [(1, "Finished", ["a"] * 2), (2, "Finished", ["b"] * 2)]
    assert cluster.submit(-1)() == 1
    assert name not in files(tmp_path)


def test_a_program_that_gevent_has_patched_goes_on_meanwhile(
    node: RunningNode, die: Die, gate: Gate, run_program: Run
) -> None:
    die(node, gate, "a", "-b")
    patched = "from gevent import monkey, sleep, spawn\nmonkey.patch_all()\n"
    goes_on = "def go_on():\n    print('goes on', flush=True)\n    sleep(0.1)\n    go_on()\n"
    ran = run_program(
        patched + goes_on + RECOVER.replace("    jobs =", "    spawn(go_on)\n    jobs =")
    )
    for words in ("recovery waits for 1 jobs", "goes on"):
        while words not in (line := ran.line()):
            assert line, ran.output
    gate.open()
    assert ran.end() == 0, ran.output
    assert "[(1, 'Finished', ['a', 'a']), (2, 'Finished', ['b', 'b'])]" in ran.output


# -- nodes that do what they like


@pytest.fixture
def dead(tmp_path: Path) -> Callable[[str], str]:
    """Write the file of a program that never was, with a node; return its path."""
    from dispy.net.tls import own_pair

    def write(host: str) -> str:
        program = Dead("d" * 32, "dead", 1.0, "the tests", None, None, own_pair())
        node = KnownNode("e" * 32, "false", host, 51348)
        content = Content(program, {1: KnownCluster(1, "work", str(tmp_path))}, {"e" * 32: node})
        path = str(tmp_path / "_dispy_dead")
        RecoveryFile.create(path, content.lines()).close(remove=False)
        return path

    return write


def results(sequence: int, cluster: int, jobs: list[int], extras: Any = ()) -> list[Any]:
    times = [1.0] * len(jobs)
    return [sequence, cluster, jobs, times, times, [b"\x80\x05K\x01."] * len(jobs), list(extras)]


def test_what_a_node_says_out_of_order_or_of_others_harms_nobody(
    dead: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    def lie(peer: Peer) -> None:
        peer.tell(Kind.RESULTS, results(5, 1, [1, 1, 2]))
        peer.tell(Kind.RESULTS, results(5, 1, [3]))  # a number that has come
        peer.tell(Kind.RESULTS, results(6, 9, [4]))  # of no cluster of the program
        peer.tell(Kind.RESULTS, results(7, 1, [2, 5], [[1, {"status": int(DispyJob.Cancelled)}]]))
        peer.tell(Kind.OFFER, [1, 7, b"key", {"name": b"../x"}])
        peer.tell(Kind.PIECE, [b"no", 0, None], [b"x"])
        peer.tell(Kind.FETCH, [b"x" * 32, 0, 10])
        assert "has died" in peer.until(Kind.PIECE).body[2]
        peer.tell(Kind.HELD, [[6, 7], [1]])
        peer.tell(Kind.RETURNED, [1, [6, 8], "no\x1b[2J"])
        peer.tell(Kind.RESULTS, results(8, 1, [7]))
        assert peer.until(Kind.ACKNOWLEDGE).body == [8]
        peer.until(Kind.CLOSE)
        peer.tell(Kind.CLOSED, [1, None, {}])
        peer.until(Kind.LIST)
        peer.tell(Kind.LISTED, [0, []])
        peer.frame()

    false = FalseNode("127.5.1.9", lie)
    path = dead(false.host)
    jobs = dispy.recover_jobs(path, secret=TEXT)
    false.close()
    assert told(jobs) == [
        (1, "Finished", 1), (2, "Finished", 1), (5, "Cancelled", 1), (6, "Abandoned", None),
        (7, "Finished", 1),
    ]  # fmt: skip
    assert "\x1b" not in jobs[3].exception
    assert not os.path.exists(path)
    assert "failed" not in caplog.text


def test_the_end_of_a_later_run_is_taken_and_not_the_death_before_it(
    dead: Callable[[str], str],
) -> None:
    died = [[0, {"status": int(DispyJob.Terminated), "exception": "killed", "died": True}]]
    over = [[0, {"status": int(DispyJob.Terminated), "exception": "raised"}]]

    def owe(peer: Peer) -> None:
        peer.tell(Kind.RESULTS, results(1, 1, [1], died))
        peer.tell(Kind.RESULTS, results(2, 1, [1]))  # it was run again
        peer.tell(Kind.RESULTS, results(3, 1, [1], died))  # what another node had before
        peer.tell(Kind.RESULTS, results(4, 1, [2], over))
        peer.tell(Kind.RESULTS, results(5, 1, [2]))  # nothing comes after an end
        peer.tell(Kind.RESULTS, results(6, 1, [3], died))
        peer.tell(Kind.HELD, [[], [1]])
        peer.until(Kind.CLOSE)
        peer.tell(Kind.CLOSED, [1, None, {}])
        peer.until(Kind.LIST)
        peer.tell(Kind.LISTED, [0, []])
        peer.frame()

    false = FalseNode("127.5.1.13", owe)
    jobs = dispy.recover_jobs(dead(false.host), secret=TEXT)
    false.close()
    assert [(job.id or job._number, job.status.name) for job in jobs] == [
        (1, "Finished"), (2, "Terminated"), (3, "Terminated"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        [(Kind.HELD, [[], []]), (Kind.HELD, [[1], []]), (Kind.HELD, [[], []])],
        [(Kind.RUN, [1, [], [], []])],
        [(Kind.RESULTS, [1, 1, [1], [], [], [], []])],
        [(99, [])],
    ],
)
def test_a_node_that_breaks_the_rules_is_given_up_in_a_sentence(
    dead: Callable[[str], str], caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch, words: list[Any],
) -> None:  # fmt: skip
    from dispy.scheduler import recovery

    monkeypatch.setattr(recovery, "RETRY_SECONDS", (0.01, 0.01))

    def act(peer: Peer) -> None:
        for kind, body in words:
            peer.tell(kind, body)
        while peer.frame() is not None:
            pass

    false = FalseNode("127.5.1.9", act)
    path = dead(false.host)
    assert dispy.recover_jobs(path, secret=TEXT) == []
    false.close()
    assert "did not answer" in caplog.text
    assert "failed" not in caplog.text
    assert os.path.exists(path)


def test_one_that_has_not_the_secret_is_told_at_once(
    dead: Callable[[str], str], node: RunningNode, caplog: pytest.LogCaptureFixture
) -> None:
    path = dead(node.host)
    assert dispy.recover_jobs(path, secret=TEXT) == []
    assert "did not answer (it was started without a secret or certificate" in caplog.text


def test_other_machines_are_not_spoken_to_without_protection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    node = KnownNode("e" * 32, "other", "192.0.2.1", listening.getsockname()[1])
    content = Content(Dead("d" * 32, "dead", 1.0), {}, {"e" * 32: node})
    RecoveryFile.create(str(tmp_path / "_dispy_1"), content.lines()).close(remove=False)
    assert dispy.recover_jobs() == []
    assert "there is neither a secret nor a certificate" in caplog.text
    listening.close()


TEXT = SECRET.text
