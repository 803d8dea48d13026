"""What one client may have of a node: counted exactly, told in words, and never lost."""

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispy.model.accounts import Account
from dispy.node.owners import Owner
from dispy.node.quotas import (
    SMALL_BYTES,
    Memory,
    weight_of_jobs,
    weight_of_results,
    weight_of_table,
)
from dispy.protocol.frames import CHUNK, HEADER, SHARED, SIZE, FrameDecoder, FrameRefused
from dispy.protocol.messages import Bulk, Kind, check
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Cluster, Node
from dispy.shipping.contents import digest_of
from dispy.shipping.store import NoRoom, Store

MIB = 1 << 20


def test_what_does_not_fit_is_told_with_its_setting() -> None:
    account = Account(10 * MIB, "node.client_disk")
    account.take(8 * MIB)
    assert account.fits(2 * MIB)
    assert not account.fits(2 * MIB + 1)
    words = account.why_not("file 'x'", 3 * MIB)
    assert words == (
        "there is no room for file 'x' of 3.15 MB beside 8.39 MB that it has there: one client "
        "may have 10.5 MB there (node.client_disk)"
    )
    assert Account(0, "any").fits(1 << 60)


@given(st.lists(st.integers(1, 100), max_size=50), st.randoms())
def test_whoever_was_turned_away_is_told_of_room_before_the_account_is_empty(
    sizes: list[int], rng: Random
) -> None:
    told: list[object] = []
    memory = Memory(100, "m", lasting=10, has_room=told.extend)
    memory.take(10)
    held = []
    for size in sizes:
        if memory.fits(size):
            memory.take(size)
            held.append(size)
        elif memory.ever_fits(size):
            memory.turned_away.add(("owner", size))
    waiting = len(memory.turned_away)
    rng.shuffle(held)
    for size in held:
        assert len(told) in (0, waiting)
        memory.release(size)
    assert len(told) == waiting
    assert memory.held == memory.lasting
    assert not memory.turned_away


def test_what_jobs_and_results_weigh() -> None:
    assert weight_of_jobs([b"x" * 1000, Bulk(b"x" * 100_000)]) >= 101_000
    assert weight_of_table({"files": [["x" * 1000, b"d", 1, 1, 1]]}) >= 1000
    columns = [[1, 2], [0.0, 0.0], [1.0, 1.0], [b"x" * 500, 1], [[0, {"stdout": "x" * 300}]]]
    assert weight_of_results(columns, [b"y" * 70_000]) >= 70_800
    deep: object = 1
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(FrameRefused, match="nested"):
        weight_of_table({"deep": deep})


def test_results_count_until_they_are_acknowledged() -> None:
    owner = Owner("o", "o", memory=MIB)
    for _ in range(3):
        owner.owe(1, [[1], [0.0], [1.0], [b"x" * 1000], []], [])
    assert owner.memory.held >= 3000
    owner.acknowledged(2)
    assert 1000 <= owner.memory.held < 2000
    owner.acknowledged(3)
    assert owner.memory.held == 0


# -- the disk


def test_a_store_makes_room_of_the_owner_s_own_and_of_nobody_else_s(tmp_path: Path) -> None:
    store, mine, other = Store(tmp_path / "store", 1 << 30), Account(25, "mine"), Account(0, "")

    def put(data: bytes, account: Account, right: bool = True) -> bytes:
        arriving = store.begin(digest_of(data), len(data), "data", account)
        arriving.write(data)
        if right:
            store.keep(arriving)
        arriving.close_and_clear()
        return digest_of(data)

    theirs = put(b"t" * 1000, other)
    a, b = put(b"a" * 10, mine), put(b"b" * 10, mine)
    assert mine.held == 20
    put(b"wrong" * 1, mine, right=False)
    assert mine.held == 20
    store.hold(b, "a job")
    c = put(b"c" * 10, mine)
    assert [store.path(digest) is not None for digest in (theirs, a, b, c)] == [
        True, False, True, True,
    ]  # fmt: skip
    store.hold(c, "a job")
    with pytest.raises(NoRoom, match=r"no room for data of 10 bytes beside 20 bytes .* \(mine\)"):
        put(b"d" * 10, mine)
    store.close()


# -- the memory that a frame would take


def head(*sizes: int) -> bytes:
    """The head of a RUN of one job whose payload has buffers of these sizes."""
    body = b"\x94\x01\x91\x01\x91" + bytes([len(sizes)]) + b"\x90"
    tokens = b"".join(SIZE.pack(7) for size in sizes if size & SHARED)
    table = b"".join(map(SIZE.pack, sizes))
    return HEADER.pack(len(body), Kind.RUN, len(sizes)) + table + tokens + body


@pytest.mark.parametrize("step", [1 << 30, 100_000, 777])
def test_what_is_not_let_in_is_read_past_and_takes_no_memory(step: int) -> None:
    taken: list[int] = []

    def memory(size: int, readonly: bool) -> tuple[bytearray, memoryview]:
        taken.append(size)
        made = bytearray(size)
        return made, memoryview(made)

    decoder = FrameDecoder(memory=memory)
    decoder.lets_in = Memory(MIB, "m").lets_in
    sizes = (2 * MIB, 5 | SHARED, 0, 100)
    bulk = b"x" * (2 * MIB + 100)
    wire = head(*sizes) + HEADER.pack(len(bulk), CHUNK, 0) + bulk + head(7) + b"\x00\x00\x00\x07"
    wire += b"\x00\x00\x00" + b"7 bytes"
    frames = []
    for at in range(0, len(wire), step):
        decoder.feed(wire[at : at + step])
        while (frame := decoder.next_frame()) is not None:
            frames.append(check(frame))
    assert [frame.dropped for frame in frames] == [2 * MIB + 100, 0]
    assert [bytes(buffer) for buffer in frames[1].buffers] == [b"7 bytes"]
    assert taken == [7]


def test_small_frames_are_always_read() -> None:
    memory = Memory(10, "m", held=10)
    assert memory.lets_in(SMALL_BYTES)
    assert not memory.lets_in(SMALL_BYTES + 1)


# -- the scheduler's part


def test_jobs_that_are_turned_away_wait_until_there_is_room() -> None:
    core = Scheduling()
    core.node_joined(Node("n", "node n", 2))
    core.cluster_opened(Cluster(1, "square"))
    core.cluster_allocated("n", 1, 2)
    core.cluster_ready_on("n", 1)
    core.jobs_submitted(1, [1, 2, 3])
    sent = [action.jobs for action in core.place(0.0)]
    assert sent == [(1, 2)]
    core.node_full("n", 1, [2, 9], "no room there", 1.0)
    core.check_invariants()
    assert core.place(1.0) == []
    assert any("no room there" in line for line in core.explain(1, 2, 1.0))
    core.node_full("n", 1, [], "", 2.0)
    assert [action.jobs for action in core.place(2.0)] == [(2,)]
    core.check_invariants()
    core.node_full("n", 1, [2], "no room there", 3.0)
    core.node_silent("n")
    core.node_settled("n", [1], 4.0)
    assert [action.jobs for action in core.place(4.0)] == [(2,)]


def test_files_that_a_computation_has_in_its_directory_count(tmp_path: Path) -> None:
    from test_fetching import DEADLINE, Sides
    from test_working import Work

    sides = Sides(tmp_path / "store")
    sides.connect()
    work, account = Work(sides, tmp_path / "root"), Account(10, "node.client_disk")
    work.files._account = account
    assert work.bring(1, work.entry("a", b"12345")).get(timeout=DEADLINE) is None
    assert work.bring(2, work.entry("b", b"1234")).get(timeout=DEADLINE) is None
    why = work.bring(3, work.entry("c", b"12")).get(timeout=DEADLINE)
    assert why is not None
    assert "no room for file 'c' of 2 bytes beside 9 bytes" in why
    work.files.leave(1)
    work.settle(["b"])
    assert account.held == 4
    work.files.clear()
    assert account.held == 0
    sides.fetching.close()
