"""Turn any set of machines into a compute cluster.

Usage:
  dispy --help
  dispy --version
"""

import sys
from collections.abc import Sequence

from docopt import DocoptExit, docopt

from dispy import __version__


def main(arguments: Sequence[str]) -> int:
    """Run one command; return its exit status: 0, or 2 for a usage error."""
    if not arguments:
        print(__doc__.strip())
        return 2
    try:
        docopt(__doc__, argv=list(arguments), version=f"dispy {__version__}")
    except DocoptExit as complaint:
        print(complaint, file=sys.stderr)
        return 2
    return 0
