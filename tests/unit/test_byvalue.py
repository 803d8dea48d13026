"""Code of another Python is never loaded; what comes with its source text is built from that."""

import pickle
import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from dispy.protocol.messages import Bulk
from dispy.shipping import byvalue
from dispy.shipping.bundle import make_bundle, read_bundle
from dispy.shipping.payloads import CHUNK, pack, pack_items, unpack
from dispy.shipping.translating import (
    CannotTranslate,
    expect_others,
    refusal,
    translate,
    translate_if_possible,
)

OTHER = "cpython 2.0"

PROGRAM = """
import dataclasses, enum, sys
from typing import NamedTuple
from dispy.shipping.payloads import pack
from dispy.shipping.translating import translate

@dataclasses.dataclass(order=True)
class Point:
    x: int
    y: list = dataclasses.field(default_factory=list)
    def __hash__(self): return self.x

class Pair(NamedTuple):
    a: int
    b: int = 2
    def sum(self): return self.a + self.b

class Color(enum.Enum):
    RED = 1
    def __init__(self, value): self.twice = value * 2
    def tell(self): return self.name, self.twice

class Slotted:
    __slots__ = "__value", "other"
    def __init__(self): self.__value = 5
    def read(self): return self.__value

everything = Point(1), Pair(3), Color.RED, Slotted(), lambda p: p.x + 1
sys.stdout.buffer.write(eval(sys.argv[1]))
"""


def packed_by_a_program(tmp_path: Path, expression: str) -> bytes:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    command = [sys.executable, str(path), expression]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.fixture
def be_other(monkeypatch: pytest.MonkeyPatch):
    """Have this process take itself for another Python."""
    return lambda: monkeypatch.setattr(byvalue, "OWN_PYTHON", OTHER)


def check(everything) -> None:
    point, pair, color, slotted, function = everything
    assert (point, point < type(point)(2), hash(point)) == (type(point)(1, []), True, 1)
    assert (repr(point), type(point).__match_args__) == ("Point(x=1, y=[])", ("x", "y"))
    assert (pair.sum(), pair._replace(b=5).sum(), repr(pair)) == (5, 8, "Pair(a=3, b=2)")
    assert (color.tell(), type(color)(1) is color) == (("RED", 2), True)
    assert (slotted.read(), hasattr(slotted, "__dict__")) == (5, False)
    assert function(point) == 2


def test_what_our_own_python_packed_comes_back(tmp_path: Path) -> None:
    check(unpack(packed_by_a_program(tmp_path, "pack(everything, 'it')")))
    check(unpack(packed_by_a_program(tmp_path, "translate(pack(everything, 'it'))")))


def test_another_python_builds_it_from_the_source_text(tmp_path: Path, be_other) -> None:
    packed = packed_by_a_program(tmp_path, "translate(pack(everything, 'it'))")
    be_other()
    check(unpack(packed))
    check(unpack(packed))  # the classes are there already


def test_bytecode_of_another_python_is_refused_by_name(tmp_path: Path, be_other) -> None:
    packed = packed_by_a_program(tmp_path, "pack(everything, 'it')")
    ours = byvalue.OWN_PYTHON
    be_other()
    with pytest.raises(byvalue.OtherPython, match=f"bytecode of {ours}, and {OTHER} runs here"):
        unpack(packed)


def test_a_generated_method_by_itself_is_not_mistaken_for_another(tmp_path, be_other) -> None:
    packed = packed_by_a_program(tmp_path, "translate(pack((Point(1), Point.__lt__), 'it'))")
    be_other()
    point, less = unpack(packed)
    assert point < type(point)(2)
    with pytest.raises(TypeError, match="__lt__.* without its class"):
        less(point, point)


def test_plain_values_are_left_as_they_are() -> None:
    for value in ([1, "text"], {"a": Path("b")}, b"x" * 2_000_000):
        packed = pack(value, "it")
        assert translate(packed) is packed


def test_code_in_data_of_others_is_not_looked_at(tmp_path: Path) -> None:
    packed = packed_by_a_program(tmp_path, "pack(everything, 'it')")
    assert translate(packed) is packed


def test_large_buffers_stay_beside(be_other) -> None:
    packed = pack((lambda n: n + 1, bytearray(2_000_000)), "it")
    # Large `bytes` are taken out of a pickle only at its top; these are no more than a shape.
    beside = Bulk(pickle.dumps(pickle.PickleBuffer(bytearray(9)), 5, buffer_callback=lambda _: 0))
    assert translate(beside) is beside
    translated = translate(packed)
    be_other()
    function, buffer = unpack(translated)
    assert (function(1), len(buffer)) == (2, 2_000_000)


def test_buffers_of_objects_go_along_uncopied(be_other) -> None:
    buffer = bytearray(b"y" * 100_000)
    packed = pack([lambda n: n + 1, pickle.PickleBuffer(buffer)], "it")
    assert isinstance(packed, Bulk)
    translated = translate(packed)
    assert isinstance(translated, Bulk)
    assert translated.beside is not None
    assert memoryview(translated.beside[0]).obj is memoryview(packed.beside[0]).obj
    be_other()
    function, view = unpack(translated)
    assert (function(1), bytes(view)) == (2, buffer)


def test_items_of_a_map_keep_their_mark(be_other) -> None:
    translated = translate(pack_items("f", [lambda: 7]), skip=len(CHUNK))
    assert translated.startswith(CHUNK)
    be_other()
    assert unpack(translated, skip=len(CHUNK))[0]() == 7


def test_a_bundle_is_translated_as_a_whole(be_other) -> None:
    def setup():
        return 1

    packed = make_bundle("f", {"computation": lambda: 2, "setup": setup})[0].translated().packed()
    be_other()
    parts = read_bundle(packed).parts()
    assert (parts["computation"](), parts["setup"]()) == (2, 1)


def test_what_has_no_source_is_named_and_a_refusal_raises_the_reason() -> None:
    names: dict = {}
    exec("def made(): return 1", names)
    with pytest.raises(CannotTranslate, match=r"'made' has no source text") as raised:
        translate(pack(names["made"], "it"))
    packed = pack(names["made"], "it")
    assert translate_if_possible(packed) is packed
    with pytest.raises(Exception, match="'made' has no source text"):
        unpack(refusal(str(raised.value)))


def test_a_class_of_this_program_is_not_changed_by_a_copy_that_comes_back() -> None:
    class Counter:
        made = 0

        def count(self):
            return counted

    counted, method = 1, Counter.count
    copy = unpack(pack((Counter, Counter()), "it"))
    assert (copy[0] is Counter, Counter.count is method) == (True, True)
    counted = 2
    assert copy[1].count() == 2


def test_modules_that_were_renamed_are_found_by_their_other_names() -> None:
    expect_others()
    pickled_by_313 = b"cpathlib._local\nPurePosixPath\n(S'a'\ntR."
    assert pickle.loads(pickled_by_313) == PurePosixPath("a")
