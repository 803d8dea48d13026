"""`dispy worker FD`: how a node starts a nursery; not for people."""

import socket
import sys
from collections.abc import Sequence

from dispy.worker.nursery import run_nursery


def main(arguments: Sequence[str]) -> int:
    """Run a nursery on the socket that the node left open at descriptor `arguments[0]`."""
    return run_nursery(socket.socket(fileno=int(arguments[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
