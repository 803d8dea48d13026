"""What a node owes comes once and in order, whatever is in memory, on disk, and on its way."""

import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import gevent
import pytest
from gevent.event import Event
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from dispy.model.accounts import Account
from dispy.model.statuses import Status
from dispy.node import owed, spilled
from dispy.node.heirs import LEAST_SECONDS, Heirs, remaining
from dispy.node.owed import Backlog
from dispy.node.owners import Owner
from dispy.node.quotas import Memory
from dispy.node.spilled import Spilled
from dispy.protocol.messages import Kind

ABOVE = 1000  # bytes


def directly(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


class StandIn:
    """A link; `fast`: all leaves at once, else when it is drained."""

    def __init__(self, fast: bool) -> None:
        self.fast, self.closed = fast, False
        self.on_the_way: list[Any] = []
        self.unsent = 0
        self._drained = Event()

    def send(self, kind: int, body: list[Any], buffers: Any = ()) -> None:
        if not self.closed:
            self.on_the_way.append((kind, body, [bytes(buffer) for buffer in buffers]))
            self.unsent += sum(map(len, buffers))

    def wait_sent(self) -> None:
        while self.unsent and not self.fast and not self.closed:
            self._drained.clear()
            self._drained.wait()
        self.unsent = 0

    def arrive(self) -> list[Any]:
        arrived, self.on_the_way, self.unsent = self.on_the_way, [], 0
        self._drained.set()
        return arrived

    def close(self) -> None:
        self.closed = True
        self._drained.set()


def run() -> None:
    """Let greenlets do all that they can."""
    for _ in range(12):
        gevent.sleep(0)


class Debts(RuleBasedStateMachine):
    """A node with one owner, which reads, acknowledges, breaks its link and comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = [
            mock.patch.object(spilled, "in_thread", directly),
            mock.patch.object(spilled, "PIECE_BYTES", 100),
            *(mock.patch.object(owed, name, 0) for name in ("AWAY_SECONDS", "SLOW_SECONDS")),
            mock.patch.object(owed, "GROUP_BYTES", 500),
            mock.patch.object(owed, "SENT_BYTES", 300),
        ]
        for patch in self.patches:
            patch.start()
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.directory = tempfile.TemporaryDirectory(dir=memory)
        self.values = 0  # that were owed
        self.taken: list[int] = []
        self.link: StandIn | None = None
        self.node()

    def node(self) -> None:
        """Begin a node's life."""
        self.spilled = Spilled(Path(self.directory.name))
        self.held = ""
        self.owner = Owner("o", "o", memory=0, disk=0, spilled=self.spilled, spill_above=ABOVE)
        self.owner.backlog._hold = self.hold
        Heirs(self.spilled, 3600.0).inherits(self.owner)
        self.seen = 0  # the last number that the owner took
        self.greeted = True

    def hold(self, why: str) -> None:
        self.held = why

    @property
    def backlog(self) -> Backlog:
        return self.owner.backlog

    @precondition(lambda self: not self.held)
    @rule(sizes=st.lists(st.integers(0, 700), min_size=1, max_size=5))
    def owe(self, sizes: list[int]) -> None:
        for size in sizes:
            value = str(self.values).encode().rjust(size)
            self.values += 1
            self.backlog.owe(Kind.PROVISIONAL, [1, self.values - 1, 1], [value], 50 + size)

    @rule()
    def go_on(self) -> None:
        run()

    @rule()
    def read(self) -> None:
        """Take what has arrived, as a scheduler does."""
        if self.link is None:
            return
        for kind, body, buffers in self.link.arrive():
            if kind == Kind.HELD:
                self.greeted = True
                assert self.seen >= body[0], "something owed came behind what is held"
                continue
            number, _, value, _ = body
            assert int(buffers[0].strip() or value) == value
            if number <= self.seen:
                continue
            assert number == self.seen + 1 or not self.seen, "a number was left out"
            self.seen = number
            self.taken.append(value)

    @rule()
    def acknowledge(self) -> None:
        if self.link is not None:
            self.backlog.acknowledged(self.seen)

    @rule(fast=st.booleans())
    def connect(self, fast: bool) -> None:
        if self.link is not None:
            self.link.close()
        link = self.link = StandIn(fast)
        self.greeted = False
        last = self.backlog.ledger.last
        self.backlog.connected(link, lambda: link.send(Kind.HELD, [last]))

    @rule()
    def leave(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None
            self.backlog.disconnected()

    @rule()
    def crash(self) -> None:
        """The node is killed some time after its owner has left, and started again."""
        self.leave()
        self.rest()
        assert not len(self.backlog.ledger), "it is not on disk"
        self.backlog._stop()
        run()
        self.spilled.close()
        self.node()

    def rest(self) -> None:
        for _ in range(200):
            run()
            if not len(self.backlog.ledger):
                break

    def teardown(self) -> None:
        try:
            self.connect(True)
            for _ in range(300):
                run()
                self.read()
                self.acknowledge()
                if self.greeted and not self.backlog.bytes:
                    break
            run()
            assert self.greeted
            assert sorted(set(self.taken)) == list(range(self.values)), "something is lost"
            assert not self.held
            assert self.owner.memory.held == self.owner.disk.held == self.backlog.bytes == 0
            run()
            assert not os.listdir(self.directory.name), "the file stays"
        finally:
            self.backlog._stop()
            run()
            self.spilled.close()
            self.directory.cleanup()
            for patch in self.patches:
                patch.stop()


TestDebts = Debts.TestCase
TestDebts.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# -- the file


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Spilled]:
    made = Spilled(tmp_path)
    yield made
    made.finish()


def some(count: int, size: int = 10) -> list[owed.Owed]:
    return [
        owed.Owed(Kind.RESULTS, [n, 1, [n], [b"x" * size]], [os.urandom(size)], size)
        for n in range(1, count + 1)
    ]


def test_a_file_is_private_and_goes_with_its_last_frame(file: Spilled, tmp_path: Path) -> None:
    group = some(3)
    file.write("o", "o", 1.0, group)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    assert file.read("o", 1, 9, 1000) == group[1:]
    assert file.read("o", 0, 9, 1) == group[:1]
    assert file.read("other", 0, 9, 1) == []
    assert file.forget("o", 2) == 20
    assert file.forget("other", 9) == 0
    assert file.forget("o", 3) == 10
    assert list(tmp_path.iterdir()) == []


def test_large_values_are_cut_for_the_database_and_joined_again(file: Spilled) -> None:
    with mock.patch.object(spilled, "PIECE_BYTES", 7):
        (frame,) = some(1, size=50)
        frame = frame._replace(buffers=[b"", *frame.buffers, b"1234567"])
        file.write("o", "o", 1.0, [frame])
        assert file.read("o", 0, 1, 1) == [frame]


def test_what_is_deleted_makes_room_for_what_comes(file: Spilled, tmp_path: Path) -> None:
    file.write("other", "other", 1.0, some(1))  # so that it is never empty
    sizes = []
    for _ in range(6):
        file.write("o", "o", 1.0, some(20, size=50_000))
        file.forget("o", 20)
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert sizes[-1] <= 1.5 * sizes[1]


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\0" + b"x" * 5000])
def test_a_damaged_file_is_put_aside_in_words(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "owed.sqlite").write_bytes(content)
    file = Spilled(tmp_path)
    with caplog.at_level(logging.WARNING, "dispy.node"):
        assert file.left() == []
    assert "cannot be read" in caplog.text
    (aside,) = tmp_path.iterdir()
    assert f"the file is now {aside}" in caplog.text
    assert aside.read_bytes() == content
    file.write("o", "o", 1.0, some(1))
    assert [left[:3] for left in file.left()] == [("o", "o", 1)]
    file.finish()


@pytest.mark.parametrize("limit", ["disk", "account"])
def test_where_the_disk_has_no_room_results_stay_in_memory_and_that_is_said_once(
    tmp_path: Path, limit: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = Spilled(tmp_path)
    disk = Account(100 if limit == "account" else 0, "node.client_disk")
    backlog = Backlog("o", "client", Memory(0, "m"), disk, file, ABOVE)

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    write = mock.patch.object(file, "write", full if limit == "disk" else file.write)
    times = [mock.patch.object(owed, name, 0.001) for name in ("AWAY_SECONDS", "RETRY_SECONDS")]
    with caplog.at_level(logging.WARNING, "dispy.node"), times[0], times[1]:
        with write:
            for _ in range(4):
                backlog.owe(Kind.PROVISIONAL, [1, 1, b""], [b"x" * 600], 600)
            with gevent.Timeout(10):
                while not caplog.messages:
                    gevent.sleep(0.001)
            gevent.sleep(0.01)  # it tries again, and does not say so
        (line,) = caplog.messages
        assert "results of client client stay in memory" in line
        assert ("is full" if limit == "disk" else "node.client_disk") in line
        assert backlog.held
        assert backlog.bytes == 2400
        assert disk.held == 0
        disk.limit = 0
        with gevent.Timeout(10):
            while backlog.bytes:
                gevent.sleep(0.001)
        assert "written to disk again" in caplog.messages[-1]
        assert not backlog.held
    assert disk.held == 2400
    backlog._stop()
    file.finish()


def test_jobs_whose_results_the_disk_does_not_give_back_end_before_the_list_of_what_is_held(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory, file = Memory(0, "m"), Spilled(tmp_path)
    backlog = Backlog("o", "client", memory, Account(0, "d"), file, ABOVE)
    with mock.patch.multiple(owed, AWAY_SECONDS=0, RETRY_SECONDS=0), gevent.Timeout(10):
        backlog.owe(
            Kind.RESULTS, [7, [3, 2**64 - 1], [0.0] * 2, [0.0] * 2, [b"3", b"4"], []], [], 9
        )
        backlog.owe(Kind.PROVISIONAL, [7, 5, b""], [], 1)
        backlog.owe(Kind.RESULTS, [7, [5], [0.0], [0.0], [b"5"], []], [], 9)
        while backlog.bytes:
            gevent.sleep(0.001)
        assert memory.held > 0, "what is kept of them counts"
        file.finish()
        (tmp_path / "owed.sqlite").write_bytes(b"no database" * 1000)
        link, greeted = StandIn(fast=True), Event()
        backlog.connected(link, greeted.set)  # type: ignore[arg-type]
        greeted.wait()
    told = [(body[:3], dict(body[6])) for _, body, _ in link.on_the_way]
    assert [numbers for numbers, _ in told] == [[1, 7, [3, 2**64 - 1]], [3, 7, [5]]]
    for _, extras in told:
        assert all("does not give it back" in extra["exception"] for extra in extras.values())
        assert {extra["status"] for extra in extras.values()} == {int(Status.Terminated)}
    assert "results of client client cannot be read back" in caplog.text
    backlog.acknowledged(3)
    assert memory.held == 0
    backlog._stop()


def test_nothing_is_left_of_an_owner_that_is_forgotten_at_any_moment(tmp_path: Path) -> None:
    with mock.patch.object(owed, "AWAY_SECONDS", 0):
        for turns in range(12):
            file = Spilled(tmp_path)
            backlog = Backlog("o", "o", Memory(0, "m"), Account(0, "d"), file, ABOVE)
            for _ in range(3):
                backlog.owe(Kind.PROVISIONAL, [1, 1, b""], [b"x" * 600], 600)
            if turns % 2:
                with gevent.Timeout(10):
                    while backlog.bytes:
                        gevent.sleep(0.001)
                backlog.acknowledged(3)
            for _ in range(turns // 2):
                gevent.sleep(0)
            backlog.close()
            file.finish()
            assert list(tmp_path.iterdir()) == []


def test_an_owner_that_acknowledges_in_time_never_meets_the_disk(tmp_path: Path) -> None:
    backlog = Backlog("o", "o", Memory(0, "m"), Account(0, "d"), Spilled(tmp_path), ABOVE)
    link = StandIn(fast=True)
    backlog.connected(link, lambda: None)  # type: ignore[arg-type]
    for number in range(1, 200):
        backlog.owe(Kind.PROVISIONAL, [1, 1, b""], [b"x" * 300], 300)
        if number % 3 == 0:
            backlog.acknowledged(number)
    assert (backlog._writer, backlog._sender, backlog._clearer) == (None, None, None)
    assert len(link.on_the_way) == 199
    assert list(tmp_path.iterdir()) == []


def test_no_clock_makes_a_node_drop_what_is_young_or_keep_it_for_ever() -> None:
    hour = 3600.0
    assert remaining(gone=1000.0, now=1600.0, zombie_seconds=hour) == 3000.0
    for now in (-1e9, 0.0, 999.0):
        assert remaining(1000.0, now, hour) == hour
    for now in (1e9, 1e18):
        assert remaining(1000.0, now, hour) == LEAST_SECONDS
        assert remaining(1000.0, now, 5.0) == 5.0
