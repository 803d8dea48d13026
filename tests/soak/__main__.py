"""Traffic of days in compressed form: `python -m tests.soak`.

Usage:
  soak [--minutes=<n>] [--rounds=<n>]

Options:
  --minutes=<n>  how long [default: 10]
  --rounds=<n>   how many rounds of traffic, whatever they take

A real node and a real program. After a third of the time and at the end both are counted, and
what has grown by more than it may is told; then the status is 1.
"""

import sys
import tempfile
from pathlib import Path

from docopt import docopt

from tests.soak.run import Soak


def main() -> int:
    """Run the command; return its exit status."""
    options = docopt(__doc__)
    with tempfile.TemporaryDirectory() as directory, Soak(Path(directory)) as soak:
        if options["--rounds"]:
            rounds = int(options["--rounds"])
            soak.play(rounds=max(1, rounds // 3))
            first = soak.count()
            soak.play(rounds=rounds - rounds // 3)
        else:
            seconds = 60 * float(options["--minutes"])
            soak.play(seconds=seconds / 3)
            first = soak.count()
            soak.play(seconds=2 * seconds / 3)
        grown = soak.grown_since(first)
        print(soak.report(first))
    print("\n".join(grown) or "flat")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
