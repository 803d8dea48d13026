"""What cannot be sent is named: which argument, and the path inside it."""

import functools
import logging
import socket
import threading
from collections import namedtuple

import pytest

from dispy.shipping.bundle import make_bundle
from dispy.shipping.payloads import CannotPack, pack, pack_call

LOCK = threading.Lock()
Pair = namedtuple("Pair", "left right")


class Layer:
    def __init__(self, content: object) -> None:
        self.content = content


class Slotted:
    __slots__ = ("gate",)

    def __init__(self, gate: object) -> None:
        self.gate = gate


class Dropping:
    def __init__(self) -> None:
        self.lock, self.kept = LOCK, [LOCK]

    def __getstate__(self) -> dict:
        return {"kept": self.kept}


def deep(levels: int) -> object:
    value: object = LOCK
    for _ in range(levels):
        value = [value]
    return value


ring: list = [1]
ring.append({"again": ring, "lock": LOCK})


def closure() -> object:
    lock = LOCK
    return lambda: lock


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (LOCK, "it is a lock"),
        ({"model": Layer([1, 2, Layer(LOCK)])}, "['model'].content[2].content is a lock"),
        (Slotted(LOCK), ".gate is a lock"),
        (Dropping(), ".kept[0] is a lock"),
        (Pair(1, (LOCK,)), ".right[0] is a lock"),
        ({(1, 2): {LOCK}}, f"[(1, 2)] (its element {LOCK!r})"[:30]),
        (ring, "[1]['lock'] is a lock"),
        (deep(20), "[0]" * 20 + " is a lock"),
        (functools.partial(len, LOCK), ".args[0] is a lock"),
        (closure(), "its variable 'lock' is a lock"),
        (Layer(closure()), ".content with its variable 'lock' is a lock"),
        ([n for n in (1, 2)], None),
        ([1, (n for n in (1, 2))], "[1] is a generator that runs"),
        ([socket.socketpair], None),
        (Layer(threading.Thread), None),
    ],
)
def test_the_path_to_what_cannot_be_sent_is_told(value: object, told: str | None) -> None:
    if told is None:
        pack(value, "argument 2 of compute")
        return
    with pytest.raises(CannotPack) as raised:
        pack(value, "argument 2 of compute")
    start = "argument 2 of compute cannot be sent to another process: "
    assert str(raised.value).startswith(start + told), raised.value


def test_the_keyword_argument_is_told_and_what_in_it() -> None:
    with pytest.raises(CannotPack, match=r"argument 'at' of compute .*: \['x'\] is a lock"):
        pack_call("compute", (1,), {"at": {"x": LOCK}})


class Explodes:
    def __reduce__(self) -> str:
        raise ValueError("not now")


def test_an_object_that_refuses_to_be_pickled_is_named_with_what_it_says() -> None:
    with pytest.raises(CannotPack, match=r"\[0\]\.content is a .*Explodes \(not now\)"):
        pack([Layer(Explodes())], "it")


PROGRAM = """
import threading
lock = threading.Lock()
settings = {"a": [1, lock]}
def helper(): return settings
def compute(): return helper()
"""


def test_what_a_computation_refers_to_is_told_by_its_name() -> None:
    names: dict = {"__name__": "__main__"}
    exec(PROGRAM, names)
    with pytest.raises(CannotPack) as raised:
        make_bundle("compute", {"computation": names["compute"]})
    assert "its global 'helper' with its global 'settings'['a'][1] is a lock" in str(raised.value)


def test_a_wide_value_is_searched_in_bounds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wide = [Layer(n) for n in range(30_000)]
    with pytest.raises(CannotPack, match="it is a list"):
        pack([*wide, LOCK], "argument 1 of compute")
