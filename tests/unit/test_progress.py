"""What a command shows while it works suits where it is shown."""

import io
from itertools import count

import pytest

from dispy.cli import progress
from dispy.cli.progress import Progress, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that moves by a second with each look."""
    seconds = count()
    monkeypatch.setattr(progress, "monotonic", lambda: float(next(seconds)))
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_has_one_line_that_changes_and_goes(clock: None) -> None:
    stream = Terminal()
    shown = Progress(stream=stream)
    shown.show("ten of twenty")
    shown.show("twenty")
    shown.clear()
    assert "\n" not in stream.getvalue()
    first, second, blank, rest = stream.getvalue().split("\r")[1:]
    assert (first, second.rstrip(), blank.strip(), rest) == ("ten of twenty", "twenty", "", "")
    assert len(second) == len(first)  # nothing of the longer text stays


def test_elsewhere_plain_lines_come_ever_more_seldom(clock: None) -> None:
    stream = io.StringIO()
    shown = Progress(stream=stream)
    for number in range(100):
        shown.show(str(number))
    shown.clear()
    lines = [int(line) for line in stream.getvalue().splitlines()]
    assert lines == [0, 2, 6, 14, 30, 62]


def test_quiet_says_nothing(clock: None) -> None:
    stream = Terminal()
    shown = Progress(quiet=True, stream=stream)
    shown.show("something")
    shown.clear()
    assert stream.getvalue() == ""


def test_a_table_is_emphasised_on_a_terminal_alone_and_never_with_no_color(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    plain = ["name   n", "one    1", "two   22"]
    assert table(("name", "n"), [("one", "1"), ("two", "22")], left=(0,)) == plain
    monkeypatch.setattr("sys.stdout", Terminal())
    bold = table(("name", "n"), [("one", "1"), ("two", "22")], left=(0,))
    assert bold == [f"\x1b[1m{plain[0]}\x1b[0m", *plain[1:]]
    monkeypatch.setenv("NO_COLOR", "1")
    assert table(("name", "n"), [("one", "1"), ("two", "22")], left=(0,)) == plain
