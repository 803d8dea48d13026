"""Whatever is exchanged for a link meanwhile, nothing outside is written, read or removed."""

import contextlib
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from dispy.model.errors import DispyError
from dispy.node import placing
from dispy.node.directories import Directories
from dispy.shipping.arriving import ArrivingFile
from dispy.shipping.contents import digest_of
from dispy.shipping.files import Entry
from dispy.shipping.store import Store
from dispy.system.beneath import Beneath, remove_empty, remove_tree

ROUNDS = 60  # turns of the node, while another thread exchanges as fast as it can
CONTENT = b"12345"


class Places:
    """A root, and something precious outside."""

    def __init__(self, directory: Path) -> None:
        self.root, self.outside = directory / "root", directory / "outside"
        (self.root / "a" / "b").mkdir(parents=True)
        (self.outside / "b" / "c").mkdir(parents=True)
        for place in ("x", "b/x", "b/c/x", "b/other"):
            (self.outside / place).write_text("precious")
        self.before = self.state()
        self.beneath = Beneath.of(self.root)

    def state(self) -> dict[str, tuple[int, bytes]]:
        found = {}
        for path in self.outside.rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (stat.S_IMODE(path.stat().st_mode), content)
        return found

    def place(self, entry: Entry, directory: Beneath) -> None:
        source = os.memfd_create("source")
        try:
            os.write(source, CONTENT)
            os.lseek(source, 0, os.SEEK_SET)
            placing.place(directory, entry, source)
        finally:
            os.close(source)

    @contextlib.contextmanager
    def exchanging(self, *places: Path) -> Iterator[None]:
        """Exchange each place for a link to what is outside and back, as fast as can be."""
        ended = threading.Event()
        aside = self.root.parent / "aside"
        aside.mkdir()

        def exchange() -> None:
            for turn in count():
                for number, place in enumerate(places):
                    held = aside / f"{number}-{turn}"
                    for act in (
                        partial(os.rename, place, held),
                        partial(os.symlink, self.outside, place),
                        partial(os.unlink, place),
                        partial(os.rename, held, place),
                    ):
                        with contextlib.suppress(OSError):
                            act()
                if ended.is_set():
                    return

        thread = threading.Thread(target=exchange)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    """Nothing outside may have changed when the test ends."""
    made = Places(tmp_path)
    yield made
    os.close(made.beneath.root)
    assert made.state() == made.before


def make(place: Beneath) -> None:
    with place.opened(make=True):
        pass


def entry(path: str, content: bytes = CONTENT) -> Entry:
    return Entry(path, digest_of(content), len(content), 0o606, 10**18)


def turns(*acts: Callable[[int], object]) -> None:
    """Do all of it often, refused or not, while others exchange."""
    for number in range(ROUNDS):
        for act in acts:
            with contextlib.suppress(DispyError, OSError):
                act(number)


def test_a_directory_exchanged_for_a_link_leads_no_file_astray(places: Places) -> None:
    a = places.beneath.below("a")
    with places.exchanging(places.root / "a", places.root / "a" / "b"):
        turns(
            lambda _: places.place(entry("b/x"), a),
            lambda _: places.place(entry("x"), a),
            lambda _: places.place(Entry("b/c", b"", 0, 0o700, 0), a),
            lambda _: placing.has(a, entry("b/x", b"precious")),
            lambda _: placing.remove(a, "b/x"),
            lambda _: placing.remove(a, "b/c/x", {"b", "b/c"}),
        )


def test_a_tree_is_removed_and_nothing_that_links_in_it_mean(places: Places) -> None:
    with places.exchanging(places.root / "a", places.root / "a" / "b"):
        turns(
            lambda number: make(places.beneath.below("a", "b", str(number))),
            lambda _: places.beneath.below("a", "b").remove(),
            lambda number: make(places.beneath.below("a", "b", str(number))),
            lambda _: places.beneath.below("a").remove(),
            lambda number: make(places.beneath.below("a", "b", str(number))),
            lambda _: remove_empty(places.beneath.root, "a"),
        )


def test_computations_come_and_go_while_jobs_exchange_their_directories(places: Places) -> None:
    root = places.root / "node"
    root.mkdir()
    directories = Directories(root)
    owner, named = root / "owner", root / "clients" / "local" / "b"

    def come_and_go(number: int) -> None:
        wish = {"dest_path": "b/c"} if number % 2 else {}
        opened = directories.open("owner", number % 4, "", wish)
        with contextlib.suppress(DispyError, OSError):
            places.place(entry("x"), opened.place)
        directories.close(opened).carry_out()

    with places.exchanging(owner, root / "going", root / "clients", named):
        turns(come_and_go)
    directories.stop()


def test_a_store_s_files_are_no_way_out(places: Places) -> None:
    store = Store(places.root / "store", quota=12)
    with places.exchanging(store.directory):
        for number in range(ROUNDS):
            data = b"%010d" % number
            arriving = store.begin(digest_of(data), len(data), "data")
            arriving.write(data)
            store.keep(arriving)
            arriving.close_and_clear()
            os.close(store.open(digest_of(data)))
    kept = store.directory / digest_of(data).hex()
    kept.unlink(), kept.symlink_to(places.outside / "x")
    with pytest.raises(OSError, match="symbolic links"):
        store.open(digest_of(data))
    store.close()


def test_files_that_arrive_at_a_client_are_led_nowhere(places: Places) -> None:
    def arrive(number: int) -> None:
        file = ArrivingFile(places.root, "a/b/x", 0o666, 0)
        file.write(CONTENT)
        file.finish() if number % 2 else file.discard()

    with places.exchanging(places.root / "a", places.root / "a" / "b"):
        turns(arrive)


def test_a_tree_goes_whatever_its_depth_links_pipes_and_rights(places: Places) -> None:
    deep = os.open(places.root / "a", os.O_RDONLY)
    for _ in range(100):
        os.mkdir("d", dir_fd=deep)
        inner = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = inner
    os.symlink(places.outside, "link", dir_fd=deep)
    os.mkfifo("pipe", dir_fd=deep)
    os.close(deep)
    (places.root / "a" / "closed" / "in").mkdir(parents=True)
    (places.root / "a" / "closed" / "in" / "file").touch()
    (places.root / "a" / "closed" / "in").chmod(0o500)
    (places.root / "a" / "closed").chmod(0o500)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(places.beneath.root)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 3, limit[1]))
    try:
        remove_tree(places.beneath.root, "a")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert os.listdir(places.root) == []


@pytest.mark.parametrize("name", ["link", "file", "pipe", "missing"])
def test_what_is_no_tree_goes_as_itself(places: Places, name: str) -> None:
    (places.root / "link").symlink_to(places.outside)
    (places.root / "file").touch()
    os.mkfifo(places.root / "pipe")
    remove_tree(places.beneath.root, name)
    assert sorted(os.listdir(places.root)) == sorted({"a", "file", "link", "pipe"} - {name})


def test_a_root_that_is_a_link_is_none(places: Places) -> None:
    (places.root / "link").symlink_to(places.outside)
    with pytest.raises(OSError, match="link"):
        Beneath.of(places.root / "link")
