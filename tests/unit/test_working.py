"""A computation's files on a node: who brought them, who waits, and what goes when."""

import os
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.event import AsyncResult
from test_fetching import DEADLINE, Sides

from dispy.model.errors import DispyError
from dispy.node.directories import Directories
from dispy.node.needs import JobNeeds
from dispy.node.working import ALL_JOBS, WorkingFiles
from dispy.shipping.contents import PIECE_SIZE, Content
from dispy.shipping.files import LINK, Entry


@pytest.fixture
def sides(tmp_path: Path) -> Iterator[Sides]:
    made = Sides(tmp_path / "store")
    made.connect()
    yield made
    made.fetching.close()
    if made.link is not None:
        made.link.close()
    gevent.sleep(0)


class Work:
    """One computation's directory."""

    def __init__(self, sides: Sides, root: Path) -> None:
        root.mkdir(exist_ok=True)
        self.sides, self.directories = sides, Directories(root)
        self.directory = self.directories.open("owner", 1, "", {})
        self.files = WorkingFiles(
            self.directory, self.directories, sides.fetching, sides.store, "n1"
        )

    def entry(self, path: str, text: bytes) -> Entry:
        content = Content.of_memory(text)
        self.sides.add(content)
        return Entry(path, content.digest, content.size, 0o644, 10**18)

    def bring(self, user: object, *entries: Entry) -> "AsyncResult[str | None]":
        result: AsyncResult[str | None] = AsyncResult()
        self.files.bring(entries, user, result.set)
        return result

    def names(self) -> list[str]:
        found: list[str] = []
        for top, directories, files in os.walk(self.directory.path):  # which may go meanwhile
            found += [
                os.path.relpath(f"{top}/{name}", self.directory.path)
                for name in (*directories, *files)
            ]
        return sorted(found)

    def settle(self, names: list[str]) -> None:
        with gevent.Timeout(DEADLINE, AssertionError(f"{self.names()} did not become {names}")):
            while self.names() != names:
                gevent.sleep(0.001)


@pytest.fixture
def work(sides: Sides, tmp_path: Path) -> Work:
    return Work(sides, tmp_path / "root")


def test_a_file_goes_with_its_last_user_and_directories_made_for_it_too(work: Work) -> None:
    shared, own = work.entry("in/deep/one", b"one"), work.entry("two", b"two")
    link = Entry("one", b"in/deep/one", 0, LINK, 0)
    for user in (1, 2):
        assert work.bring(user, shared, own, link).get(timeout=DEADLINE) is None
    assert work.names() == ["in", "in/deep", "in/deep/one", "one", "two"]
    assert (work.directory.path / "one").read_bytes() == b"one"
    work.files.leave(1)
    work.files.leave(1)
    gevent.sleep(0.01)
    assert work.names() == ["in", "in/deep", "in/deep/one", "one", "two"]
    work.files.leave(2)
    work.settle([])


def test_directories_of_the_computation_stay_when_a_job_s_file_goes(work: Work) -> None:
    empty = Entry("out", b"", 0, 0o755, 10**18)
    assert work.bring(ALL_JOBS, empty).get(timeout=DEADLINE) is None
    assert work.bring(1, work.entry("out/x", b"x")).get(timeout=DEADLINE) is None
    work.files.leave(1)
    work.settle(["out"])


def test_another_file_of_the_same_name_waits_for_its_turn(work: Work) -> None:
    first, second = work.entry("input", b"first"), work.entry("input", b"second")
    assert work.bring(1, first).get(timeout=DEADLINE) is None
    waiting, third = work.bring(2, second), work.bring(3, second)
    gevent.sleep(0.02)
    assert not waiting.ready()
    assert (work.directory.path / "input").read_bytes() == b"first"
    work.files.leave(1)
    assert waiting.get(timeout=DEADLINE) is None
    assert third.get(timeout=DEADLINE) is None
    assert (work.directory.path / "input").read_bytes() == b"second"


def test_links_of_one_name_hold_nobody_up(work: Work) -> None:
    for user, place in ((1, "a/x"), (2, "b/x")):
        link = Entry("x", place.encode(), 0, LINK, 0)
        brought = work.bring(user, work.entry(place, place.encode()), link)
        assert brought.get(timeout=DEADLINE) is None
    assert (work.directory.path / "x").read_bytes() == b"a/x"
    work.files.leave(1)
    work.settle(["b", "b/x"])


def test_who_leaves_while_its_files_come_or_wait_leaves_nothing_and_may_come_again(
    work: Work,
) -> None:
    big = work.entry("big", bytes(30 * PIECE_SIZE))
    coming = work.bring(1, big)
    while work.sides.fetching.fetched_bytes < PIECE_SIZE:
        gevent.sleep(0.001)
    work.files.leave(1)
    again = work.bring(1, work.entry("small", b"small"))
    assert coming.get(timeout=DEADLINE) is not None
    assert again.get(timeout=DEADLINE) is None
    assert work.names() == ["small"]
    waiting = work.bring(2, work.entry("small", b"another"))
    gevent.sleep(0.02)
    work.files.leave(2)
    assert waiting.get(timeout=DEADLINE) is not None
    work.files.leave(1)
    work.settle([])


def test_what_is_closed_ends_whoever_waits_and_goes_whole(work: Work) -> None:
    assert work.bring(ALL_JOBS, work.entry("a", b"a")).get(timeout=DEADLINE) is None
    coming = work.bring(1, work.entry("big", bytes(30 * PIECE_SIZE)))
    work.files.clear()
    assert coming.get(timeout=DEADLINE) is not None
    assert not work.directory.path.exists()


def test_a_job_starts_when_all_its_needs_are_there_and_lets_them_go(work: Work) -> None:
    told: list[object] = []
    store = work.sides.store
    needs = JobNeeds(
        work.sides.fetching, store, work.files, 10,
        ready=lambda job: told.append(job), failed=lambda job, why: told.append((job, why)),
    )  # fmt: skip
    value, file = Content.of_memory(b"value" * PIECE_SIZE), work.entry("f", b"file")
    wanted = list(work.sides.add(value))
    entry = [file.path, file.digest, file.size, file.mode, file.mtime]
    options = {
        1: {"needs": [wanted], "files": [entry]},
        2: {"needs": [wanted]},
        3: {"nice": 5},
        4: {"needs": [[b"short", 1]]},
        5: {"files": [["../f", *entry[1:]]]},
        6: {"files": [["f", file.digest, 11, 0o644, 0]]},
    }
    lacking = needs.lacking(options)
    assert lacking == [1, 2, 4, 5, 6]
    needs.fetch(lacking)
    with gevent.Timeout(DEADLINE):
        while len(told) < 5:
            gevent.sleep(0.001)
    assert {1, 2} <= {job for job in told if isinstance(job, int)}
    failed = dict(entry for entry in told if isinstance(entry, tuple))
    assert "not a list" in failed[4]
    assert "would leave the directory" in failed[5]
    assert "takes at most 10" in failed[6]
    assert needs.lacking({7: {"needs": [wanted]}}) == [], "what is there is not waited for"
    store.quota = 0
    for job in (1, 2):
        needs.forget(job)
    assert store.path(value.digest) is not None
    needs.close()
    assert store.path(value.digest) is None
    work.settle([])


# -- directories


def test_directories_stay_and_go_as_their_clusters_say(tmp_path: Path) -> None:
    directories = Directories(tmp_path)
    names = [entry.path for entry in [Entry("a", b"", 0, 0, 0)]]
    first = directories.open("o", 1, "10.0.0.1", {"dest_path": "x/y"})
    second = directories.open("o", 2, "10.0.0.1", {"dest_path": "x/y", "cleanup": False})
    assert first.path == second.path == tmp_path / "clients" / "10.0.0.1" / "x" / "y"
    assert first.is_fresh
    assert not second.is_fresh
    (first.path / "a").write_text("a")
    directories.brought(first, Entry(names[0], b"d", 0, 0, 0), was_there=False)
    directories.close(second).carry_out()
    directories.close(first).carry_out()
    assert first.path.exists()
    assert not (first.path / "a").exists()
    outer = directories.open("o", 3, "10.0.0.1", {"dest_path": "z"})
    inner = directories.open("o", 4, "10.0.0.1", {"dest_path": "z/inner"})
    directories.close(outer).carry_out()
    assert inner.path.exists()
    directories.close(inner).carry_out()
    assert not inner.path.exists()
    other = directories.open("o", 5, "::1", {"dest_path": "x/y"})
    assert other.path == tmp_path / "clients" / "__1" / "x" / "y"


def test_an_owners_directory_goes_with_the_last_of_its_computations(tmp_path: Path) -> None:
    directories = Directories(tmp_path)
    first, second = directories.open("owner", 1, "", {}), directories.open("owner", 2, "", {})
    assert first.path.parent == second.path.parent
    directories.close(first).carry_out()
    assert second.path.exists()
    directories.close(second).carry_out()
    assert os.listdir(tmp_path) == ["going"]
    assert directories.open("owner", 3, "", {}).path.exists()


def test_the_node_s_end_leaves_what_stays_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    directories = Directories(root)
    directories.open("owner", 1, "", {})
    kept = directories.open("owner", 2, "", {"cleanup": False})
    (kept.path / "result").write_text("x")
    directories.open("owner", 3, "", {"dest_path": "empty"})
    directories.stop()
    assert [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()] == [
        f"clients/local/{kept.path.name}/result"
    ]
    (kept.path / "result").unlink()
    Directories(root).stop()
    assert not root.exists()


@pytest.mark.parametrize("dest_path", [7, "", "..", "a/../..", "/etc", "a\0b", "a//b", b"a"])
def test_a_hostile_dest_path_is_refused(tmp_path: Path, dest_path: object) -> None:
    with pytest.raises(DispyError, match="dest_path .* is refused"):
        Directories(tmp_path).open("o", 1, "", {"dest_path": dest_path})
    assert list(tmp_path.iterdir()) == []


def test_a_dest_path_through_a_link_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    (root / "clients" / "local").mkdir(parents=True)
    (root / "clients" / "local" / "way").symlink_to(outside)
    for dest_path in ("way", "way/out"):
        with pytest.raises(DispyError, match="might lead out of the directory"):
            Directories(root).open("o", 1, "", {"dest_path": dest_path})
    assert list(outside.iterdir()) == []
