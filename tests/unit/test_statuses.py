"""Every cell of the table of a job's life."""

import itertools

import pytest

from dispy.model.statuses import FINAL, Status, may_follow

C, R, P = Status.Created, Status.Running, Status.ProvisionalResult
LEGAL = {(C, R), (R, P), (P, R), (P, P), (R, C), (P, C)}
LEGAL |= {(before, after) for before in (C, R, P) for after in FINAL}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(Status, Status)))
def test_cell(before: Status, after: Status) -> None:
    expected = (before, after) in LEGAL
    assert may_follow(before, after) == expected


def test_the_numbers_are_those_of_dispy_4() -> None:
    assert [int(status) for status in Status] == [4, 5, 6, 7, 8, 9, 10, 11, 16, 17]
