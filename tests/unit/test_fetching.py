"""A node pulls contents from an owner over real links, with little memory, whatever breaks."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import AsyncResult, Event

from dispy.net import pieces, possession
from dispy.net.fetching import AHEAD_BYTES, Fetching, is_wanted
from dispy.net.link import Link
from dispy.net.pieces import ASKED_LIMIT, PieceSender
from dispy.net.possession import POSED_LIMIT
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.messages import Kind
from dispy.scheduler.possession import TIMES, Prover
from dispy.shipping.contents import PIECE_SIZE, Content, digest_of
from dispy.shipping.possession import CHALLENGE_SIZE, NONCE_SIZE, new_proof
from dispy.shipping.store import Store

DEADLINE = 20


class Sides:
    """An owner with contents, a node with a store, and a link that may be cut."""

    def __init__(self, directory: Path, store: Store | None = None) -> None:
        self.contents: dict[bytes, Content] = {}
        self.store = store or Store(directory, quota=1 << 30)
        self.name, self.link = "the client", None
        self.fetching = Fetching(self, self.store)
        self.asked: list[tuple[bytes, int]] = []
        self.challenged: list[tuple[bytes, bytes]] = []
        self.prove: Callable[[bytes, bytes], None] | None = None  # in place of what owners do
        self.most_ahead = 0
        self.cut_after = 1 << 60  # FETCHes
        self.refused: list[str] = []

    def tell(self, kind: int, body: list[Any]) -> None:
        assert kind in (Kind.FETCH, Kind.PROVE)
        self.most_ahead = max(self.most_ahead, self.fetching._ahead)
        self.link.send(kind, body)

    def connect(self) -> None:
        node, owner = map(Link, socket.socketpair())
        sender = PieceSender(owner, self.contents.get, "a node")

        prover = Prover(owner, self.contents.get)

        def answer(frame: Frame) -> None:
            if frame.kind == Kind.PROVE:
                self.challenged.append((frame.body[0], frame.body[1]))
                (self.prove or prover.prove)(*frame.body)
                return
            self.asked.append((frame.body[0], frame.body[1]))
            if len(self.asked) == self.cut_after:
                owner.close()
            else:
                sender.fetch(*frame.body)

        gevent.spawn(owner.read, answer)
        gevent.spawn(self._read, node)
        self.link = node
        self.fetching.link_changed()

    def _read(self, link: Link) -> None:
        self.refused.append(link.read(self._take).reason)
        if self.link is link:
            self.link = None

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.PROVEN:
            self.fetching.proven(*frame.body)
        else:
            self.fetching.piece(frame)

    def add(self, content: Content) -> tuple[bytes, int]:
        self.contents[content.digest] = content
        return content.digest, content.size

    def fetch(self, *wanted: tuple[bytes, int]) -> "AsyncResult[str | None]":
        result: AsyncResult[str | None] = AsyncResult()
        self.fetching.fetch(list(wanted), result.set, {wanted[0][0]: "data.bin"})
        return result


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    made = Sides(tmp_path / "store")
    made.connect()
    yield made
    made.fetching.close()
    if made.link is not None:
        made.link.close()
    gevent.sleep(0)


def some_file(path: Path, size: int) -> Content:
    path.write_bytes(hashlib.shake_128(str(path).encode()).digest(size))
    return Content.of_file(str(path))


def test_files_and_memory_of_any_size_come_whole(sides: Sides, tmp_path: Path) -> None:
    sizes = [0, 1, PIECE_SIZE - 1, PIECE_SIZE, PIECE_SIZE + 1, 3 * PIECE_SIZE]
    contents = [some_file(tmp_path / str(size), size) for size in sizes]
    contents += [Content.of_memory(bytes([size % 251]) * size) for size in (7, PIECE_SIZE * 2)]
    assert sides.fetch(*map(sides.add, contents)).get(timeout=DEADLINE) is None
    for content in contents:
        path = sides.store.path(content.digest)
        assert path is not None
        assert digest_of(path.read_bytes()) == content.digest


def test_what_is_there_or_on_its_way_is_not_asked_for_again(sides: Sides) -> None:
    wanted = sides.add(Content.of_memory(b"x" * (PIECE_SIZE * 3)))
    results = [sides.fetch(wanted) for _ in range(3)]
    assert [result.get(timeout=DEADLINE) for result in results] == [None] * 3
    assert sides.fetch(wanted).get(timeout=DEADLINE) is None
    assert len(sides.asked) == 3


def test_little_is_on_its_way_at_any_time(sides: Sides, tmp_path: Path) -> None:
    contents = [some_file(tmp_path / str(n), 5 * PIECE_SIZE + n) for n in range(12)]
    assert sides.fetch(*map(sides.add, contents)).get(timeout=DEADLINE) is None
    assert 0 < sides.most_ahead <= AHEAD_BYTES
    assert sides.fetching._ahead == 0


def test_a_broken_link_costs_what_was_on_its_way_and_no_more(sides: Sides, tmp_path: Path) -> None:
    content = some_file(tmp_path / "large", 40 * PIECE_SIZE)
    sides.cut_after = 20
    result = sides.fetch(sides.add(content))
    while sides.link is not None:
        gevent.sleep(0.001)
    sides.connect()
    assert result.get(timeout=DEADLINE) is None
    path = sides.store.path(content.digest)
    assert path is not None
    assert digest_of(path.read_bytes()) == content.digest
    assert len(sides.asked) <= 40 + AHEAD_BYTES // PIECE_SIZE
    assert sides.fetching.fetched_bytes == content.size


def test_a_file_that_changes_on_its_way_is_named(sides: Sides, tmp_path: Path) -> None:
    content = some_file(tmp_path / "large", 3 * PIECE_SIZE)
    wanted = sides.add(content)
    (tmp_path / "large").write_bytes(b"other")
    why = sides.fetch(wanted).get(timeout=DEADLINE)
    assert why is not None
    assert "large' changed while it was being sent" in why
    assert list(sides.store.directory.iterdir()) == []


def test_a_content_with_another_digest_is_not_kept(sides: Sides) -> None:
    content = Content.of_memory(b"real")
    sides.contents[b"d" * 32] = content
    why = sides.fetch((b"d" * 32, 4)).get(timeout=DEADLINE)
    assert why == "data.bin changed while it was being sent"
    assert sides.store.path(b"d" * 32) is None


def test_one_that_cannot_be_had_fails_the_request_and_no_other(sides: Sides) -> None:
    good = sides.add(Content.of_memory(b"good" * PIECE_SIZE))
    both, one = sides.fetch((b"n" * 32, 5), good), sides.fetch(good)
    assert both.get(timeout=DEADLINE) == "it is not wanted any more"
    assert one.get(timeout=DEADLINE) is None
    assert sides.fetching._transfers == {}


def test_a_cancelled_request_ends_its_transfers_and_leaves_nothing(sides: Sides) -> None:
    wanted = sides.add(Content.of_memory(b"x" * (PIECE_SIZE * 30)))
    told: list[object] = []
    request = sides.fetching.fetch([wanted], told.append)
    while sides.fetching.fetched_bytes < PIECE_SIZE:
        gevent.sleep(0.001)
    sides.fetching.cancel(request)
    sides.fetching.cancel(request)
    assert sides.fetch(sides.add(Content.of_memory(b"next"))).get(timeout=DEADLINE) is None
    assert told == []
    left = [digest_of(b"next").hex()]
    with gevent.Timeout(DEADLINE):  # the thread that writes has to end first
        while [p.name for p in sides.store.directory.iterdir()] != left:
            gevent.sleep(0.001)
    assert sides.fetching._ahead == 0


def test_contents_stay_until_done_has_returned(tmp_path: Path, sides: Sides) -> None:
    sides.store.quota = 0
    seen: list[bool] = []
    wanted = [sides.add(Content.of_memory(text)) for text in (b"first", b"second")]
    result: AsyncResult[None] = AsyncResult()

    def done(why: str | None) -> None:
        seen.extend(sides.store.path(digest) is not None for digest, _ in wanted)
        result.set(None)

    sides.fetching.fetch(wanted, done)
    result.get(timeout=DEADLINE)
    assert seen == [True, True]
    assert list(sides.store.directory.iterdir()) == []


@pytest.fixture
def others(sides: Sides) -> Iterator[Sides]:
    """Another owner of the same node."""
    made = Sides(sides.store.directory, sides.store)
    made.connect()
    yield made
    made.fetching.close()
    made.link.close()
    gevent.sleep(0)


def test_who_knows_a_digest_alone_does_not_get_the_content(sides: Sides, others: Sides) -> None:
    content = Content.of_memory(b"mine" * PIECE_SIZE)
    assert sides.fetch(sides.add(content)).get(timeout=DEADLINE) is None
    wanted = content.digest, content.size
    assert not others.fetching.has(content.digest)
    assert others.fetch(wanted).get(timeout=DEADLINE) == "it is not wanted any more"
    others.contents[content.digest] = Content.of_memory(b"fake" * PIECE_SIZE)
    why = others.fetch(wanted).get(timeout=DEADLINE)
    assert why == "data.bin changed while it was being sent"
    assert not others.fetching.has(content.digest)
    assert sides.fetching.has(content.digest)


def test_who_sends_what_is_there_has_it_too_and_it_is_not_written_again(
    sides: Sides, others: Sides
) -> None:
    content = Content.of_memory(b"both" * PIECE_SIZE)
    others.prove = lambda digest, nonce: others.fetching.proven(digest, nonce, b"")
    assert sides.fetch(sides.add(content)).get(timeout=DEADLINE) is None
    path = sides.store.path(content.digest)
    assert path is not None
    before, used = path.stat(), sides.store.used
    for _ in range(2):
        assert others.fetch(others.add(content)).get(timeout=DEADLINE) is None
    after = path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert sides.store.used == used
    assert len(others.asked) == 4, "it was sent once, in pieces"


def test_what_has_gone_and_come_again_from_another_is_not_ours_any_more(
    sides: Sides, others: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, store = Content.of_memory(b"here and gone"), sides.store
    assert sides.fetch(sides.add(content)).get(timeout=DEADLINE) is None
    store.quota = 0
    store.hold(content.digest, "a test")
    store.release(content.digest, "a test")
    assert store.contents == 0
    store.quota = 1 << 30
    assert others.fetch(others.add(content)).get(timeout=DEADLINE) is None
    assert [each.fetching.has(content.digest) for each in (sides, others)] == [False, True]
    monkeypatch.setattr(possession, "FORGOTTEN", 0)
    for n in range(5):
        assert sides.fetch(sides.add(Content.of_memory(bytes([n])))).get(timeout=DEADLINE) is None
        store.quota = 0
        store.hold(content.digest, "a test")
        store.release(content.digest, "a test")
        store.quota = 1 << 30
    assert len(sides.fetching._possession._known) <= 2


# -- what is there, and need not be sent once more


@pytest.fixture
def there(sides: Sides) -> Content:
    """Return a content that the node has from one owner."""
    content = Content.of_memory(os.urandom(3 * PIECE_SIZE + 5), "large")
    assert sides.fetch(sides.add(content)).get(timeout=DEADLINE) is None
    assert not sides.challenged
    return content


def right(content: Content, nonce: bytes) -> bytes:
    proof = new_proof(nonce)
    proof.update(content.read(0, content.size))
    return proof.digest()


def test_who_shows_that_it_has_a_content_need_not_send_it(
    others: Sides, there: Content, tmp_path: Path
) -> None:
    (tmp_path / "same").write_bytes(there.read(0, there.size))
    wanted = others.add(Content.of_file(str(tmp_path / "same")))
    results = [others.fetch(wanted) for _ in range(2)]
    assert [result.get(timeout=DEADLINE) for result in results] == [None, None]
    assert others.fetching.has(there.digest)
    assert others.fetch(wanted).get(timeout=DEADLINE) is None
    assert (len(others.challenged), others.asked) == (1, [])
    assert others.fetching.fetched_bytes == others.fetching._ahead == 0


def test_what_is_small_or_not_there_is_just_sent(sides: Sides, others: Sides) -> None:
    small = Content.of_memory(bytes(CHALLENGE_SIZE - 1))
    for each in (sides, others):
        assert each.fetch(each.add(small)).get(timeout=DEADLINE) is None
    assert len(others.asked) == 1
    just_enough = Content.of_memory(bytes(CHALLENGE_SIZE))
    for each in (sides, others):
        assert each.fetch(each.add(just_enough)).get(timeout=DEADLINE) is None
    assert (len(sides.asked), len(others.asked)) == (2, 1)
    assert not sides.challenged


FORGED: dict[str, Callable[[Content, bytes], bytes]] = {
    "nothing": lambda content, nonce: b"",
    "another": lambda content, nonce: bytes(32),
    "the digest": lambda content, nonce: content.digest,
    "cut off": lambda content, nonce: right(content, nonce)[:-1],
    "too much": lambda content, nonce: right(content, nonce) + b"x",
    "an old key's": lambda content, nonce: right(content, bytes(NONCE_SIZE)),
    "a digest's, keyed": lambda content, nonce: new_proof(nonce + content.digest).digest(),
}


@pytest.mark.parametrize("forged", FORGED)
def test_a_wrong_answer_opens_nothing_and_is_not_asked_for_again(
    others: Sides, there: Content, forged: str
) -> None:
    others.prove = lambda digest, nonce: others.fetching.proven(
        digest, nonce, FORGED[forged](there, nonce)
    )
    wanted = there.digest, there.size
    for _ in range(2):
        assert others.fetch(wanted).get(timeout=DEADLINE) == "it is not wanted any more"
        assert not others.fetching.has(there.digest)
    assert len(others.challenged) == 1
    assert others.fetch(others.add(there)).get(timeout=DEADLINE) is None
    assert others.fetching.has(there.digest), "who has it can send it, as ever"


def test_answers_under_other_keys_are_passed_over(others: Sides, there: Content) -> None:
    def prove(digest: bytes, nonce: bytes) -> None:
        for old in (bytes(NONCE_SIZE), b""):
            others.fetching.proven(digest, old, bytes(32))
        others.fetching.proven(digest, nonce, right(there, nonce))

    others.prove = prove
    assert others.fetch((there.digest, there.size)).get(timeout=DEADLINE) is None
    assert others.fetching.has(there.digest)


def test_answers_before_or_after_the_one_that_counts_are_passed_over(
    others: Sides, there: Content
) -> None:
    def prove(digest: bytes, nonce: bytes) -> None:
        others.fetching.proven(digest, nonce, bytes(32))
        others.fetching.proven(digest, nonce, right(there, nonce))

    others.prove = prove
    others.fetching.proven(there.digest, b"", right(there, bytes(NONCE_SIZE)))
    wanted = there.digest, there.size
    assert others.fetch(wanted).get(timeout=DEADLINE) == "it is not wanted any more"
    digest, nonce = others.challenged[0]
    others.fetching.proven(digest, nonce, right(there, nonce))
    assert not others.fetching.has(there.digest)


def test_another_size_than_that_of_the_content_is_not_worth_a_question(
    others: Sides, there: Content
) -> None:
    others.add(there)
    why = others.fetch((there.digest, there.size - 1)).get(timeout=DEADLINE)
    assert why == "data.bin changed while it was being sent"
    assert others.challenged == []


def test_a_file_that_is_another_by_now_is_sent_or_named(
    others: Sides, there: Content, tmp_path: Path
) -> None:
    (tmp_path / "same").write_bytes(there.read(0, there.size))
    wanted = others.add(Content.of_file(str(tmp_path / "same")))
    (tmp_path / "same").write_bytes(b"another")
    why = others.fetch(wanted).get(timeout=DEADLINE)
    assert why is not None
    assert "same' changed while it was being sent" in why
    assert not others.fetching.has(there.digest)


def test_a_broken_link_has_it_asked_anew_under_another_key(others: Sides, there: Content) -> None:
    asked = Event()
    others.prove = lambda digest, nonce: asked.set()
    result = others.fetch(others.add(there))
    assert asked.wait(DEADLINE)
    others.link.close()
    others.link, others.prove = None, None
    others.connect()
    assert result.get(timeout=DEADLINE) is None
    (_, first), (_, second) = others.challenged
    assert first != second
    assert others.asked == []
    assert others.fetching.has(there.digest)


def test_it_is_sent_after_all_where_links_break_on_each_question(
    others: Sides, there: Content
) -> None:
    asked = Event()
    others.prove = lambda digest, nonce: asked.set()
    result = others.fetch(others.add(there))
    for _ in range(POSED_LIMIT):
        assert asked.wait(DEADLINE)
        asked.clear()
        others.link.close()
        others.connect()
    assert result.get(timeout=DEADLINE) is None
    assert len(others.challenged) == POSED_LIMIT
    assert len(others.asked) == 4


def open_files() -> list[str]:
    """Return what the descriptors of this process lead to."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


def test_what_is_cancelled_while_it_is_asked_for_is_not_there(
    others: Sides, there: Content
) -> None:
    asked, told = Event(), list[object]()
    others.prove = lambda digest, nonce: asked.set()
    request = others.fetching.fetch([(there.digest, there.size)], told.append)
    assert asked.wait(DEADLINE)
    others.fetching.cancel(request)
    with gevent.Timeout(DEADLINE):
        while any(there.digest.hex() in name for name in open_files()):
            gevent.sleep(0.001)
    digest, nonce = others.challenged[0]
    others.fetching.proven(digest, nonce, right(there, nonce))
    assert others.fetch(others.add(Content.of_memory(b"next"))).get(timeout=DEADLINE) is None
    assert not others.fetching.has(there.digest)
    assert (told, others.fetching._ahead, others.fetching._transfers) == ([], 0, {})


def test_an_owner_answers_for_one_content_a_few_times(sides: Sides, there: Content) -> None:
    told: list[bytes] = []

    class Sent:
        closed = False

        def send(self, kind: int, body: list[Any]) -> None:
            assert (kind, body[:2]) == (Kind.PROVEN, [there.digest, b"n" * NONCE_SIZE])
            told.append(body[2])

        def wait_sent(self) -> None:
            pass

    prover = Prover(Sent(), sides.contents.get)
    for _ in range(TIMES + 3):
        prover.prove(there.digest, b"n" * NONCE_SIZE)
    with gevent.Timeout(DEADLINE):
        while len(told) < TIMES + 3:
            gevent.sleep(0.001)
    assert told == [right(there, b"n" * NONCE_SIZE)] * TIMES + [b""] * 3


@pytest.mark.parametrize(
    ("digest", "nonce"), [(b"", b"n" * 32), (b"d" * 32, b""), (b"d" * 32, b"n" * 65)]
)
def test_a_question_that_no_node_asks_is_refused(sides: Sides, digest: bytes, nonce: bytes) -> None:
    with pytest.raises(FrameRefused, match="PROVE whose"):
        Prover(sides.link, sides.contents.get).prove(digest, nonce)


def test_a_node_that_asks_without_end_is_refused(sides: Sides) -> None:
    prover = Prover(sides.link, sides.contents.get)
    for _ in range(ASKED_LIMIT):
        prover.prove(b"d" * 32, b"n" * 32)
    with pytest.raises(FrameRefused, match="PROVEs at once"):
        prover.prove(b"d" * 32, b"n" * 32)


@pytest.mark.parametrize("body", [(0, 0), (-1, 5), (0, PIECE_SIZE + 1), (0, -5)])
def test_a_fetch_that_no_reader_sends_is_refused(sides: Sides, body: tuple[int, int]) -> None:
    with pytest.raises(FrameRefused, match="FETCH of"):
        PieceSender(sides.link, sides.contents.get, "a node").fetch(b"k", *body)


def test_a_reader_that_asks_without_end_is_refused(sides: Sides) -> None:
    sender = PieceSender(sides.link, sides.contents.get, "a node")
    for _ in range(ASKED_LIMIT):
        sender.fetch(b"k", 0, 1)
    with pytest.raises(FrameRefused, match="FETCHes at once"):
        sender.fetch(b"k", 0, 1)


def test_a_piece_that_was_not_asked_for_is_refused(sides: Sides) -> None:
    sides.fetching.fetch([(b"d" * 32, 10)], lambda why: None)
    for offset, piece in ((0, b"x"), (5, b"x" * 5), (0, b"x" * 11)):
        with pytest.raises(FrameRefused, match="not asked for"):
            sides.fetching.piece(Frame(Kind.PIECE, [b"d" * 32, offset, None], [piece]))
    with pytest.raises(FrameRefused, match="not asked for"):  # it has had its answer
        sides.fetching.piece(Frame(Kind.PIECE, [b"d" * 32, 0, None], [b"x" * 10]))
    sides.fetching.piece(Frame(Kind.PIECE, [b"other", 0, None], [b"x"]))


def test_what_comes_late_for_a_cancelled_request_is_not_taken_for_the_next_ones(
    sides: Sides,
) -> None:
    wanted = sides.add(Content.of_memory(os.urandom(PIECE_SIZE * 12 + 5)))
    for _ in range(3):
        request = sides.fetching.fetch([wanted], lambda why: None)
        before = len(sides.asked)
        with gevent.Timeout(DEADLINE):
            while len(sides.asked) < before + 2:
                gevent.sleep(0)
        sides.fetching.cancel(request)
    assert sides.fetch(wanted).get(timeout=DEADLINE) is None
    assert not sides.refused
    assert sides.fetching._ahead == 0
    assert not sides.fetching._stale


def test_many_that_are_cancelled_at_once_ask_for_no_more_than_their_owner_takes(
    sides: Sides,
) -> None:
    for number in range(2 * ASKED_LIMIT):
        wanted = sides.add(Content.of_memory(b"%d" % number * 1000))
        sides.fetching.cancel(sides.fetching.fetch([wanted], lambda why: None))
    wanted = sides.add(Content.of_memory(b"last" * 1000))
    assert sides.fetch(wanted).get(timeout=DEADLINE) is None
    assert not sides.refused


def test_a_long_transfer_tells_how_far_it_is(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pieces, "PROGRESS_SECONDS", 0.0)
    content = some_file(tmp_path / "large", 3 * PIECE_SIZE)
    with caplog.at_level("INFO", "dispy"):
        assert sides.fetch(sides.add(content)).get(timeout=DEADLINE) is None
    lines = [record.getMessage() for record in caplog.records]
    assert any("large to a node: 66 % of 3.1 MB, " in line for line in lines), lines
    assert "100 %" in lines[-1]
    assert lines[-1].endswith(" MB/s")


@pytest.mark.parametrize(
    "entry",
    [None, [], [b"d" * 32], [b"short", 1], ["d" * 32, 1], [b"d" * 32, -1], [b"d" * 32, 1 << 62],
     [b"d" * 32, True], [b"d" * 32, 1.0], [b"d" * 32, 1, 1]],
)  # fmt: skip
def test_what_is_no_digest_and_size_is_noticed(entry: object) -> None:
    assert not is_wanted(entry)
    assert is_wanted([b"d" * 32, 0])
