"""Functions that travel together work together, as at home."""

from dispy.shipping.bundle import make_bundle, read_bundle, this_python

PROGRAM = """
counter = 0
def setup():
    global counter
    counter = 7
    return 0
def compute():
    return counter
"""


def rebuilt(parts: dict) -> dict:
    return read_bundle(make_bundle("compute", parts)[0].packed()).parts()


def test_functions_of_a_program_share_its_globals() -> None:
    names: dict = {"__name__": "__main__"}
    exec(PROGRAM, names)
    parts = rebuilt({"computation": names["compute"], "setup": names["setup"]})
    assert parts["setup"]() == 0
    assert parts["computation"]() == 7
    assert names["counter"] == 0


def test_a_bundle_says_which_python_made_it() -> None:
    made, modules = make_bundle("prog", {"setup": None}, program=b"#!/bin/sh\n")
    bundle = read_bundle(made.packed())
    assert not modules
    assert (bundle.python, bundle.program, bundle.parts()) == (this_python(), b"#!/bin/sh\n", {})
