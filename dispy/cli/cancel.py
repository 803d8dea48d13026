"""Cancel a job, or all jobs of a cluster, of a shared scheduler."""

from collections.abc import Sequence

from docopt import docopt

from dispy.cli.operating import ask_scheduler, refused, usage
from dispy.cli.tables import number
from dispy.client.operating import SchedulerRefused

__doc__ = usage(  # what `--help` prints
    "cancel",
    "<what>",
    """\
Cancel a job, or all jobs of a cluster, of a shared scheduler (`dispy scheduler`).

<what> is a job, CLUSTER:NUMBER, or a CLUSTER, by the number (3.1) that `dispy status` prints or by
its name where no other cluster has that. NUMBER is the job's `id`, unless its program has set
another. Jobs that wait end Cancelled at once; those that run get KeyboardInterrupt (programs:
SIGINT) and end as they decide, by force after 6 seconds. Their program is told who did it. The
cluster stays open.""",
    "",
)


def main(arguments: Sequence[str]) -> int:
    """Have them cancelled; return the exit status."""
    options = docopt(__doc__, argv=list(arguments))
    try:
        count = ask_scheduler(options, "cancel", {"what": options["<what>"]})["cancelled"]
    except SchedulerRefused as error:
        return refused("cancel", error)
    print(f"{number(count)} job{'' if count == 1 else 's'} cancelled")
    return 0
