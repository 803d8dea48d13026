"""How clusters stand among others: what programs may say of it, and what a peer may not."""

from math import inf, nan
from typing import Any

import pytest

from dispy.client.arguments import check_weight
from dispy.client.options import take_options
from dispy.model.errors import DispyError
from dispy.model.precedence import EQUAL, Precedence
from dispy.protocol.frames import FrameRefused
from dispy.scheduler.claims import check_claims, precedence_of


@pytest.mark.parametrize("weight", [0, -1, nan, inf, "2", True, None, 1001, 0.0001])
def test_a_weight_that_is_none_is_refused_on_both_sides(weight: Any) -> None:
    with pytest.raises(DispyError, match=r"weight is a number from 0.001 to 1000, not "):
        check_weight(weight)
    if weight is not None:
        with pytest.raises(FrameRefused, match="weight"):
            precedence_of({"weight": weight})


@pytest.mark.parametrize("priority", [1001, -1001, 0.5, True, "1", nan])
def test_a_priority_that_is_none_is_refused_on_both_sides(priority: Any) -> None:
    with pytest.raises(DispyError, match="dispy_job_priority is a whole number from -1000 to"):
        take_options({"dispy_job_priority": priority})
    for refuse in (precedence_of, check_claims):
        with pytest.raises(FrameRefused, match="priority"):
            refuse({"priority": priority})


def test_what_a_program_says_is_taken_and_its_owner_is_one_line() -> None:
    assert precedence_of({}) == EQUAL
    said = {"weight": 2, "priority": -3, "owner": "ann\n@laptop", "exclusive": True}
    assert precedence_of(said) == Precedence("ann @laptop", -3, 2.0, True)
    assert precedence_of({"owner": 7, "exclusive": 1}) == EQUAL
    assert take_options({"dispy_job_priority": 5, "n": 1}) == ({"n": 1}, {"priority": 5})
