"""A node that tells what it keeps: `python -m tests.soak.node FILE`, then as `dispy node`.

It is `dispy node`, patched in the same way; at SIGUSR2 it writes its figures into FILE.
"""

import signal
import sys


def main() -> None:
    """Run the command line of `dispy node`."""
    path, arguments = sys.argv[1], ["node", *sys.argv[2:]]
    import dispy_all

    dispy_all._patch()
    import json
    import os

    import gevent

    from .counts import count_all

    def tell() -> None:
        with open(f"{path}.new", "w") as file:
            json.dump(count_all(), file)
        os.replace(f"{path}.new", path)

    gevent.signal_handler(signal.SIGUSR2, tell)
    from dispy.cli import main as run

    sys.argv = ["dispy", *arguments]
    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
