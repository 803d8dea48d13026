"""What peers say goes into logs and onto terminals without steering them."""

from hypothesis import given
from hypothesis import strategies as st

from dispy.model.texts import TEXT_LIMIT, legible, one_line
from dispy.protocol.frames import Frame
from dispy.protocol.messages import Kind, check

CLEAR = "\x1b[2J\x1b]0;owned\x07"


@given(st.text())
def test_nothing_is_left_that_steers_a_terminal(text: str) -> None:
    assert all(letter.isprintable() or letter in "\n\t" for letter in legible(text))


@given(st.text())
def test_a_sentence_is_one_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert len(one_line(text)) <= 1000


@given(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=100))
def test_texts_for_people_stay_as_they_are(text: str) -> None:
    assert legible(f"a traceback:\n\t{text}") == f"a traceback:\n\t{text}"


def test_colours_are_left_out_and_what_is_too_long_is_cut() -> None:
    assert legible("\x1b[31mred\x1b[0m") == "red"
    assert len(legible("x" * (TEXT_LIMIT + 1))) == TEXT_LIMIT


def test_reasons_of_messages_are_made_legible() -> None:
    for kind, body in (
        (Kind.READY, [1, CLEAR, {}]),
        (Kind.RETURNED, [1, [], CLEAR]),
        (Kind.GOODBYE, [CLEAR, []]),
        (Kind.REFUSE, [CLEAR]),
        (Kind.CLOSED, [1, CLEAR, {}]),
    ):
        (said,) = (part for part in check(Frame(kind, body)).body if isinstance(part, str))
        assert said.isprintable(), kind
        assert "owned" in said
