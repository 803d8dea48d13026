"""Give a node of a shared scheduler no new jobs, or some again."""

from collections.abc import Sequence

from docopt import docopt

from dispy.cli.operating import ask_scheduler, refused, usage
from dispy.cli.tables import number
from dispy.client.operating import SchedulerRefused

__doc__ = usage(  # what `--help` prints
    "drain",
    "[--off] <node>",
    """\
Give a node of a shared scheduler (`dispy scheduler`) no new jobs, until it is told otherwise.

What runs there ends, what has not begun goes elsewhere; jobs that were submitted for it alone
wait. <node> is its name, its address, or ADDRESS:PORT, as `dispy nodes` prints them.""",
    """\
  --off               give it jobs again
""",
)


def main(arguments: Sequence[str]) -> int:
    """Drain it; return the exit status."""
    options = docopt(__doc__, argv=list(arguments))
    try:
        of = {"node": options["<node>"], "off": options["--off"]}
        node = ask_scheduler(options, "drain", of)["node"]
    except SchedulerRefused as error:
        return refused("drain", error)
    jobs = node["jobs"]
    rest = f"; {number(jobs)} job{'' if jobs == 1 else 's'} there" if jobs else ""
    print(f"node {node['name']} ({node['ip_addr']}) is {node['state']}{rest}")
    return 0
