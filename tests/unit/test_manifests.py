"""Where files lie on a node: the same place wherever the client stands, and never outside."""

import contextlib
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispy.model.errors import DispyError
from dispy.node import placing
from dispy.protocol.frames import encode_head
from dispy.scheduler.columns import send_jobs
from dispy.shipping import files
from dispy.shipping.contents import digest_of
from dispy.shipping.files import LINK, Entry, check, manifest, why_not_inside
from dispy.shipping.store import NoRoom
from dispy.system.beneath import Beneath, PlaceRefused


def write(path: Path, text: str = "", mode: int = 0o644) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or path.name)
    path.chmod(mode)
    return str(path)


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def places(paths: list[str | os.PathLike[str]]) -> list[str]:
    return sorted(entry[0] for entry in manifest(paths)[0] if entry[3] != LINK)


def links(paths: list[str | os.PathLike[str]]) -> dict[str, str]:
    return {entry[0]: entry[1].decode() for entry in manifest(paths)[0] if entry[3] == LINK}


def test_below_the_current_directory_paths_stay_and_elsewhere_base_names_are_taken(
    cwd: Path, tmp_path: Path
) -> None:
    write(cwd / "a"), write(cwd / "sub" / "b"), write(tmp_path / "else" / "c")
    assert places(["a", "sub/b", cwd / "a", "../else/c"]) == ["a", "c", "sub/b"]
    assert places(["./sub/../a"]) == ["a"]


def test_a_directory_s_tree_goes_along_without_what_python_makes_anew(
    cwd: Path, tmp_path: Path
) -> None:
    for path in ("pkg/__init__.py", "pkg/__pycache__/x.pyc", "pkg/inner/m.py"):
        write(cwd / path), write(tmp_path / "else" / path)
    (cwd / "pkg" / "empty").mkdir()
    expected = ["pkg/__init__.py", "pkg/inner/m.py"]
    assert places(["pkg"]) == ["pkg/__init__.py", "pkg/empty", "pkg/inner/m.py"]
    assert places(["../else/pkg"]) == places(["../else/pkg/"]) == expected
    assert places(["."]) == ["pkg/__init__.py", "pkg/empty", "pkg/inner/m.py"]


def test_a_file_below_is_reachable_by_its_base_name_unless_that_is_taken(cwd: Path) -> None:
    for path in ("x/one", "x/two", "two", "x/three", "y/three", "dir/in", "z/dir"):
        write(cwd / path)
    assert links(["x/one"]) == {"one": "x/one"}
    assert links(["x/two", "two"]) == {}
    assert links(["x/three", "y/three"]) == {}
    assert links(["dir", "z/dir"]) == {}
    assert links(["x"]) == {}


def test_modes_and_times_go_along(cwd: Path) -> None:
    path = write(cwd / "tool", mode=0o751)
    os.utime(path, ns=(5, 1_600_000_000_123_456_789))
    (entry,), (content,) = manifest(["tool"])
    assert entry == ["tool", digest_of(b"tool"), 4, 0o751, 1_600_000_000_123_456_789]
    assert content.digest == entry[1]
    os.chmod(path, 0o4755)
    assert manifest(["tool"])[0][0][3] == 0o755, "a node must not make it run as somebody else"


def test_links_are_followed_and_loops_are_named(cwd: Path, tmp_path: Path) -> None:
    write(tmp_path / "else" / "real"), write(cwd / "d" / "f")
    os.symlink(tmp_path / "else" / "real", cwd / "d" / "link")
    os.symlink(tmp_path / "else", cwd / "d" / "tree")
    assert places(["d"]) == ["d/f", "d/link", "d/tree/real"]
    os.symlink(cwd / "d", cwd / "d" / "again")
    with pytest.raises(DispyError, match="d/again' leads back to a directory above it"):
        manifest(["d"])


def test_a_current_directory_reached_by_a_link_is_the_same(cwd: Path, tmp_path: Path) -> None:
    write(cwd / "sub" / "a")
    os.symlink(cwd, tmp_path / "alias")
    assert places([tmp_path / "alias" / "sub" / "a"]) == ["sub/a"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing", r"there is no file 'missing' in /.*here"),
        ("pipe", "'pipe' is neither a file nor a directory"),
        ("bad/\udcff", "is not text"),
        ("dangling", "there is no file 'dangling'"),
    ],
)
def test_what_cannot_be_sent_is_named_at_once(cwd: Path, path: str, words: str) -> None:
    os.mkfifo(cwd / "pipe")
    os.symlink("nowhere", cwd / "dangling")
    write(cwd / "bad" / "\udcff", "text")
    with pytest.raises(DispyError, match=words):
        manifest([path])


@contextlib.contextmanager
def as_nobody(directory: Path) -> Iterator[None]:
    """Be a user who may not read everything, where this is root; the way to `directory` is free."""
    if os.geteuid() != 0:
        yield
        return
    closed = [place for place in directory.parents if not place.stat().st_mode & 0o001]
    for place in closed:
        place.chmod(place.stat().st_mode | 0o001)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for place in closed:
            place.chmod(place.stat().st_mode & ~0o001)


def test_a_file_that_may_not_be_read_is_named(cwd: Path) -> None:
    write(cwd / "secret", mode=0)
    with (
        as_nobody(cwd),
        pytest.raises(DispyError, match="'secret' cannot be read: Permission denied"),
    ):
        manifest(["secret"])


def test_two_files_at_one_place_are_named_and_one_twice_is_fine(cwd: Path, tmp_path: Path) -> None:
    write(cwd / "a", "one"), write(tmp_path / "else" / "a", "two"), write(tmp_path / "b" / "a", "1")
    assert places(["a", "a", cwd / "a"]) == ["a"]
    with pytest.raises(DispyError, match="'a' and '../else/a' would both be 'a' on the nodes"):
        manifest(["a", "../else/a"])
    write(tmp_path / "b" / "d"), write(cwd / "d" / "x")
    with pytest.raises(DispyError, match="would be the file 'd' on the nodes, and"):
        manifest(["../b/d", "d"])


def test_more_files_than_a_message_bears_are_refused(
    cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ENTRIES_LIMIT", 3)
    for n in range(4):
        write(cwd / "many" / str(n))
    with pytest.raises(DispyError, match="these are 4 files; at most 3 .* Pack them"):
        manifest(["many"])


class Recorder:
    """Stands at the end of a scheduler's columns: takes frames as a link does."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.jobs: list[int] = []

    def send(self, kind: int, body: list, buffers: list) -> None:
        self.sizes.append(len(encode_head(kind, body, buffers)))
        self.jobs += body[1]
        assert len(body[1]) == len(body[2])
        assert all(0 <= at < len(body[1]) for at, _ in body[3])


def test_jobs_with_many_files_each_go_in_messages_of_bounded_size() -> None:
    entries = [[f"{n:0200}", b"d" * 32, 0, 0o644, 1 << 60] for n in range(6000)]
    options = {job: {"files": entries} for job in range(20)}
    options |= {job: {"files": entries[:1]} for job in range(20, 1000)}
    link = Recorder()
    send_jobs(link, 1, range(1200), [b"x"] * 1200, options)  # type: ignore[arg-type]
    assert link.jobs == list(range(1200))
    assert 20 < len(link.sizes) < 30
    assert max(link.sizes) < 2 * 1024 * 1024


# -- what a node believes

FILE = ["a/b", b"d" * 32, 5, 0o644, 1]


def changed(**parts: object) -> list[object]:
    names = ("path", "digest", "size", "mode", "mtime")
    return [parts.get(name, value) for name, value in zip(names, FILE, strict=True)]


def test_a_manifest_of_ours_passes_and_survives_the_wire(cwd: Path) -> None:
    write(cwd / "sub" / "a"), (cwd / "sub" / "empty").mkdir()
    entries = msgpack.unpackb(msgpack.packb(manifest(["sub/a", "sub/empty"])[0]))
    checked = {entry.path: entry for entry in check(entries)}
    assert checked["sub/a"].is_file
    assert checked["sub/empty"].is_directory
    assert checked["a"].is_link


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (None, "none"), ({}, "none"), ([None], "none"), ([[]], "none"), ([FILE, FILE], "twice"),
        ([changed(path="/etc/passwd")], "absolute"), ([changed(path="../x")], "would leave"),
        ([changed(path="a/../../x")], "would leave"), ([changed(path="")], "no path"),
        ([changed(path="a//b")], "no path"), ([changed(path="a\0b")], "no path"),
        ([changed(path="a/.")], "no path"), ([changed(path="x" * 256)], "too long"),
        ([changed(path="x/" * 2500 + "x")], "too long"), ([changed(path=b"a")], "none"),
        ([changed(digest=b"short")], "not described"), ([changed(size=-1)], "not described"),
        ([changed(size=1 << 63)], "not described"), ([changed(mode=0o4755)], "not described"),
        ([changed(mode=stat.S_IFCHR)], "not described"), ([changed(mtime=1 << 63)], "not desc"),
        ([changed(size=True)], "none"),
        ([changed(mode=LINK, digest=b"nothing")], "another name for nothing"),
        ([FILE, changed(path="l/m", mode=LINK, digest=b"a/b")], "another name for nothing"),
        ([changed(path="l", mode=LINK, digest=b"/etc/passwd")], "another name for nothing"),
        ([changed(path="l", mode=LINK, digest=b"\xff")], "another name for nothing"),
        ([changed(size=11)], r"has 11 bytes, and this node takes at most 10 \(its max_file_size"),
    ],
)  # fmt: skip
def test_a_hostile_manifest_is_refused_in_words(entries: object, words: str) -> None:
    with pytest.raises(DispyError, match=words):
        check(entries, size_limit=10)


@given(st.text(alphabet="ab./\\\0 ~", max_size=12) | st.text(max_size=300))
def test_any_path_lies_inside_or_is_refused(path: str) -> None:
    try:
        (entry,) = check([changed(path=path)])
    except DispyError:
        return
    joined = os.path.normpath(os.path.join("/place/dir", entry.path))
    assert joined.startswith("/place/dir/")
    assert why_not_inside(path) is None


# -- on the node's disk


@pytest.fixture
def source(tmp_path: Path) -> Iterator["Source"]:
    made = Source(tmp_path / "source")
    yield made
    made.close()


class Source:
    """A file of the store, and a directory to place it in."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(b"12345")
        self.path, self._opened = path, [os.open(path, os.O_RDONLY)]

    def below(self, root: Path) -> Beneath:
        made = Beneath.of(root)
        self._opened.append(made.root)
        return made

    def place(self, root: Path, entry: Entry) -> list[str]:
        os.lseek(self._opened[0], 0, os.SEEK_SET)
        return placing.place(self.below(root), entry, self._opened[0])

    def has(self, root: Path, entry: Entry) -> bool:
        return placing.has(self.below(root), entry)

    def remove(self, root: Path, path: str, made: Collection[str] = ()) -> None:
        placing.remove(self.below(root), path, made)

    def close(self) -> None:
        for descriptor in self._opened:
            os.close(descriptor)


def entry(path: str, mode: int = 0o644) -> Entry:
    return Entry(path, digest_of(b"12345"), 5, mode, 1_600_000_000_123_456_789)


def test_a_file_is_placed_with_its_mode_and_time_and_may_be_written(
    tmp_path: Path, source: Source
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert source.place(root, entry("a/b/tool", 0o750)) == ["a", "a/b"]
    placed = root / "a" / "b" / "tool"
    status = placed.stat()
    assert placed.read_bytes() == b"12345"
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o750, entry("x").mtime)
    placed.write_bytes(b"changed by a job")
    assert source.path.read_bytes() == b"12345"
    assert not source.has(root, entry("a/b/tool"))
    assert source.place(root, entry("a/b/tool")) == []
    assert source.has(root, entry("a/b/tool", 0o600))
    assert stat.S_IMODE(placed.stat().st_mode) == 0o600
    source.remove(root, "a/b/tool", {"a", "a/b"})
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("path", ["out/x", "a/out/x", "out/deep/x"])
def test_nothing_is_placed_or_removed_through_a_link(
    tmp_path: Path, source: Source, path: str
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "a").mkdir(parents=True), outside.mkdir(), (outside / "deep").mkdir()
    for link in (root / "out", root / "a" / "out"):
        os.symlink(outside, link)
    with pytest.raises(PlaceRefused, match="is a symbolic link or a file, which might lead out"):
        source.place(root, entry(path))
    assert sorted(p.name for p in outside.rglob("*")) == ["deep"]
    write(outside / "x"), write(outside / "deep" / "x")
    source.remove(root, path, {"out", "a/out", "out/deep"})
    assert not source.has(root, entry(path))
    assert (outside / "x").exists()
    assert (outside / "deep" / "x").exists()


def test_a_link_where_a_file_belongs_is_replaced_and_not_followed(
    tmp_path: Path, source: Source
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.write_text("precious")
    os.symlink(outside, root / "x")
    assert not source.has(root, entry("x"))
    source.place(root, entry("x"))
    assert outside.read_text() == "precious"
    assert not (root / "x").is_symlink()


def test_a_directory_in_the_way_stays_and_no_half_file_is_left(
    tmp_path: Path, source: Source
) -> None:
    (tmp_path / "root" / "x" / "y").mkdir(parents=True)
    with pytest.raises(PlaceRefused, match="'x' is a directory there"):
        source.place(tmp_path / "root", entry("x"))
    assert [p.name for p in (tmp_path / "root").iterdir()] == ["x"]


def test_a_file_with_another_name_outside_is_replaced_and_keeps_its_mode(
    tmp_path: Path, source: Source
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir(), outside.write_bytes(b"12345"), outside.chmod(0o640)
    os.link(outside, root / "x")
    assert not source.has(root, entry("x", 0o666))
    source.place(root, entry("x", 0o666))
    assert stat.S_IMODE(outside.stat().st_mode) == 0o640


def test_a_copy_that_does_not_fit_leaves_nothing(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(NoRoom, match="no room for file 'x' of 5 bytes"):
        source.place(tmp_path, entry("x"))
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_where_the_kernel_cannot_copy_we_do(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*arguments: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", cannot)
    source.place(tmp_path, entry("x"))
    assert (tmp_path / "x").read_bytes() == b"12345"
