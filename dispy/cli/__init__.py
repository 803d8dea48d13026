"""Turn any set of machines into a compute cluster.

Usage:
  dispy <command> [<argument>...]
  dispy (-h | --help)
  dispy --version

Commands:
  bench   measure how fast dispy is here, and compare it with its budget
  cancel  cancel a job or a cluster of a shared scheduler
  cert    make certificates for machines, look at them, revoke them
  demo    see it work: digests and word counts of many files, on all processors
  drain   give a node of a shared scheduler no new jobs
  explain  say why a job of a shared scheduler waits
  node    offer this machine's processors to dispy clients
  nodes   list the nodes of a shared scheduler
  recover  bring back what a program had at nodes when it died
  run     run a program on the nodes, once for each set of arguments
  scheduler  share nodes among many programs (SharedJobCluster)
  secret  make the secret that your machines share, change it, compare it
  doctor  check this machine, its networks, and the way to other hosts
  status  show what a shared scheduler has: nodes, clusters, owners, clients

Options:
  -h, --help  print this text; `dispy <command> --help` says more
  --version   print the version

Start with `dispy demo`. Then: `dispy secret`, `dispy node --host=ADDRESS` on each machine, and
in a program `cluster = dispy.JobCluster(function)`, `job = cluster.submit(...)`, `job()`.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from docopt import DocoptExit, docopt

from dispy import __version__
from dispy.model.errors import DispyError
from dispy.system.arguments import secret_places

COMMANDS = (
    "bench", "cancel", "cert", "demo", "doctor", "drain", "explain", "node", "nodes", "recover",
    "run", "scheduler", "secret", "status",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit status: 0, 1 for a failure, 2 for wrong usage."""
    if arguments and arguments[0] in COMMANDS:
        command = import_module(f"dispy.cli.{arguments[0]}").main
    else:
        command = _top
    try:
        status: int = command(arguments)
        return status
    except DispyError as error:
        print(f"dispy: {error}", file=sys.stderr)
        return 2
    except DocoptExit as complaint:
        text = str(complaint)  # it repeats words that fit nowhere
        for number, first in secret_places(arguments):
            text = text.replace(arguments[number][first:], "***")
        print(text, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _top(arguments: Sequence[str]) -> int:
    options = docopt(
        __doc__, argv=list(arguments), version=f"dispy {__version__}", options_first=True
    )
    print(f"dispy: there is no command {options['<command>']!r}", file=sys.stderr)
    print(f"Commands: {', '.join(COMMANDS)}. See `dispy --help`", file=sys.stderr)
    return 2
