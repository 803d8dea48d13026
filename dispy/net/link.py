"""One connection of two processes: frames out at once, frames in by the reader's greenlet.

`send` never waits: what the kernel does not take is kept, in order, and written by a greenlet
that lives until it is through. What is kept is bounded by the protocol: a node is sent no more
jobs than it has room for, and answers no more than it was given. `read` runs in the greenlet
of whoever owns the link and returns how the link ended; a bug in `handle` is raised there.

Used in one thread, that of its hub. In an embedding program that is not the main thread.
"""

import contextlib
import socket as plain_socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import gevent
from gevent import get_hub
from gevent.socket import socket

from dispy.protocol.frames import Frame, FrameDecoder, FrameRefused, encode_frame
from dispy.protocol.handshake import HELLO_SECONDS, Hello, accept_hello, hello_decoder
from dispy.protocol.messages import Kind, check

READ_SIZE = 256 * 1024  # bytes; one buffer serves all links of a process
PIECES = 64  # in one system call; the kernel's own limit is 1024
_READ, _WRITE = 1, 2  # libev's names for a watcher's events

# No greenlet switch lies between filling it and copying it out.
_buffer = memoryview(bytearray(READ_SIZE))


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """How a link ended, in words; `refused` when a rule was broken, on either side."""

    reason: str
    refused: bool = False


class Link:
    """Owns a connected socket; `heard` and `spoke` are the seconds (monotonic) of last bytes."""

    def __init__(self, sock: socket, decoder: FrameDecoder | None = None) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._decoder = decoder or FrameDecoder()
        self._unsent: deque[memoryview] = deque()
        self._writer: gevent.Greenlet[..., Any] | None = None
        loop = get_hub().loop
        self._readable, self._writable = (loop.io(sock.fileno(), e) for e in (_READ, _WRITE))
        self.heard = self.spoke = monotonic()
        self.received_bytes = self.sent_bytes = 0
        self.closed = self._reading = self._released = False
        self._drained = True

    # -- sending

    def send(self, kind: int, body: object, buffers: Sequence[bytes] = ()) -> None:
        """Send one frame, or keep it until the peer takes it; nothing once the link is closed."""
        if self.closed:
            return
        pieces = encode_frame(kind, body, buffers)
        self._unsent.extend(map(memoryview, pieces))
        if self._writer is None and not self._write_some():
            self._writer = gevent.spawn(self._write_rest)
            self._writer.rawlink(self._writer_ended)

    def send_descriptor(self, kind: int, body: object, descriptor: int) -> None:
        """Send a small frame with a descriptor over a Unix socket that nothing is queued for."""
        assert not self._unsent, "a descriptor travels with its frame's first byte"
        (wire,) = encode_frame(kind, body)
        with contextlib.suppress(OSError):  # the reader learns of it too
            plain_socket.send_fds(self._sock, [wire], [descriptor])

    def _write_some(self) -> bool:
        """Write until all is out (True) or the kernel takes no more (False)."""
        unsent = self._unsent
        while unsent:
            try:
                if len(unsent) == 1:
                    sent = self._sock.send(unsent[0])
                else:
                    sent = self._sock.sendmsg([unsent[n] for n in range(min(PIECES, len(unsent)))])
            except BlockingIOError:
                return False
            except OSError:
                unsent.clear()  # the reader learns of it too, and tells the owner
                return True
            self.sent_bytes += sent
            self.spoke = monotonic()
            while sent:
                piece = unsent[0]
                if sent < len(piece):
                    unsent[0] = piece[sent:]
                    break
                sent -= len(piece)
                unsent.popleft()
        return True

    def _write_rest(self) -> None:
        hub = get_hub()
        while not self.closed and not self._write_some():
            hub.wait(self._writable)

    def _writer_ended(self, writer: object) -> None:
        self._writer = None
        if self.closed:
            self._release()

    @property
    def unsent(self) -> bool:
        """Whether something that was sent has not left yet."""
        return bool(self._unsent)

    # -- receiving

    def exchange_hello(self, ours: Hello, role: str) -> Hello:
        """Say who we are and return who the peer is; `role` is what it must be.

        Raises FrameRefused with a sentence, and TimeoutError.
        """
        self._decoder = hello_decoder()
        self.send(Kind.HELLO, ours.body())
        with gevent.Timeout(HELLO_SECONDS, TimeoutError("it did not say who it is")):
            while (frame := self._decoder.next_frame()) is None:
                if not self._receive():
                    raise FrameRefused("it closed the connection before saying who it is")
        theirs = accept_hello(frame, role)
        self._decoder.trust()
        return theirs

    def read(self, handle: Callable[[Frame], None]) -> LinkEnd:
        """Hand every frame to `handle` until the link ends; close it and say how it ended."""
        self._reading = True
        try:
            while True:
                while (frame := self._decoder.next_frame()) is not None:
                    check(frame)
                    if frame.kind == Kind.REFUSE:
                        return LinkEnd(frame.body[0], refused=True)
                    if frame.kind != Kind.PULSE:  # that it came is all it says
                        handle(frame)
                if not self._receive():
                    return LinkEnd("closed by the peer")
        except FrameRefused as refusal:
            self.send(Kind.REFUSE, [str(refusal)])
            return LinkEnd(str(refusal), refused=True)
        except OSError as error:
            return LinkEnd(f"connection lost: {error.strerror or error}")
        finally:
            self._reading = False
            self.close()

    def _receive(self) -> bool:
        """Wait for bytes and feed them; False at the end of the stream."""
        while True:
            if self._drained:  # the last read took all there was: asking again costs 2 us
                get_hub().wait(self._readable)
            try:
                size = self._sock.recv_into(_buffer)
            except BlockingIOError:
                self._drained = True
                continue
            self._drained = size < READ_SIZE
            self.heard = monotonic()
            self.received_bytes += size
            self._decoder.feed(_buffer[:size])
            return bool(size)

    def close(self) -> None:
        """End the link; the greenlet in `read` returns. Safe to call again."""
        if not self.closed:
            self.closed = True
            with contextlib.suppress(OSError):  # the peer was faster
                self._sock.shutdown(plain_socket.SHUT_RDWR)
            if self._writer is not None:
                self._writer.kill(block=False)
        self._release()

    def _release(self) -> None:
        """Free the descriptor once no greenlet waits on it."""
        if self._reading or self._writer is not None or self._released:
            return
        self._released = True
        self._readable.close()
        self._writable.close()
        self._sock.close()
