"""What a command shows while it works, and how its tables look."""

import os
import shutil
import sys
from collections.abc import Sequence
from time import monotonic
from typing import TextIO

TERMINAL_SECONDS = 0.1  # between changes of the line; more often only flickers
FIRST_SECONDS = 1.0  # before the first plain line, where there is no terminal
LONGEST_SECONDS = 60.0  # between plain lines, which come ever more seldom


class Progress:
    """One line that changes on a terminal, a plain line now and then elsewhere; on stderr."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._changing = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._pause = TERMINAL_SECONDS if self._changing else FIRST_SECONDS
        self._next = monotonic() + (0.0 if self._changing else self._pause)
        self._width = 0  # of what stands there now

    def show(self, text: str) -> None:
        """Say how far the work is; most calls come too early and print nothing."""
        now = monotonic()
        if self._quiet or now < self._next:
            return
        if self._changing:
            text = text[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
            self._pause = min(2 * self._pause, LONGEST_SECONDS)
        self._stream.flush()
        self._next = now + self._pause

    def clear(self) -> None:
        """Take the line away: something else is to be printed."""
        if self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0
            self._next = 0.0


def bold(text: str) -> str:
    """Return a text for stdout, emphasised where that is a terminal that may show it."""
    plain = not sys.stdout.isatty() or os.environ.get("TERM") == "dumb"
    return text if plain or os.environ.get("NO_COLOR") else f"\x1b[1m{text}\x1b[0m"


def shortened(text: str, width: int) -> str:
    """Return a text of at most `width` characters: the end of a longer one."""
    return text if len(text) <= width else "..." + text[3 - width :]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int]) -> list[str]:
    """Return the lines of a table; the columns of these numbers are aligned left, others right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return [bold(lines[0]), *lines[1:]]
