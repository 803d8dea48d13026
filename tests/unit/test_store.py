"""A node's store keeps what is in use, and of the rest what was used last."""

import errno
import os
from pathlib import Path

import pytest

from dispy.node.store import NoRoom, Store, default_quota, room_error
from dispy.shipping.contents import digest_of


def put(store: Store, data: bytes) -> bytes:
    arriving = store.begin(digest_of(data), len(data), "some data")
    arriving.write(data)
    assert arriving.is_right
    store.keep(arriving)
    arriving.close_and_clear()
    return digest_of(data)


def there(store: Store, *digests: bytes) -> list[bool]:
    return [(store.directory / digest.hex()).exists() for digest in digests]


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", quota=25)
    a, b = put(store, b"a" * 10), put(store, b"b" * 10)
    assert store.path(a) is not None
    c = put(store, b"c" * 10)
    assert there(store, a, b, c) == [True, False, True]
    assert store.path(b) is None
    assert store.used == 20


def test_what_is_in_use_never_goes_and_goes_when_it_is_too_much_afterwards(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", quota=15)
    a = digest_of(b"a" * 10)
    store.hold(a, "one")
    store.hold(a, "two")
    put(store, b"a" * 10)
    b = put(store, b"b" * 10)
    assert there(store, a, b) == [True, False]
    store.hold(b, "three")
    put(store, b"b" * 10)
    assert there(store, a, b) == [True, True]
    store.release(a, "one")
    assert there(store, a, b) == [True, True]
    store.release(a, "two")
    assert there(store, a, b) == [False, True]
    store.release(a, "two")


def test_what_came_twice_counts_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", quota=100)
    put(store, b"a" * 10)
    put(store, b"a" * 10)
    assert store.used == 10


def test_what_is_not_whole_or_not_right_is_not_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", quota=100)
    arriving = store.begin(digest_of(b"right"), 5, "some data")
    arriving.write(b"wrong")
    assert not arriving.is_right
    arriving.close_and_clear()
    assert store.path(digest_of(b"right")) is None
    assert list(store.directory.iterdir()) == []


def test_a_store_begins_empty_whatever_a_killed_node_left(tmp_path: Path) -> None:
    put(Store(tmp_path / "store", 100), b"old")
    store = Store(tmp_path / "store", 100)
    assert list(store.directory.iterdir()) == []


def test_a_file_larger_than_the_disk_is_refused_before_a_byte_is_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", quota=100)
    with pytest.raises(NoRoom, match=r"no room for big\.bin of .* bytes: [\d,]+ bytes are free in"):
        store.begin(b"x" * 32, 1 << 60, "big.bin")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no room for f of 7 bytes: .* bytes are free"),
        (errno.EDQUOT, "quota of the node's user is used up"),
        (errno.EFBIG, "limit on the size of its files"),
        (errno.EIO, "f cannot be written there: Input/output error"),
    ],
)
def test_a_disk_s_refusal_is_told_in_words(tmp_path: Path, number: int, words: str) -> None:
    error = OSError(number, os.strerror(number))
    with pytest.raises(NoRoom, match=words):
        raise room_error("f", 7, tmp_path, error)


def test_the_quota_is_a_part_of_the_disk_where_nobody_says_one(tmp_path: Path) -> None:
    assert 0 < default_quota(tmp_path) <= 10 * 1024**3
