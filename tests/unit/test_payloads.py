"""What is packed here comes back as it was, also in a process that has not its classes."""

import pickle
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispy.shipping.payloads import CannotPack, pack, pack_call, unpack

VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=8,
)

PROGRAM = """
import sys
from dispy.shipping.payloads import pack_call
class Point:
    def __init__(self, x): self.x = x
    def double(self): return self.x * 2
sys.stdout.buffer.write(pack_call("compute", (Point(21),), {}))
"""


@given(VALUES)
def test_plain_values_come_back(value: object) -> None:
    assert unpack(pack(value, "a value")) == value


def test_an_object_of_main_works_in_another_process() -> None:
    packed = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True).stdout
    (point,), keywords = unpack(packed)
    assert (point.double(), keywords) == (42, {})


def test_a_lambda_is_packed_by_value() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(lambda n: n + 1)
    assert unpack(pack(lambda n: n + 1, "a function"))(1) == 2


@pytest.mark.parametrize(
    ("arguments", "keywords", "named"),
    [
        ((1, threading.Lock()), {}, "argument 2 of compute"),
        ((1,), {"gate": threading.Lock()}, "argument 'gate' of compute"),
    ],
)
def test_the_argument_at_fault_is_named(arguments: tuple, keywords: dict, named: str) -> None:
    with pytest.raises(CannotPack, match=named):
        pack_call("compute", arguments, keywords)
