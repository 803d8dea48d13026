"""`dispy_send_file` over TCP: large files, broken links, ended jobs, and limits of results."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from system.conftest import DEADLINE

from dispy import DispyJob, JobCluster

Open = Callable[..., JobCluster]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory in which the client's program was started."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def make_and_send(name: str, size: int = 100, mode: int = 0o640, count: int = 1) -> list:
    from pathlib import Path

    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(n % 251 for n in range(min(size, 4096))) * (size // 4096 + 1))
    os.truncate(path, size)
    path.chmod(mode)
    os.utime(path, ns=(10**18 + 7, 10**18 + 7))
    return [dispy_send_file(path) for _ in range(count)]  # noqa: F821


def content(size: int) -> bytes:
    return (bytes(n % 251 for n in range(min(size, 4096))) * (size // 4096 + 1))[:size]


def names_in(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_a_larger_file_than_the_node_sends_is_not_sent(
    open_cluster: Open, home: Path, start_node
) -> None:
    node = start_node("--max_file_size=1k")
    cluster = open_cluster(make_and_send, nodes=[node.host], recover_file=False)
    job = cluster.submit("large", 1025)
    assert job.get(timeout=30) == [-1]
    assert "max_file_size of the node" in job.stderr
    assert names_in(home) == []


LARGE = """
import os, resource, sys
import dispy

def send(size):
    with open("large", "wb") as file:
        file.truncate(size)
    return dispy_send_file("large")

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

with dispy.JobCluster(send, nodes=[sys.argv[1]] if sys.argv[1:] else None) as cluster:
    assert cluster.submit(4_000_000).get(60) == 0
    before = megabytes()
    assert cluster.submit(300_000_000).get(60) == 0
    assert os.path.getsize("large") == 300_000_000
    print("grew by", megabytes() - before)
"""


def test_a_large_file_takes_little_memory(run_program, start_node) -> None:
    node = start_node("--cpus=1")
    program = run_program(LARGE, node.host)
    assert program.end() == 0, program.output
    grown = int(program.output.rpartition("grew by")[2])
    assert grown < 60, program.output


class Relay:
    """Passes bytes between a client and a node, and cuts the connection when told to."""

    def __init__(self, host: str) -> None:
        self._node = (host, 51348)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.cuts_after: list[int] = []  # bytes from the node, for one connection each
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                node = socket.create_connection(self._node)
                self.connections += 1
                left = self.cuts_after.pop(0) if self.cuts_after else None
                for one, other, room in ((client, node, None), (node, client, left)):
                    threading.Thread(target=self._pass, args=(one, other, room)).start()

    def _pass(self, one: socket.socket, other: socket.socket, room: int | None) -> None:
        with suppress(OSError):
            while (data := one.recv(65536)) and (room is None or room > 0):
                other.sendall(data)
                room = None if room is None else room - len(data)
        for sock in (one, other):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def relay(start_node) -> Iterator[Relay]:
    """Return a relay to a node of its own."""
    # Not an address of an earlier test, to which the session may have a link.
    made = Relay(start_node("--cpus=1", host=f"127.3.{os.getpid() % 250}.9").host)
    yield made
    made.close()


def test_a_broken_link_does_not_lose_a_file(open_cluster: Open, home: Path, relay: Relay) -> None:
    relay.cuts_after = [2_000_000, 3_500_000, 1_000]
    cluster = open_cluster(make_and_send, nodes=[("127.0.0.1", relay.port)])
    assert cluster.submit("long", 9_000_000).get(timeout=60) == [0]
    assert (home / "long").read_bytes() == content(9_000_000)
    assert relay.connections == 4
    assert names_in(home) == ["long"]


@pytest.mark.parametrize("deed", ["cancelled", "killed"])
def test_what_an_ended_job_has_sent_in_part_is_removed(
    open_cluster: Open, home: Path, start_node, deed: str
) -> None:
    cluster = open_cluster(send_and_hang, nodes=[start_node("--cpus=1").host])
    job = cluster.submit(300_000_000)
    while not (pid := (home / "pid").read_text() if (home / "pid").exists() else ""):
        assert not job.wait(0.01), job.exception
    while not [name for name in names_in(home) if name.endswith(".part")]:
        assert not job.wait(0.001), job.exception
    if deed == "cancelled":
        assert cluster.cancel(job) == 0
    else:
        os.kill(int(pid), signal.SIGKILL)
    assert job.wait(30)
    cluster.close()
    deadline = time.monotonic() + DEADLINE
    while names_in(home)[0] != "pid" and time.monotonic() < deadline:
        time.sleep(0.01)  # another thread removes it
    if job.status == DispyJob.Terminated:  # it may have been done just before
        assert names_in(home) == ["pid"]


def send_and_hang(size: int) -> int:
    import os

    with open("pid", "w") as file:
        file.write(str(os.getpid()))
    assert dispy_send_file("pid") == 0  # noqa: F821
    with open("large", "wb") as file:
        file.truncate(size)
    return dispy_send_file("large")  # noqa: F821


AT_THE_END = """
import time
import dispy

def send(n):
    import time
    time.sleep(n)
    with open("late", "w") as file:
        file.write("here")
    return dispy_send_file("late")

job = dispy.JobCluster(send).submit(0.5)
"""


def test_a_program_at_its_end_still_takes_files(run_program, tmp_path: Path) -> None:
    program = run_program(AT_THE_END)
    assert program.end() == 0, program.output
    assert (tmp_path / "late").read_text() == "here"


RETURNS = """
import sys
import dispy

def compute(size):
    return bytes(size)

def interim(size):
    return dispy_provisional_result(bytes(size))

with dispy.JobCluster(compute, max_result_size="2M") as cluster:
    assert len(cluster.submit(2_000_000).get(30)) == 2_000_000
    job = cluster.submit(3_000_000)
    try:
        job.get(30)
    except dispy.DispyError as error:
        print("raised:", error)
    print(job.status, job.exception)
    print(list(cluster.map([10, 20]))[1] == bytes(20))
with dispy.JobCluster(interim, max_result_size=1000) as cluster:
    job = cluster.submit(3000)
    print(job.get(30))
"""


def test_a_result_that_is_too_large_names_the_limit_and_the_way_out(run_program) -> None:
    program = run_program(RETURNS)
    assert program.end() == 0, program.output
    assert "raised: it has 3,000,0" in program.output
    assert "2,097,152 at most (max_result_size)" in program.output
    assert "dispy_send_file" in program.output
    assert "its result could not be sent back" in program.output
    assert program.output.endswith("True\n-1\n")
