"""Forks nurseries for a node: what they need is imported once, before anybody waits for it.

The node sends FORK with a nursery's end of a socket pair, one at a time, and hears which process
that is, or the number of the error (REPLY). The nursery becomes the node's own child: the process
between them ends at once, and the node adopts orphans (PR_SET_CHILD_SUBREAPER, prctl(2)). So it
outlives this server, and the node learns how it ends. No code of a user's ever runs here.
"""

import errno
import gc
import os
import socket
import struct
import time

from dispy.system.processes import die_with_parent

FORK = b"f"
REPLY = struct.Struct("ii")  # process, error; one of them is 0
ADOPTION_SECONDS = 0.0002  # between two looks whether the process between has ended


class ForkServer:
    """Serves one node, and ends with it. Only where `adopt_orphans` can be."""

    def __init__(self, sock: socket.socket) -> None:
        """sock: of packets (SOCK_SEQPACKET), which belongs to this object now."""
        sock.setblocking(True)  # the node's end is another open file
        self._sock = sock
        self._node = os.getppid()

    def serve(self) -> int | None:
        """Return None when the node has gone; and in each nursery its end of the socket pair."""
        die_with_parent(self._node)
        gc.freeze()  # or each nursery would write to, and so copy, all of this memory
        while True:
            try:
                said, descriptors, _, _ = socket.recv_fds(self._sock, len(FORK), 1)
            except ConnectionResetError:  # it was killed before it had read a reply
                return None
            if not said:
                return None
            if not descriptors:
                self._reply(0, errno.EMFILE)
                continue
            try:
                between = os.fork()
            except OSError as error:
                self._reply(0, error.errno or errno.EIO)
            else:
                if between == 0:
                    self._fork_nursery()
                    self._sock.close()
                    return descriptors[0]
                os.waitpid(between, 0)
            os.close(descriptors[0])

    def _fork_nursery(self) -> None:
        """Return in the nursery alone, once it is the node's child."""
        between = os.getpid()
        try:
            if os.fork() != 0:
                os._exit(0)
        except OSError as error:
            self._reply(0, error.errno or errno.EIO)
            os._exit(1)
        os.setsid()  # a terminal's Ctrl-C is for the node alone
        while (parent := os.getppid()) != self._node:
            if parent != between:
                self._reply(0, errno.ECHILD)  # the node is no more, or adopts nobody
                os._exit(1)
            time.sleep(ADOPTION_SECONDS)
        self._reply(os.getpid(), 0)

    def _reply(self, process: int, error: int) -> None:
        try:
            self._sock.send(REPLY.pack(process, error))
        except OSError:
            os._exit(1)  # the node has gone
