"""What the fuzzer has found worth keeping is played again: each input is refused, or does no harm.

The inputs are in tests/fuzz/corpus; `tests/fuzz/run --keep` makes them. Needs no fuzzer.
"""

import logging

import pytest
from fuzz.corpus import load
from fuzz.targets import TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_that_were_kept_do_no_harm(target: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL + 1, logger="dispy")
    inputs = load(target)
    assert inputs, "nothing is kept"
    for number, data in enumerate(inputs):
        try:
            TARGETS[target](data)
        except BaseException as fault:
            raise AssertionError(f"input {number} of {target}, {data.hex()}: {fault!r}") from fault
