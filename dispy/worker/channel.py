"""Frames over the socket pair between a node and one of its plain processes. Blocking.

One thread uses a channel. The end of the other side is EndOfChannel, whatever caused it.
"""

import contextlib
import fcntl
import os
import resource
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from time import monotonic

from dispy.protocol.frames import (
    Buffer,
    Frame,
    FrameDecoder,
    Shared,
    attach_sources,
    encode_chunks,
    encode_head,
)
from dispy.system.memory import blank
from dispy.system.segments import DESCRIPTORS_SIZE, Descriptor, unpack_descriptors
from dispy.system.waking import yield_processor

READ_SIZE = 256 * 1024  # bytes; a packet of small jobs in one read
OUT_OF_THE_WAY = 1000  # descriptor; jobs that close "all" rarely look beyond 255


class EndOfChannel(Exception):
    """The other side has gone."""


class Channel:
    """Send and receive frames, and the descriptors that go with some of them (SCM_RIGHTS)."""

    def __init__(self, sock: socket.socket, together: int = 0) -> None:
        """together: descriptors that come with each frame that has some, where that is known.

        Where this process could not have all of them, there are others in their place that are -1.
        """
        sock.setblocking(True)
        self.sock = sock
        self.descriptors: deque[Descriptor] = deque()  # received, not yet taken
        self._together = together
        self._decoder = FrameDecoder(memory=blank)
        self._buffer = memoryview(bytearray(READ_SIZE))

    def send(
        self,
        kind: int,
        body: object,
        buffers: Sequence[Buffer] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send one frame; `descriptors` go with one without buffers. Raises EndOfChannel."""
        try:
            head = encode_head(kind, body, buffers)
            if not buffers:
                sent = socket.send_fds(self.sock, [head], descriptors) if descriptors else 0
                self.sock.sendall(memoryview(head)[sent:] if sent else head)
                return
            shared = [b.source.descriptor for b in buffers if isinstance(b, Shared)]
            if shared:
                sent = socket.send_fds(self.sock, [head], shared)
                self.sock.sendall(memoryview(head)[sent:])
            else:
                self.sock.sendall(head)
            for chunk in encode_chunks(buffers):
                for piece in chunk:
                    self.sock.sendall(piece)
        except OSError as error:
            raise EndOfChannel(str(error)) from None

    def receive(self, awake: float = 0.0) -> Frame:
        """Return the next frame; raises EndOfChannel.

        For `awake` seconds it is waited for without sleeping; see `dispy.system.waking`.
        """
        until = monotonic() + awake if awake else 0.0
        while (frame := self._decoder.next_frame()) is None:
            if not until:
                self._read(0)
                continue
            try:
                self._read(socket.MSG_DONTWAIT)
            except BlockingIOError:
                yield_processor()
                if monotonic() > until:
                    until = 0.0
        if frame.buffers:
            attach_sources(frame, self.descriptors)
        return frame

    def receive_arrived(self) -> Iterator[Frame]:
        """Yield the frames that are here already; raises EndOfChannel.

        Whoever takes descriptors that came with one does so before the next.
        """
        with contextlib.suppress(BlockingIOError):
            while True:
                self._read(socket.MSG_DONTWAIT)
        while (frame := self._decoder.next_frame()) is not None:
            attach_sources(frame, self.descriptors)
            yield frame

    def _read(self, flags: int) -> None:
        space = self._decoder.space()
        try:
            size, ancillary, said, _ = self.sock.recvmsg_into(
                [self._buffer if space is None else space], DESCRIPTORS_SIZE, flags
            )
        except BlockingIOError:
            raise
        except OSError as error:
            raise EndOfChannel(str(error)) from None
        if ancillary:
            came = unpack_descriptors(ancillary)
            self.descriptors.extend(map(Descriptor, came))
            self.descriptors.extend(Descriptor(-1) for _ in range(self._together - len(came)))
        elif said & socket.MSG_CTRUNC:
            self.descriptors.extend(Descriptor(-1) for _ in range(self._together))
        if not size:
            raise EndOfChannel("closed by the other side")
        if space is None:
            self._decoder.feed(self._buffer[:size])
        else:
            self._decoder.filled(size)


def move_out_of_the_way(descriptor: int) -> int:
    """Return a copy of `descriptor` with a high number, closed on exec; closes the original."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, min(OUT_OF_THE_WAY, soft - 16))
    os.close(descriptor)
    return kept
