"""List the nodes of a shared scheduler: what each has, does, and why it does nothing."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from docopt import docopt

from dispy.cli.operating import ask_scheduler, limit_of, refused, usage
from dispy.cli.tables import Column, duration, natural, number, shortened, size, table
from dispy.client.operating import SchedulerRefused

__doc__ = usage(  # what `--help` prints
    "nodes",
    "[--json] [--limit=<n>]",
    "List the nodes of a shared scheduler (`dispy scheduler`).",
    """\
  --json              print a JSON object, for programs, with all nodes
  --limit=<n>         nodes to list, those that are not ready first; 0: all (default: 50)
""",
)
LINES = 50
COLUMNS = (
    Column("NODE", "name"),
    Column("ADDRESS", "ip_addr"),
    Column("STATE", "state"),
    Column("SLOTS", "slots", number),
    Column("BUSY", "busy", number),
    Column("JOBS", "jobs", number),
    Column("CLUSTERS", "clusters", number),
    Column("DONE", "jobs_done", number),
    Column("RUN TIME", "run_seconds", duration),
    Column("SENT", "sent_bytes", size),
    Column("RECEIVED", "received_bytes", size),
    Column("WHY", "why", lambda why: shortened(why) if why else ""),
)


def main(arguments: Sequence[str]) -> int:
    """Print the list; return the exit status."""
    options = docopt(__doc__, argv=list(arguments))
    limit = limit_of(options, LINES)
    try:
        rows = ask_scheduler(options, "nodes", {})["nodes"]
    except SchedulerRefused as error:
        return refused("nodes", error)
    rows.sort(key=_order)
    if options["--json"]:
        print(json.dumps({"nodes": rows}, indent=2))
    else:
        print("\n".join(lines(rows, limit)))
    return 0


def lines(rows: Sequence[Mapping[str, Any]], limit: int | None) -> list[str]:
    """Return the summary, then the table."""
    states = Counter(row["state"] for row in rows)
    slots, busy = (sum(row[name] for row in rows) for name in ("slots", "busy"))
    said = ", ".join(f"{number(states[state])} {state}" for state in sorted(states))
    first = f"{number(len(rows))} nodes{f': {said}' if rows else ''}"
    if not rows:
        return [first]
    shown = [column for column in COLUMNS if column.title != "WHY" or any(r["why"] for r in rows)]
    return [
        f"{first}; {number(busy)} of {number(slots)} slots busy",
        "",
        *table(rows, shown, limit),
    ]


def _order(row: Mapping[str, Any]) -> tuple[bool, Any, str]:
    return row["state"] == "ready", natural(row["name"]), row["ip_addr"]
