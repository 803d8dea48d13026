"""What is sent by content, and what as ever: decided by what was an argument before."""

import pickle

import pytest

from dispy.client.contents import Contents
from dispy.client.putting import REPEATED_LEAST, REPEATED_MOST, LargeArguments
from dispy.protocol.messages import Bulk
from dispy.shipping import stored
from dispy.shipping.contents import Content
from dispy.shipping.payloads import pack_call, unpack

SIZE = REPEATED_LEAST + 5


class Rig:
    """A session as far as arguments need one; `call` packs a call, as `submit` does."""

    def __init__(self, store) -> None:
        self.jobs: dict[int, object] = {}
        self.contents = Contents()
        self.large = LargeArguments(self)
        self.store, self.number = store, 0

    def call(self, value: object, far: bool = False) -> tuple[object, list[Content]]:
        self.number += 1
        self.jobs[self.number] = value
        payload = pack_call("f", (value, "x"), {})
        if not isinstance(payload, Bulk):
            return payload, []
        payload, contents = self.large.refer(payload, self.number, far)
        self.contents.hold_for(self.number, contents)
        return payload, contents

    def end(self) -> None:
        """Make all jobs final."""
        for number in self.jobs:
            self.contents.release_for(number)
        self.jobs.clear()

    def unpack(self, payload, contents: list[Content]) -> object:
        for content in contents:
            (self.store / content.digest.hex()).write_bytes(content.read(0, content.size))
        (value, _), _ = unpack(payload)
        return value


@pytest.fixture
def rig(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(stored, "_directory", str(tmp_path))
    return Rig(tmp_path)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_what_comes_again_while_it_is_in_use_goes_by_content(rig: Rig, kind: type) -> None:
    data = kind(b"a" * SIZE)
    assert rig.call(data)[1] == []
    payload, contents = rig.call(data)
    assert [content.size for content in contents] == [SIZE]
    assert isinstance(payload, bytes)
    assert len(payload) < 500
    assert rig.call(data)[1] == contents, "hashed, and held, once"
    assert rig.unpack(payload, contents) == data


def test_one_call_after_the_other_goes_by_content_only_to_other_machines(rig: Rig) -> None:
    data = b"a" * SIZE
    for far in (False, True):
        rig.call(data, far)
        rig.end()
        assert bool(rig.call(data, far)[1]) is far
        rig.end()


def test_what_was_changed_is_another_content(rig: Rig) -> None:
    data = bytearray(b"a" * SIZE)
    rig.call(data)
    calls = []
    for byte in b"bcd":
        data[-1] = byte
        calls.append(rig.call(data))
    data[:] = bytes(SIZE)
    for byte, (payload, contents) in zip(b"bcd", calls, strict=True):
        assert rig.unpack(payload, contents) == b"a" * (SIZE - 1) + bytes([byte])


def test_another_object_at_the_same_place_is_never_taken_for_the_first(rig: Rig) -> None:
    for byte in range(20):
        data = bytes([byte]) * SIZE
        rig.call(data)
        payload, contents = rig.call(data)
        assert rig.unpack(payload, contents) == data
        rig.end()
        del data, payload, contents  # its place is free for the next one


def test_contents_are_let_go_with_the_last_job(rig: Rig) -> None:
    data = b"a" * SIZE
    rig.call(data)
    digest = rig.call(data)[1][0].digest
    assert rig.contents.get(digest) is not None
    rig.end()
    assert rig.contents.get(digest) is None


@pytest.mark.parametrize("size", [REPEATED_LEAST - 1, REPEATED_MOST + 1])
def test_small_and_huge_ones_go_as_ever(rig: Rig, size: int) -> None:
    data = bytes(size)
    rig.call(data)
    assert rig.call(data)[1] == []


def test_rebuilt_objects_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "KEPT_BYTES", 1000)
    monkeypatch.setattr(stored, "_objects", type(stored._objects)())
    for number in range(5):
        stored.rebuild_once(bytes([number]), pickle.dumps(list(range(300)), 5), [])
    assert list(stored._objects) == [bytes([4])]
