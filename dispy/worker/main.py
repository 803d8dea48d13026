"""`dispy worker FD`: how a node starts a nursery; not for people.

`dispy worker --script PATH ARGUMENTS...` runs a Python script, where there is no Python but
this executable.
"""

import runpy
import socket
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run a nursery on the socket that the node left open at the given descriptor."""
    if arguments[1] == "--script":
        sys.argv = list(arguments[2:])
        runpy.run_path(arguments[2], run_name="__main__")
        return 0
    from dispy.system.memory import keep_freed_memory
    from dispy.worker.nursery import Nursery

    keep_freed_memory()
    return Nursery(socket.socket(fileno=int(arguments[1]))).run()
