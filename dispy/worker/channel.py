"""Frames over the socket pair between a node and one of its plain processes. Blocking.

One thread uses a channel. The end of the other side is EndOfChannel, whatever caused it.
"""

import contextlib
import fcntl
import os
import resource
import socket
import struct
from collections.abc import Sequence

from dispy.protocol.frames import Buffer, Frame, FrameDecoder, encode_frame
from dispy.system.memory import blank

READ_SIZE = 256 * 1024  # bytes; a packet of small jobs in one read
OUT_OF_THE_WAY = 1000  # descriptor; jobs that close "all" rarely look beyond 255
_DESCRIPTORS_SIZE = socket.CMSG_LEN(4 * 4)  # four C ints come along at most


class EndOfChannel(Exception):
    """The other side has gone."""


class Channel:
    """Send and receive frames; `descriptors` collects those that came along (SCM_RIGHTS)."""

    def __init__(self, sock: socket.socket, with_descriptors: bool = False) -> None:
        sock.setblocking(True)
        self.sock = sock
        self.descriptors: list[int] = []
        self._decoder = FrameDecoder(memory=blank)
        self._read = self._read_with_descriptors if with_descriptors else self._read_plain
        self._buffer = memoryview(bytearray(READ_SIZE))

    def send(self, kind: int, body: object, buffers: Sequence[Buffer] = ()) -> None:
        """Send one frame; raises EndOfChannel."""
        try:
            for piece in encode_frame(kind, body, buffers):
                self.sock.sendall(piece)
        except OSError as error:
            raise EndOfChannel(str(error)) from None

    def receive(self) -> Frame:
        """Return the next frame; raises EndOfChannel."""
        while (frame := self._decoder.next_frame()) is None:
            self._read(0)
        return frame

    def receive_arrived(self) -> list[Frame]:
        """Return the frames that are here already; raises EndOfChannel."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                self._read(socket.MSG_DONTWAIT)
        while (frame := self._decoder.next_frame()) is not None:
            frames.append(frame)
        return frames

    def _read_plain(self, flags: int) -> None:
        space = self._decoder.space()
        try:
            size = self.sock.recv_into(self._buffer if space is None else space, 0, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise EndOfChannel(str(error)) from None
        if not size:
            raise EndOfChannel("closed by the other side")
        if space is None:
            self._decoder.feed(self._buffer[:size])
        else:
            self._decoder.filled(size)

    def _read_with_descriptors(self, flags: int) -> None:
        try:
            # Not socket.recv_fds: until Python 3.12 it forgets its flags.
            data, ancillary, _, _ = self.sock.recvmsg(READ_SIZE, _DESCRIPTORS_SIZE, flags)
        except BlockingIOError:
            raise
        except OSError as error:
            raise EndOfChannel(str(error)) from None
        if not data:
            raise EndOfChannel("closed by the other side")
        for _, _, packed in ancillary:
            self.descriptors += struct.unpack(f"{len(packed) // 4}i", packed)
        self._decoder.feed(data)


def move_out_of_the_way(descriptor: int) -> int:
    """Return a copy of `descriptor` with a high number, closed on exec; closes the original."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, min(OUT_OF_THE_WAY, soft - 16))
    os.close(descriptor)
    return kept
