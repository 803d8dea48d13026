"""Show what a shared scheduler has: nodes, clusters and their queues, owners, client programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from docopt import docopt

from dispy.cli.operating import ask_scheduler, limit_of, refused, usage
from dispy.cli.tables import Column, duration, number, percent, table
from dispy.client.operating import SchedulerRefused

__doc__ = usage(  # what `--help` prints
    "status",
    "[--json] [--limit=<n>]",
    "Show what a shared scheduler (`dispy scheduler`) has: nodes, clusters, owners, clients.",
    """\
  --json              print a JSON object, for programs, with all there is, nodes too
  --limit=<n>         lines of each table, those with most first; 0: all (default: 20)
""",
)
LINES = 20
STATES = ("away", "draining", "drained", "held back")
CLUSTERS = (
    Column("CLUSTER", "cluster"),
    Column("NAME", "name"),
    Column("OWNER", "owner"),
    Column("WAITING", "waiting", number),
    Column("ON NODES", "on_nodes", number),
    Column("SLOTS", "slots", number),
    Column("SHARE", "share", percent),
    Column("PRIORITY", "priority", str, right=True),
    Column("WEIGHT", "weight", lambda weight: f"{weight:g}", right=True),
    Column("JOB TAKES", "mean_seconds", duration),
)
OWNERS = (
    Column("OWNER", "owner"),
    Column("CLUSTERS", "clusters", number),
    Column("WAITING", "waiting", number),
    Column("ON NODES", "on_nodes", number),
    Column("SLOTS", "slots", number),
    Column("SHARE", "share", percent),
    Column("LIMIT", "limit", lambda limit: "none" if limit is None else number(limit), right=True),
)
CLIENTS = (
    Column("CLIENT", "client", str),
    Column("NAME", "name"),
    Column("ADDRESS", "address"),
    Column("STATE", "connected", lambda connected: "connected" if connected else "away"),
    Column("CLUSTERS", "clusters", number),
    Column("UNTAKEN", "untaken", number),
)


def main(arguments: Sequence[str]) -> int:
    """Print it; return the exit status."""
    options = docopt(__doc__, argv=list(arguments))
    limit = limit_of(options, LINES)
    try:
        answer = ask_scheduler(options, "status", {"nodes": options["--json"]})
    except SchedulerRefused as error:
        return refused("status", error)
    if options["--json"]:
        print(json.dumps(answer, indent=2))
    else:
        print("\n".join(lines(answer, limit)))
    return 0


def lines(answer: Mapping[str, Any], limit: int | None) -> list[str]:
    """Return the summary, then the tables, those of which nothing is there left out."""
    clusters = sorted(answer["clusters"], key=lambda row: (-row["slots"], -row["waiting"]))
    clients = sorted(answer["clients"], key=lambda row: (row["connected"], -row["clusters"]))
    found = _summary(answer)
    for rows, columns in ((clusters, CLUSTERS), (answer["owners"], OWNERS), (clients, CLIENTS)):
        if rows:
            found += ["", *table(rows, columns, limit)]
    return found


def _summary(answer: Mapping[str, Any]) -> list[str]:
    scheduler, totals = answer["scheduler"], answer["totals"]

    def total(name: str) -> int:
        return int(totals.get(name, 0))

    states = [
        f"{number(count)} {state}"
        for state in STATES
        if (count := total(f"nodes_{state.replace(' ', '_')}"))
    ]
    states += [f"{number(total('nodes_without_room'))} without room"] * bool(
        total("nodes_without_room")
    )
    trouble = [f"trouble   {scheduler['trouble']}"] if scheduler["trouble"] else []
    away = total("clients_away")
    bad = sum(total(f"jobs_{status}") for status in ("terminated", "cancelled", "abandoned"))
    ended = total("jobs_finished") + bad
    return [
        f"scheduler {scheduler['name']} at {scheduler['address']}, dispy {scheduler['version']}, "
        f"policy {scheduler['policy']}, up {duration(scheduler['up_seconds'])}",
        f"nodes     {number(total('nodes'))}{''.join(f', {state}' for state in states)}; "
        f"{number(total('busy'))} of {number(total('slots'))} slots busy",
        f"jobs      {number(total('jobs_waiting'))} wait, {number(total('jobs_on_nodes'))} are on "
        f"nodes, {number(ended)} have ended{f', {number(bad)} of them badly' if bad else ''}",
        f"clients   {number(total('clients'))}{f', {number(away)} away' if away else ''}; "
        f"{number(total('clusters'))} clusters",
        *trouble,
    ]
