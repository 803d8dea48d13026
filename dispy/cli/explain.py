"""Say why a job of a shared scheduler waits, node by node, or where it is."""

from collections.abc import Sequence

from docopt import docopt

from dispy.cli.operating import ask_scheduler, refused, usage
from dispy.client.operating import SchedulerRefused
from dispy.model.texts import one_line

__doc__ = usage(  # what `--help` prints
    "explain",
    "<job>",
    """\
Say why a job of a shared scheduler (`dispy scheduler`) waits, node by node, or where it is.

<job> is CLUSTER:NUMBER. CLUSTER is what `dispy status` prints, its number (3.1) or its name where
no other cluster has that; NUMBER is the `id` of the job, unless its program has set another.""",
    "",
)


def main(arguments: Sequence[str]) -> int:
    """Print the reasons; return the exit status."""
    options = docopt(__doc__, argv=list(arguments))
    try:
        answer = ask_scheduler(options, "explain", {"job": options["<job>"]})
    except SchedulerRefused as error:
        return refused("explain", error)
    for line in answer["lines"]:
        print(one_line(str(line)))
    return 0
