"""No client takes more of a node than its part, whatever it sends; others notice nothing."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from system.conftest import DEADLINE, Gate, RunningNode, hold
from system.hostile import SECRET, Attack, Honest, Peer, secret_file

from dispy import DispyJob, JobCluster
from dispy.protocol.frames import BULK_LIMIT, CHUNK, CHUNK_SIZE, HEADER, SIZE
from dispy.protocol.messages import Kind

Open = Callable[..., JobCluster]
MIB = 1 << 20
PLACE = f"127.4.{os.getpid() % 250}"
LIMIT = 24 * MIB  # of memory, of one client
SPARE = 48 * MIB  # that the node itself and the honest program's jobs may need meanwhile


@pytest.fixture
def small_node(start_node: Callable[..., RunningNode]) -> RunningNode:
    """A node where one client may have little."""
    return start_node("--cpus=2", DISPY_CLIENT_MEMORY=str(LIMIT), DISPY_CLIENT_DISK=str(10 * MIB))


def test_jobs_wait_for_room_and_all_of_them_run(
    open_cluster: Open, small_node: RunningNode, gate: Gate
) -> None:
    cluster = open_cluster(hold, nodes=[small_node.host], local_node=False)
    jobs = [cluster.submit(str(gate), os.urandom(10 * MIB)) for _ in range(6)]
    gate.open(len(jobs))
    assert [len(job.get(timeout=DEADLINE)) for job in jobs] == [10 * MIB] * 6


def test_what_can_never_be_kept_ends_its_own_job(
    open_cluster: Open, small_node: RunningNode
) -> None:
    def give(size: int, taken: bytes = b"") -> bytes:
        return b"x" * size

    cluster = open_cluster(give, nodes=[small_node.host], local_node=False)
    larger, returns, small = (
        cluster.submit(1, os.urandom(30 * MIB)), cluster.submit(30 * MIB), cluster.submit(2),
    )  # fmt: skip
    assert small.get(timeout=DEADLINE) == b"xx"
    for job, words in (
        (larger, "no room for arguments"),
        (returns, "no room for what it returned"),
    ):
        assert job.finish.wait(timeout=DEADLINE)
        assert job.status == DispyJob.Terminated
        assert words in job.exception
        assert "node.client_memory" in job.exception


def test_files_beyond_a_client_s_part_of_the_disk_are_refused(
    open_cluster: Open, small_node: RunningNode, tmp_path: Path
) -> None:
    fits, file = tmp_path / "fits", tmp_path / "file"
    fits.write_bytes(os.urandom(4 * MIB)), file.write_bytes(os.urandom(8 * MIB))

    def size(name: str) -> int:
        return os.stat(name).st_size

    cluster = open_cluster(size, nodes=[small_node.host], local_node=False, depends=[str(fits)])
    job = cluster.submit("file", dispy_job_depends=[str(file)])
    assert job.finish.wait(timeout=DEADLINE)
    assert job.status == DispyJob.Terminated
    assert "no room for file" in job.exception
    assert "node.client_disk" in job.exception
    assert cluster.submit("fits").get(timeout=DEADLINE) == 4 * MIB


# -- with raw peers


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    """A node that is attacked while an honest program uses it: all its jobs finish."""
    directory = tmp_path_factory.mktemp("hostile")
    secret = f"--secret-file={secret_file(directory, SECRET)}"
    node = RunningNode(
        directory, f"{PLACE}.1", 51348, "--cpus=2", secret, DISPY_CLIENT_MEMORY=str(LIMIT)
    )
    attack = Attack(node)
    with closing(attack), closing(Honest(directory, attack.host)) as program:
        program.wait_for("9\n")
        yield attack
        assert "refused" not in program.end()


def opened(attack: Attack, identity: str) -> Peer:
    """Return a client with a computation whose jobs only wait: its file never comes."""
    peer = attack.welcome(identity=identity)
    files = [["x", b"d" * 32, 5, 0o600, 1]]
    peer.tell(Kind.OPEN, [1, "n", {"program": True, "files": files}], [b"nothing"])
    return peer


def answer(peer: Peer, *kinds: Kind) -> Any:
    while (frame := peer.frame()) is not None:
        if frame.kind in kinds:
            return frame
    raise AssertionError("the link ended")


def bulk(peer: Peer, declared: int, sent: int, kind: int, body: bytes) -> None:
    """Send a frame with a buffer of which the first bytes come."""
    peer.send(HEADER.pack(len(body), kind, 1) + SIZE.pack(declared) + body)
    chunk = HEADER.pack(CHUNK_SIZE, CHUNK, 0) + bytes(CHUNK_SIZE)
    for _ in range(sent // CHUNK_SIZE):
        peer.send(chunk)


@pytest.mark.parametrize(
    ("kind", "body"),
    [(Kind.RUN, b"\x94\x01\x91\x07\x91\x01\x90"), (Kind.OPEN, b"\x93\x02\xa1n\x80")],
)
def test_bytes_beyond_a_client_s_part_take_no_memory_though_they_come(
    attack: Attack, kind: Kind, body: bytes
) -> None:
    peer = opened(attack, f"large {kind}")
    before = attack.forget_peak()
    bulk(peer, BULK_LIMIT, 4 * LIMIT, kind, body)
    bystander = attack.welcome(identity="bystander")
    bystander.tell(Kind.LIST, [99, 5])
    assert answer(bystander, Kind.LISTED).body == [5, []]
    assert attack.peak_bytes - before < SPARE
    for each in (peer, bystander):
        each.close()


def test_whole_frames_that_do_not_fit_are_answered_in_words(attack: Attack) -> None:
    peer = opened(attack, "whole")
    declared = 3 * LIMIT
    assert declared % CHUNK_SIZE == 0
    bulk(peer, declared, declared, Kind.RUN, b"\x94\x01\x91\x07\x91\x01\x90")
    frame = answer(peer, Kind.RESULTS)
    assert frame.body[2] == [7]
    assert "no room for arguments of 75.5 MB" in frame.body[6][0][1]["exception"]
    bulk(peer, declared, declared, Kind.OPEN, b"\x93\x02\xa1n\x80")
    while (frame := answer(peer, Kind.READY)).body[0] != 2:
        pass
    assert "no room for its code of 75.5 MB" in frame.body[1]
    peer.close()


def test_many_small_jobs_that_never_run_take_a_client_s_part_and_no_more(attack: Attack) -> None:
    peer = opened(attack, "many")
    before = attack.forget_peak()
    for batch in range(200):
        jobs = list(range(1000 * batch, 1000 * batch + 1000))
        peer.tell(Kind.RUN, [1, jobs, [b"x" * 1000] * 1000, []])
    full = answer(peer, Kind.FULL)
    assert full.body[0] == 1
    assert "node.client_memory" in full.body[2]
    assert attack.peak_bytes - before < SPARE + 2 * LIMIT
    peer.tell(Kind.CLOSE, [1])
    while (room := answer(peer, Kind.FULL)).body[2] != "":
        pass
    assert room.body == [1, [], ""]
    peer.close()


def test_files_that_never_come_take_a_client_s_part_and_no_more(attack: Attack) -> None:
    """Each PLACE waits for its own; it is forgotten with its computation."""
    peer = opened(attack, "never")
    files = [[f"{n:0200}", os.urandom(32), 1, 0o600, 1] for n in range(4000)]
    for token in range(16):
        peer.tell(Kind.PLACE, [1, token, {"files": files}])
    refused = answer(peer, Kind.PLACED).body
    assert "no room for its list of files" in refused[2]
    assert "node.client_memory" in refused[2]
    peer.tell(Kind.CLOSE, [1])
    answer(peer, Kind.CLOSED)
    peer.tell(Kind.OPEN, [2, "n", {"program": True, "files": files[:1]}], [b"nothing"])
    peer.tell(Kind.PLACE, [2, 99, {"files": [["y", b"d" * 31, 1, 0, 1]]}])
    while (placed := answer(peer, Kind.PLACED).body)[1] != 99:
        pass
    assert "not described as a file" in placed[2], "there is room again"
    peer.close()
