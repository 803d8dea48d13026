"""A store keeps what is in use, and of the rest what was used last."""

import errno
import os
from pathlib import Path

import pytest

from dispy.model.accounts import Account
from dispy.shipping.contents import digest_of
from dispy.shipping.store import NoRoom, Store, default_quota, room_error


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
        (errno.EDQUOT, "quota of this process's user is used up"),
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


def test_what_an_earlier_process_has_left_whole_is_taken_over_and_counted(tmp_path: Path) -> None:
    before = Store(tmp_path / "store", quota=0)
    for data in (b"a" * 10, b"b" * 20):
        before.hold(digest_of(data), "one")
    a, b = put(before, b"a" * 10), put(before, b"b" * 20)
    half = before.begin(digest_of(b"c"), 1, "half of it")
    before.close()
    store = Store(tmp_path / "store", quota=25, begins_empty=False)
    assert (store.size(a), store.size(b), store.used) == (10, 20, 30)
    assert {path.name for path in store.directory.iterdir()} == {a.hex(), b.hex()}
    half.close_and_clear()
    account = Account(0, "some limit")
    store.hold(a, "one")
    store.charge(a, account)
    store.charge(a, Account(0, "of another who needs it"))
    assert account.held == 10
    put(store, b"d")
    assert there(store, a, b) == [True, False]
    store.release(a, "one")
