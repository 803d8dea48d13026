"""Tables for a terminal: aligned columns, natural order, numbers and times as people read them."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dispy.model.texts import one_line

NAME_LIMIT = 40  # letters of a column; longer names are cut in the middle
_DIGITS = re.compile(r"(\d+)")


def natural(text: str) -> list[tuple[int, int | str]]:
    """Return a key that sorts "node9" before "node10"."""
    parts = _DIGITS.split(text)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def number(value: float) -> str:
    """Return a whole number in groups of three digits."""
    return f"{value:,.0f}"


def percent(value: float) -> str:
    """Return a part of one."""
    return f"{100 * value:.1f} %" if 0 < value < 0.1 else f"{100 * value:.0f} %"


def duration(seconds: float | None) -> str:
    """Return a time as people say it; empty where it is not known."""
    if seconds is None:
        return ""
    if seconds < 0.001:
        return f"{1e6 * seconds:.0f} us"
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} d"


def size(count: float) -> str:
    """Return a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def shortened(text: object) -> str:
    """Return a name that fits its column, on one line."""
    line = one_line(str(text))
    if len(line) <= NAME_LIMIT:
        return line
    half = NAME_LIMIT // 2
    return f"{line[: half - 1]}...{line[-(half - 2) :]}"


class Column:
    """One column: its title, where its value is, and how that is written."""

    def __init__(
        self, title: str, name: str, show: Callable[[Any], str] = shortened, right: bool = False
    ) -> None:
        self.title, self._name, self._show = title, name, show
        self.right = right or show in (number, percent, duration, size)

    def cell(self, row: Mapping[str, Any]) -> str:
        """Return what stands there."""
        return self._show(row[self._name])


def table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], limit: int | None = None
) -> list[str]:
    """Return the lines of a table with its titles, and how many rows more there are."""
    shown = rows if limit is None else rows[:limit]
    cells = [[column.title for column in columns]]
    cells += [[column.cell(row) for column in columns] for row in shown]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for line in cells:
        aligned = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    if len(shown) < len(rows):
        lines.append(f"and {number(len(rows) - len(shown))} more (--limit=0 prints all)")
    return lines
