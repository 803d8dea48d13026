"""The rows of `dispy bench`: measured in rounds, printed as a table or as JSON."""

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeVar

from dispy import __version__
from dispy.cli.measurements import NotMeasured
from dispy.cli.progress import Progress, table
from dispy.model.errors import DispyError

Measuring = TypeVar("Measuring")


@dataclass(frozen=True)
class Row:
    """One line of the table; `budget` None: nothing is promised."""

    key: str
    title: str
    unit: str
    budget: float | None
    more_is_better: bool
    digits: int = 0


# Rows, and what measures one round of them.
Probes = Sequence[tuple[tuple[Row, ...], Callable[[Measuring], tuple[float, ...]]]]


@dataclass
class Measured:
    """A row and what its rounds gave, or why they gave nothing."""

    row: Row
    values: list[float] = field(default_factory=list)
    reason: str = ""

    @property
    def within_budget(self) -> bool | None:
        """Whether the median keeps the promise; None where there is nothing to say."""
        if not self.values or self.row.budget is None:
            return None
        middle = median(self.values)
        return middle >= self.row.budget if self.row.more_is_better else middle <= self.row.budget


def keys_of(probes: Probes[Any]) -> list[str]:
    """Return the keys of all rows, in order."""
    return [row.key for rows, _ in probes for row in rows]


def wanted_keys(said: str | None, probes: Probes[Any]) -> list[str]:
    """Return the keys that `--only` names, all without it; raises DispyError."""
    keys = keys_of(probes)
    wanted = said.split(",") if said else keys
    if unknown := [key for key in wanted if key not in keys]:
        raise DispyError(f"--only: there is no row {unknown[0]!r}; there are {', '.join(keys)}")
    return wanted


def rounds_of(said: str) -> int:
    """Return the number that `--rounds` says; raises DispyError."""
    if not said.isdecimal() or int(said) < 1:
        raise DispyError(f"--rounds: {said!r} is not a whole number from 1 on")
    return int(said)


def measure(
    probes: Probes[Measuring],
    measuring: Measuring,
    wanted: Sequence[str],
    rounds: int,
    progress: Progress,
) -> Iterator[Measured]:
    """Yield each wanted row with what its rounds gave."""
    for rows, probe in probes:
        found = [Measured(row) for row in rows if row.key in wanted]
        if not found:
            continue
        try:
            probe(measuring)  # not counted: connections, workers and memory are made in it
            for number in range(rounds):
                progress.show(f"{rows[0].title}: round {number + 1} of {rounds}")
                values = dict(zip([row.key for row in rows], probe(measuring), strict=True))
                for one in found:
                    one.values.append(values[one.row.key])
        except NotMeasured as reason:
            for one in found:
                one.reason = str(reason)
        yield from found


def show(measured: Sequence[Measured], nodes: list[dict[str, Any]], as_json: bool) -> None:
    """Print all rows, and of what nodes they are."""
    if as_json:
        print(json.dumps(_as_json(measured, nodes), indent=2))
    else:
        _print(measured, nodes)


def _as_json(measured: Sequence[Measured], nodes: list[dict[str, Any]]) -> dict[str, Any]:
    rows = [
        {
            "row": one.row.key, "title": one.row.title, "unit": one.row.unit,
            "median": median(one.values) if one.values else None, "rounds": one.values,
            "budget": one.row.budget, "more_is_better": one.row.more_is_better,
            "within_budget": one.within_budget, "not_measured": one.reason or None,
        }
        for one in measured
    ]  # fmt: skip
    return {
        "dispy": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "nodes": nodes,
        "rows": rows,
    }


def _print(measured: Sequence[Measured], nodes: list[dict[str, Any]]) -> None:
    print(f"dispy {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for node in nodes:
        print(f"node {node['name']} ({node['ip_addr']}), {node['cpus']} processors")
    header = ("row", "what", "median", "unit", "spread", "budget", "")
    lines = table(header, [_cells(one) for one in measured], left=(0, 1, 3, 6))
    print("\n" + "\n".join(lines))
    for one in measured:
        if one.reason:
            print(f"{one.row.key}: not measured: {one.reason}")
    if any(one.within_budget is False for one in measured):
        print("* outside of the budget")
    print("spread: from the slowest to the fastest round, in parts of the median")


def _cells(one: Measured) -> tuple[str, ...]:
    row = one.row
    middle, spread = "-", ""
    if one.values:
        middle = f"{median(one.values):,.{row.digits}f}"
        spread = f"{(max(one.values) - min(one.values)) / median(one.values):.0%}"
    budget = ""
    if row.budget is not None:
        budget = ("> " if row.more_is_better else "< ") + f"{row.budget:,.10g}"
    mark = "*" if one.within_budget is False else ""
    return row.key, row.title, middle, row.unit, spread, budget, mark
