"""Frames over the socket pair between a node and one of its plain processes. Blocking.

One thread uses a channel. The end of the other side is EndOfChannel, whatever caused it.
"""

import socket
from collections.abc import Sequence

from dispy.protocol.frames import Frame, FrameDecoder, encode_frame

READ_SIZE = 256 * 1024  # bytes; a packet of small jobs in one read

# node to nursery
LOAD, FORK = 1, 2  # [] + computation; [worker id] + descriptor
# nursery to node
LOADED, FORKED, DIED = 3, 4, 5  # [error text or None]; [worker id, pid]; [worker id, how, KiB]
# node to worker, worker to node
JOBS, RESULTS = 6, 7  # [numbers, payloads]; [numbers, starts, ends, results, extras]


class EndOfChannel(Exception):
    """The other side has gone."""


class Channel:
    """Send and receive frames; `descriptors` collects those that came along (SCM_RIGHTS)."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self.sock = sock
        self.descriptors: list[int] = []
        self._decoder = FrameDecoder()

    def send(self, kind: int, body: object, buffers: Sequence[bytes] = ()) -> None:
        """Send one frame; raises EndOfChannel."""
        try:
            for piece in encode_frame(kind, body, buffers):
                self.sock.sendall(piece)
        except OSError as error:
            raise EndOfChannel(str(error)) from None

    def receive(self) -> Frame:
        """Return the next frame; raises EndOfChannel."""
        while (frame := self._decoder.next_frame()) is None:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.sock, READ_SIZE, 4)
            except OSError as error:
                raise EndOfChannel(str(error)) from None
            if not data:
                raise EndOfChannel("closed by the other side")
            self.descriptors += descriptors
            self._decoder.feed(data)
        return frame
