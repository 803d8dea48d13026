"""`dispy worker FD`: how a node starts a nursery; not for people.

`dispy worker --forkserver FD` forks nurseries for its node, see `dispy.worker.forkserver`.

`dispy worker --script PATH ARGUMENTS...` runs a Python script, where there is no Python but
this executable. `dispy worker --try DIRECTORY` ends at once, with status 0 if a nursery could
work there.

Behind FD or DIRECTORY: `--new-privileges`, that programs which jobs start may gain some, and
`--max-processes=N`, how many processes their user may have.
"""

import runpy
import socket
import sys
from collections.abc import Sequence

from dispy.system.privileges import gain_no_privileges, limit_processes, write_no_core


def main(arguments: Sequence[str]) -> int:
    """Run a nursery on the socket that the node left open at the given descriptor."""
    if arguments[1] == "--script":
        sys.argv = list(arguments[2:])
        runpy.run_path(arguments[2], run_name="__main__")
        return 0
    # Before anything else, because whatever runs from here on may be other people's.
    _give_up_rights(arguments[2:])
    from dispy.system.memory import keep_freed_memory
    from dispy.worker.nursery import Nursery

    if arguments[1] == "--try":
        from dispy.worker.trial import try_directory

        try_directory(arguments[2])
        return 0
    keep_freed_memory()
    if arguments[1] != "--forkserver":
        return Nursery(socket.socket(fileno=int(arguments[1]))).run()
    from dispy.worker.forkserver import ForkServer

    nursery = ForkServer(socket.socket(fileno=int(arguments[2]))).serve()
    return 0 if nursery is None else Nursery(socket.socket(fileno=nursery)).run()


def _give_up_rights(said: Sequence[str]) -> None:
    for word in said:
        if word.startswith("--max-processes="):
            limit_processes(int(word.partition("=")[2]))
    if "--new-privileges" not in said:
        gain_no_privileges()
    write_no_core()
