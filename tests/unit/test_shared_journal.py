"""The journal of a worker whose jobs run in children that write the records themselves."""

import copy
import os
from collections.abc import Iterator

import pytest

from dispy.worker.journal import JOURNAL_BYTES, SharedJournal, make_journal, read_journal


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = make_journal()
    yield made
    os.close(made)


def child_of(journal: SharedJournal) -> SharedJournal:
    """What a fork has: the same memory file, its own idea of where the records end."""
    return copy.copy(journal)


def test_a_childs_record_is_found_by_its_worker_and_by_its_node(descriptor: int) -> None:
    journal = SharedJournal(descriptor)
    journal.begin(7)
    assert not journal.came()
    assert child_of(journal).leave(7, 1.0, 2.0, b"seven", b"")
    assert journal.came()
    assert not journal.came(), "once"
    assert journal.untold() == [[7], [1.0], [2.0], [b"seven"], []]
    assert read_journal(descriptor) == (None, [[7], [1.0], [2.0], [b"seven"], []])


def test_a_job_whose_child_left_nothing_is_the_one_that_ran(descriptor: int) -> None:
    journal = SharedJournal(descriptor)
    journal.begin(7)
    child_of(journal).leave(7, 1.0, 2.0, b"seven", b"")
    journal.came()
    journal.begin(8)
    child_of(journal).add(8, 2.0, 3.0, b"half", b"")  # it died before it counted that
    assert not journal.came()
    assert read_journal(descriptor) == (8, [[7], [1.0], [2.0], [b"seven"], []])


def test_what_is_told_while_a_child_runs_is_told_once_and_loses_nothing_of_the_childs(
    descriptor: int,
) -> None:
    journal = SharedJournal(descriptor)
    journal.begin(7)
    child_of(journal).leave(7, 1.0, 2.0, b"seven", b"")
    journal.came()
    journal.begin(8)
    child = child_of(journal)
    journal.clear(8)  # a poke: 7 was told
    assert read_journal(descriptor) == (8, [[], [], [], [], []])
    child.leave(8, 2.0, 3.0, b"eight", b"")
    assert journal.came()
    assert journal.untold()[0] == [8]
    assert read_journal(descriptor) == (None, [[8], [2.0], [3.0], [b"eight"], []])
    journal.end()
    journal.clear(None)
    journal.begin(9)
    assert read_journal(descriptor) == (9, [[], [], [], [], []])


def test_a_record_without_room_is_refused_and_leaves_the_others(descriptor: int) -> None:
    journal = SharedJournal(descriptor)
    journal.begin(7)
    child_of(journal).leave(7, 1.0, 2.0, b"seven", b"")
    journal.came()
    journal.begin(8)
    assert not child_of(journal).leave(8, 2.0, 3.0, bytes(JOURNAL_BYTES), b"")
    assert not journal.came()
    assert journal.untold()[0] == [7]


@pytest.mark.parametrize("scribble", [b"\xff" * 16, b"\xff" * 4000], ids=["head", "records"])
def test_nonsense_that_a_job_writes_is_an_error_and_no_results(
    descriptor: int, scribble: bytes
) -> None:
    journal = SharedJournal(descriptor)
    journal.begin(7)
    child_of(journal).leave(7, 1.0, 2.0, b"seven", b"")
    journal.came()
    os.pwrite(descriptor, scribble, 16 if len(scribble) > 16 else 0)
    assert not journal.came(), "it believed the head"
    if len(scribble) > 16:
        with pytest.raises(ValueError, match="makes no sense"):
            journal.untold()
    assert read_journal(descriptor) == (None, [[], [], [], [], []])
