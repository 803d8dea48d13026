"""The private node of a program that found no other: a child process on a socket pair.

It serves this program alone and ends with it, whatever ends it: it reads end-of-file. Started
before gevent is imported here, so that both interpreters start side by side.
"""

import logging
import os
import socket
import sys
from time import monotonic, sleep
from typing import Any

from dispy.client.waiting import is_patched
from dispy.system.beside import KEPT_DESCRIPTOR, start_beside
from dispy.system.interpreter import own_command, own_environment
from dispy.system.processes import disconnect, widen

PATH_VARIABLE = "DISPY_WORKER_PATH"  # module search path of this program, for its workers
END_SECONDS = 3.0  # that the local node may take to end before it is killed
CLEANUP_SECONDS = 15.0  # more, where it has cleanup to run: what the node allows it, and some
SILENT_SECONDS = 2.0  # of waiting before a word about it

logger = logging.getLogger("dispy.client")


class LocalNode:
    """Owns the child process and our end of its socket."""

    def __init__(self) -> None:
        ours, theirs = _plain("socket", "socketpair")()
        for sock in (ours, theirs):
            widen(sock)
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.process = start_beside(
            own_command("node", "--serve-descriptor", str(KEPT_DESCRIPTOR)),
            theirs.fileno(),
            {**own_environment(), PATH_VARIABLE: path},
        )
        theirs.close()
        self.descriptor: int = ours.detach()

    def wait(self, more: float = 0.0) -> None:
        """Wait until the process has ended, after its socket was closed; end it by force.

        `more`: seconds that it may take beyond those which every end may.
        """
        deadline = monotonic() + END_SECONDS + more
        silent_until = monotonic() + SILENT_SECONDS
        while not self.process.has_ended():
            if more and monotonic() > silent_until:
                silent_until = deadline
                logger.warning("the program has ended and waits for cleanup on its local node")
            if monotonic() > deadline:
                self.process.kill()  # its own processes end with it
                deadline += END_SECONDS
            sleep(0.005)

    def forget(self) -> None:
        """In a forked child: give up its copy of the socket, so that only its owner keeps it."""
        disconnect(self.descriptor)


def _plain(module: str, name: str) -> Any:
    """Return what a module had before gevent patched it; this program's loop is not ours."""
    if is_patched():
        from gevent import monkey

        return monkey.get_original(module, name)
    return getattr({"socket": socket}[module], name)
