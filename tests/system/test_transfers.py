"""Large files stream, go on after a broken link, and are refused where there is no room."""

import contextlib
import hashlib
import os
import resource
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket as gevent_socket
from system.conftest import DEADLINE, Program, RunningNode
from system.test_files import act, eventually, failure, fetched, here, result  # noqa: F401

from dispy import JobCluster
from dispy.net.fetching import AHEAD_BYTES
from dispy.net.link import Link
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.shipping.contents import digest_of

Open = Callable[..., JobCluster]
Start = Callable[..., RunningNode]
BIG = 200 * 1024 * 1024  # bytes; a file without blocks, which costs no disk at home
MOST_MEMORY = 64 * 1024 * 1024  # bytes by which a process may grow that streams it


class CutRelay:
    """Passes bytes to a node; the first connection is cut after so many from the client."""

    def __init__(self, host: str, cut_after: int) -> None:
        self._node, self._cut_after = (host, 51348), cut_after
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.passed: list[int] = []  # bytes from the client, by connection
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                node = socket.create_connection(self._node)
                room = 1 << 60 if self.passed else self._cut_after
                self.passed.append(0)
                at = len(self.passed) - 1
                threading.Thread(target=self._pass, args=(client, node, at, room)).start()
                threading.Thread(target=self._pass, args=(node, client, None, 1 << 60)).start()

    def _pass(self, one: socket.socket, other: socket.socket, at: int | None, room: int) -> None:
        with contextlib.suppress(OSError):
            while room > 0 and (data := one.recv(min(room, 65536))):
                other.sendall(data)
                room -= len(data)
                if at is not None:
                    self.passed[at] += len(data)
        for sock in (one, other):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def test_a_transfer_goes_on_where_a_broken_link_has_stopped_it(
    open_cluster: Open,
    start_node: Start,
    here: Path,  # noqa: F811
) -> None:
    size = 40_000_000
    (here / "data").write_bytes(os.urandom(size // 2).hex().encode())
    relay = CutRelay(start_node(host=f"127.4.{os.getpid() % 250}.2").host, cut_after=25_000_000)
    try:
        cluster = open_cluster(
            act, nodes=[("127.0.0.1", relay.port)], depends=["data"], local_node=False
        )
        assert len(result(cluster.submit("read", "data"))) == size
        cluster.close()
    finally:
        relay.close()
    assert relay.passed[0] == 25_000_000
    assert len(relay.passed) == 2
    assert sum(relay.passed) < size + AHEAD_BYTES + 100_000, "more was sent again than was lost"


def peak(pid: int | str) -> int:
    """Return the most memory that a process has used since `forget_peak`."""
    with open(f"/proc/{pid}/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak(pid: int | str) -> int:
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")
    return peak(pid)


def test_a_large_file_streams_with_little_memory_on_both_sides(
    open_cluster: Open,
    start_node: Start,
    here: Path,  # noqa: F811
) -> None:
    with open(here / "big", "wb") as file:
        file.truncate(BIG)
    node = start_node()
    first = open_cluster(act, nodes=[node.host], local_node=False)
    assert result(first.submit("list")) == []
    before = {pid: forget_peak(pid) for pid in ("self", node.process.pid)}
    cluster = open_cluster(act, nodes=[node.host], depends=["big"], local_node=False)
    assert result(cluster.submit("list")) == ["big"]
    for pid, used in before.items():
        assert peak(pid) - used < MOST_MEMORY
    assert fetched(node) == BIG
    cluster.close()


# -- a program that is run again


AGAIN = """
import sys
import dispy

def digest(name):
    import hashlib
    with open(name, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()

if __name__ == "__main__":
    node, name = sys.argv[1:]
    with dispy.JobCluster(digest, nodes=[node], depends=[name], local_node=False) as cluster:
        print(cluster.submit(name)(), sum(one.tx for one in cluster.status().nodes))
"""


def test_a_program_that_is_run_again_does_not_send_its_file_again(
    start_node: Start, run_program: Callable[..., Program], tmp_path: Path
) -> None:
    node, file, size = start_node(), tmp_path / "data.bin", 20_000_000

    def run() -> int:
        """Return how many bytes a run of the program has sent to the node."""
        program = run_program(AGAIN, node.host, file.name)
        assert program.end() == 0, program.output
        digest, sent = program.output.splitlines()[-1].split()
        assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
        return int(sent)

    file.write_bytes(os.urandom(size))
    assert run() > size
    assert run() < 100_000
    file.write_bytes(os.urandom(size))
    assert size < run() < size + 100_000


# -- no room


def test_a_file_for_which_the_node_may_not_write_is_refused_in_words(
    open_cluster: Open,
    start_node: Start,
    here: Path,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    (here / "data").write_bytes(b"x" * 3_000_000)
    node = start_node("--name=small")
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
    cluster = open_cluster(act, nodes=[node.host], depends=["data"], local_node=False)
    job = cluster.submit("list")
    words = (
        "on node small: there is no room for file 'data' of 3,000,000 bytes: ",
        " bytes are free in ",
        "the limit on the size of its files (ulimit -f) is reached",
    )
    eventually(lambda: all(text in job.why() for text in words), job.why())
    assert all(text in caplog.text for text in words)
    other = open_cluster(act, nodes=[node.host], local_node=False)
    said = failure(other.submit("list", dispy_job_depends=["data"]))
    assert all(text in said for text in words)
    assert result(other.submit("list")) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a disk of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "dispy-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("size", [6_000_000, 2_500_000])
def test_a_full_disk_is_told_with_node_file_and_free_space(
    open_cluster: Open,
    small_disk: Path,
    here: Path,  # noqa: F811
    nothing_left: None,
    size: int,
) -> None:
    """The larger file does not fit at all, the smaller not twice: in the store and as a copy."""
    (here / "data").write_bytes(b"x" * size)
    host = f"127.4.{os.getpid() % 250}.{size % 97 + 3}"
    node = RunningNode(small_disk, host, 51348, DISPY_CLIENT_DISK="0")
    try:
        cluster = open_cluster(act, nodes=[node.host], depends=["data"], local_node=False)
        job = cluster.submit("list")
        said = f"there is no room for file 'data' of {size:,} bytes: "
        eventually(lambda: said in job.why(), job.why())
        assert f" bytes are free in {small_disk}" in job.why()
        assert "on node " in job.why()
        (here / "data").write_bytes(b"x" * 1000)
        again = open_cluster(act, nodes=[node.host], depends=["data"], local_node=False)
        assert result(again.submit("list")) == ["data"]
    finally:
        assert node.end() == 0
    assert "Traceback" not in node.said


def test_a_node_takes_no_file_larger_than_it_says(
    open_cluster: Open,
    start_node: Start,
    here: Path,  # noqa: F811
) -> None:
    (here / "data").write_bytes(b"x" * 3000)
    (here / "fits").write_bytes(b"x" * 2048)
    node = start_node("--max_file_size=2k")
    words = "file 'data' has 3,000 bytes, and this node takes at most 2,048 (its max_file_size)"
    refused = open_cluster(act, nodes=[node.host], depends=["data"], local_node=False)
    job = refused.submit("list")
    eventually(lambda: words in job.why(), job.why())
    cluster = open_cluster(act, nodes=[node.host], depends=["fits"], local_node=False)
    assert result(cluster.submit("list")) == ["fits"]
    assert words in failure(cluster.submit("list", dispy_job_depends=["data"]))
    assert cluster.send_file("data", node.host) == -1


def test_a_small_store_keeps_what_was_used_last(
    open_cluster: Open,
    start_node: Start,
    here: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DISPY_STORE_SIZE", "1000k")
    node = start_node(host=f"127.4.{os.getpid() % 250}.5")
    cluster = open_cluster(act, nodes=[node.host], local_node=False)
    assert result(cluster.submit("list")) == []
    for name in ("one", "two", "three"):
        (here / name).write_bytes(os.urandom(200_000).hex().encode())
    sent = []
    for name in ("one", "two", "one", "three", "one", "two"):
        before = fetched(node)
        assert len(result(cluster.submit("read", name, dispy_job_depends=[name]))) == 400_000
        sent.append(fetched(node) - before)
    assert sent == [400_000, 400_000, 0, 400_000, 0, 400_000]


# -- whoever wants out


class Stranger:
    """An owner that is no program of ours: says to a node what it likes."""

    def __init__(self, host: str) -> None:
        self.link = Link(gevent_socket.create_connection((host, 51348)))
        self.link.exchange_hello(Hello("client", os.urandom(16).hex(), "stranger"), "node")
        self.heard: list[tuple[int, list[Any]]] = []
        self._reader = gevent.spawn(self.link.read, self._hear)

    def _hear(self, frame: Any) -> None:
        self.heard.append((frame.kind, frame.body))
        if frame.kind == Kind.FETCH:
            key, offset, length = frame.body
            self.link.send(Kind.PIECE, [key, offset, None], [b"x" * length])

    def answer(self, kind: int) -> list[Any]:
        """Return the next message of this kind."""
        with gevent.Timeout(DEADLINE):
            while True:
                for at, (heard, body) in enumerate(self.heard):
                    if heard == kind:
                        del self.heard[at]
                        return body
                gevent.sleep(0.005)

    def close(self) -> None:
        self.link.close()
        self._reader.join()


@pytest.fixture
def stranger(shared_node: RunningNode) -> Iterator[Stranger]:
    made = Stranger(shared_node.host)
    yield made
    made.close()


DIGEST = digest_of(b"xxxxx")


def hostile(path: str) -> list[Any]:
    return [[path, DIGEST, 5, 0o644, 1]]


@pytest.mark.parametrize("path", ["../out", "/tmp/dispy-test-out", "a/../../out", "", "a\0b"])
def test_a_manifest_that_would_leave_the_directory_is_refused_by_the_node(
    stranger: Stranger, path: str
) -> None:
    stranger.link.send(Kind.OPEN, [1, "evil", {"program": True, "files": hostile(path)}], [b"#!x"])
    number, why = stranger.answer(Kind.READY)[:2]
    assert number == 1
    assert "would leave the directory" in why or "no path" in why
    settings = {"program": True, "dest_path": path or ".."}
    stranger.link.send(Kind.OPEN, [2, "evil", settings], [b"#!x"])
    assert "is refused: " in stranger.answer(Kind.READY)[1]
    assert not os.path.exists("/tmp/dispy-test-out")


@pytest.mark.parametrize("files", [7, {}, [[]], [["a", b"short", 1, 0, 0]], [None]])
def test_a_manifest_that_is_none_is_refused(stranger: Stranger, files: Any) -> None:
    stranger.link.send(Kind.OPEN, [1, "evil", {"program": True, "files": files}], [b"#!x"])
    assert "file" in stranger.answer(Kind.READY)[1]
