"""One connection of two processes: frames out at once, frames in as they arrive.

`send` never waits: what the kernel does not take is kept, in order, and written when it does.
What is kept is bounded by the protocol: a node is sent no more jobs than it has room for, and
answers no more than it was given; large buffers are kept by reference. Large frames go out in
chunks, and URGENT frames go between these.

`read` runs in the greenlet of whoever owns the link and returns how the link ended; frames are
handled in the loop itself, so `handle` must not wait. (Switching to a greenlet for each frame
cost 20 us of 60.) A bug in `handle` is raised from `read`. All is used in one thread, its hub's.
"""

import contextlib
import socket as plain_socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat, takewhile
from time import monotonic
from typing import Any

import gevent
from gevent import get_hub
from gevent.event import AsyncResult, Event

from dispy.model.texts import one_line
from dispy.net.passing import WithDescriptors, encode_bulk, is_plain
from dispy.net.secure import Transport, is_of_other_user
from dispy.protocol.frames import (
    Buffer,
    Frame,
    FrameDecoder,
    FrameRefused,
    TakeShared,
    attach_sources,
    encode_chunks,
    encode_head,
)
from dispy.protocol.handshake import HELLO_SECONDS, Hello, NoHello, accept_hello, hello_decoder
from dispy.protocol.messages import Kind, check
from dispy.system.memory import blank
from dispy.system.processes import disconnect
from dispy.system.segments import DESCRIPTORS_SIZE, Descriptor, unpack_descriptors
from dispy.system.tcp import drop_unsent

READ_SIZE = 256 * 1024  # bytes; one buffer serves all links of a process
PIECES = 64  # in one system call; the kernel's own limit is 1024
FRAMES_A_TURN = 1000  # then others have theirs: one read may bring 30,000 frames, 3 us each
UNREAD = 10_000  # pieces of frames that wait for a peer which asks, and does not read answers
DESCRIPTORS_KEPT = 512  # received, of frames on their way; one frame has 253 at most
URGENT = frozenset({int(Kind.PULSE), int(Kind.CANCEL), int(Kind.REFUSE)})
_PULSE = encode_head(Kind.PULSE, [])
_READ, _WRITE = 1, 2  # libev's names for a watcher's events

# No greenlet switch lies between filling it and copying it out.
_buffer = memoryview(bytearray(READ_SIZE))

Pieces = list[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """How a link ended, in words; `refused` when a rule was broken, on either side."""

    reason: str
    refused: bool = False


class Link:
    """Owns a connected socket; `heard` and `spoke` are the seconds (monotonic) of last bytes.

    `shares_memory`: it is a Unix socket, and memory files may be passed over it.
    `reads_always`: False where the peer reads always; it is not read from while it does not.
    `gathers`: what is sent in one turn of the loop goes out together, for a peer that is told much.
    """

    def __init__(
        self,
        sock: Transport,
        shares_memory: bool = False,
        reads_always: bool = True,
        gathers: bool = False,
    ) -> None:
        sock.settimeout(0)
        self._sock: Any = sock
        # What the peer's certificate is known by; None: the link is not encrypted.
        self.peer_key: bytes | None = getattr(sock, "peer_key", None)
        # The roles that its certificate allows it; none: any.
        self.peer_roles: frozenset[str] = getattr(sock, "peer_roles", frozenset())
        self.shares_memory, self._reads_always = shares_memory, reads_always
        self._waits_for_reader = False
        self._gathers, self._gathering = gathers, False
        self._descriptors: deque[Descriptor] = deque()  # received, their frames not yet
        self._decoder = FrameDecoder(memory=blank)
        self._unsent: deque[bytes | memoryview] = deque()  # pieces whose order is fixed
        self._chunks: Iterator[Pieces] | None = None  # of the frame whose buffers go out
        self._behind: deque[tuple[bytes, Sequence[Buffer]]] = deque()  # frames that wait for it
        loop = get_hub().loop
        self._readable, self._writable = (loop.io(sock.fileno(), e) for e in (_READ, _WRITE))
        self._writing = False  # waiting for the kernel to take more
        self._all_sent: Event | None = None  # while somebody waits until nothing is kept
        self._ended: AsyncResult[LinkEnd] | None = None  # while somebody reads
        self._handle: Callable[[Frame], None] = _nobody_reads
        self._turn_over: Callable[[], None] | None = None
        self.heard = self.spoke = monotonic()
        self.received_bytes = self.sent_bytes = 0
        self.closed = self._released = False

    @property
    def last_sign(self) -> float:
        """The second (monotonic) of the peer's last sign of life: that it reads, if we do not."""
        return max(self.heard, self.spoke) if self._waits_for_reader else self.heard

    @property
    def peer_address(self) -> str:
        """The address of the other side; empty on a Unix socket, or once it is gone."""
        try:
            name = self._sock.getpeername()
        except OSError:
            return ""
        return str(name[0]) if isinstance(name, tuple) else ""

    def is_of_other_user(self) -> bool:
        """Say whether the other side is of another user of this machine, and has proven nothing."""
        return is_of_other_user(self._sock)

    # -- sending

    def send(self, kind: int, body: object, buffers: Sequence[Buffer] = ()) -> None:
        """Send one frame, or keep it until the peer takes it; nothing once the link is closed."""
        if self.closed:
            return
        if buffers:
            buffers, head = encode_bulk(kind, body, buffers, self.shares_memory)
        else:
            head = encode_head(kind, body)
        if self._chunks is not None and kind not in URGENT:
            self._behind.append((head, buffers))
            return
        self._unsent.append(head)
        if buffers:
            self._chunks = encode_chunks(buffers)
        if self._writing or self._gathering:
            return
        if self._gathers:
            self._gathering = True
            get_hub().loop.run_callback(self._write_gathered)
        else:
            self._write()

    def _write_gathered(self) -> None:
        if self._gathering and not self._released:
            self._gathering = False
            self._write()
            if not self._writing:
                self._all_is_sent()

    def send_descriptors(self, kind: int, body: object, descriptors: Sequence[int]) -> None:
        """Send a small frame with descriptors over a Unix socket that nothing is queued for."""
        assert not self.unsent, "descriptors travel with their frame's first byte"
        with contextlib.suppress(OSError):  # the reader learns of it too
            plain_socket.send_fds(self._sock, [encode_head(kind, body)], list(descriptors))

    def take_descriptors(self, count: int) -> list[Descriptor]:
        """Return those that came with the frame that is being handled; raises FrameRefused."""
        if len(self._descriptors) < count:
            raise FrameRefused("a frame came without its descriptors")
        return [self._descriptors.popleft() for _ in range(count)]

    def _write(self) -> None:
        """Write all there is; come back when the kernel takes more."""
        done = self._write_some()
        if done == self._writing:
            self._writing = not done
            if done:
                self._writable.stop()
                self._all_is_sent()
            else:
                self._writable.start(self._write)

    def _all_is_sent(self) -> None:
        self._wake_waiting()
        if self._waits_for_reader:
            self._waits_for_reader = False
            get_hub().loop.run_callback(self._go_on)

    def _write_some(self) -> bool:
        """Write until all is out (True) or the kernel takes no more (False)."""
        unsent = self._unsent
        while unsent or self._fetch():
            try:
                if type(unsent[0]) is WithDescriptors:
                    sent = plain_socket.send_fds(self._sock, [unsent[0]], unsent[0].descriptors)
                elif len(unsent) == 1:
                    sent = self._sock.send(unsent[0])
                else:
                    sent = self._sock.sendmsg(list(takewhile(is_plain, islice(unsent, PIECES))))
            except BlockingIOError:
                return False
            except OSError:
                unsent.clear()  # the reader learns of it too, and tells the owner
                self._chunks = None
                self._behind.clear()
                return True
            self.sent_bytes += sent
            self.spoke = monotonic()
            while sent:
                piece = unsent[0]
                if sent < len(piece):
                    unsent[0] = memoryview(piece)[sent:]
                    break
                sent -= len(piece)
                unsent.popleft()
        return True

    def _fetch(self) -> bool:
        """Take the next chunk, or the frames that waited for the last one; False: nothing."""
        if self._chunks is None:
            return False
        pieces = next(self._chunks, None)
        if pieces is not None:
            self._unsent.extend(pieces)
            return True
        self._chunks = None
        while self._behind and self._chunks is None:
            head, buffers = self._behind.popleft()
            self._unsent.append(head)
            if buffers:
                self._chunks = encode_chunks(buffers)
        return bool(self._unsent)

    def wait_sent(self) -> None:
        """Wait in the calling greenlet until all has left, or the link is closed."""
        self._write_gathered()
        while self.unsent and not self.closed:
            self._all_sent = self._all_sent or Event()
            self._all_sent.wait()

    def _wake_waiting(self) -> None:
        waiting, self._all_sent = self._all_sent, None
        if waiting is not None:
            waiting.set()

    @property
    def unsent(self) -> bool:
        """Whether something that was sent has not left yet."""
        return bool(self._unsent) or self._chunks is not None

    # -- receiving

    def exchange_hello(self, ours: Hello, role: str) -> Hello:
        """Say who we are and return who the peer is; `role` is what it must be.

        Waits in the calling greenlet. Raises FrameRefused with a sentence, and TimeoutError.
        """
        self.send(Kind.HELLO, ours.body())
        return self.hear_hello(role)

    def hear_hello(self, *roles: str) -> Hello:
        """Return who the peer is, without a word of who we are; as `exchange_hello`."""
        self._decoder = hello_decoder(blank)
        with gevent.Timeout(HELLO_SECONDS, TimeoutError("it did not say who it is")):
            while (frame := self._decoder.next_frame()) is None:
                if not self.closed and (self.peer_key is None or not self._sock.pending()):
                    get_hub().wait(self._readable)
                if self.closed or self._receive() is False:
                    raise NoHello("it closed the connection before saying who it is")
        theirs = accept_hello(frame, *roles)
        if self.peer_roles and theirs.certified_role not in self.peer_roles:
            allowed = " or ".join(sorted(self.peer_roles))
            raise FrameRefused(f"its certificate is for a {allowed}, not for a {theirs.role}")
        self._decoder.trust()
        return theirs

    def receive_into(self, take_shared: TakeShared) -> None:
        """Receive buffers where `take_shared` says, as far as it does."""
        self._decoder.take_shared = take_shared

    def limit_bulk(self, lets_in: Callable[[int], bool]) -> None:
        """Ask before memory is taken for a frame's buffers; those not let in come as `dropped`."""
        self._decoder.lets_in = lets_in

    def read(
        self, handle: Callable[[Frame], None], turn_over: Callable[[], None] | None = None
    ) -> LinkEnd:
        """Hand every frame to `handle` until the link ends; close it and say how it ended.

        `turn_over` is called after the frames of each read, to do once what they all ask for.
        """
        if self.closed:  # before this was called
            return LinkEnd("closed here")
        self._handle, self._turn_over = handle, turn_over
        self._ended = AsyncResult()
        try:
            self._go_on()  # with the frames that came with the hello
            end: LinkEnd = self._ended.get()
            return end
        finally:
            self._readable.stop()
            self._ended = None
            self.close()

    def _on_readable(self) -> None:
        try:
            came = self._receive()
            if came is None:
                return
            if not came:
                self._end(LinkEnd("closed by the peer"))
                return
        except OSError as error:
            self._end(LinkEnd(f"connection lost: {error.strerror or error}"))
        except FrameRefused as refusal:  # there is no memory for the next buffer
            self._refuse(refusal)
        else:
            self._on_frames()

    def _go_on(self) -> None:
        """Handle what has been read already, then wait for more."""
        if self._ended is None or self._ended.ready():
            return
        self._readable.start(self._on_readable)
        self._on_frames()

    def _rest(self, handled: bool) -> None:
        """Read no more until it is this link's turn again, where there is a reason.

        handled: all frames are that have been read. What TLS has read, the descriptor does not
        tell of.
        """
        if self._ended is None or self._ended.ready():
            return
        if not self._reads_always and len(self._unsent) + len(self._behind) > UNREAD:
            self._waits_for_reader = True
            self._readable.stop()
        elif not handled:
            self._readable.stop()
            get_hub().loop.run_callback(self._go_on)
        elif self.peer_key is not None and self._sock.pending():
            get_hub().loop.run_callback(self._on_pending)

    def _on_pending(self) -> None:
        if self._ended is not None and not self._ended.ready() and self._readable.active:
            self._on_readable()

    def _on_frames(self) -> None:
        """Handle the frames that are whole, and no more than others can wait for; a bug in that
        is the reader's to raise."""
        decoder = self._decoder
        handled = False
        try:
            for _ in repeat(None, FRAMES_A_TURN):
                frame = decoder.next_frame()
                if frame is None:
                    handled = True
                    break
                check(frame)
                if frame.buffers:
                    attach_sources(frame, self._descriptors)
                if frame.kind == Kind.REFUSE:
                    self._end(LinkEnd(one_line(frame.body[0]), refused=True))
                    return
                if frame.kind != Kind.PULSE:  # that it came is all it says
                    self._handle(frame)
                    if self.closed:
                        return
            if self._turn_over is not None:
                self._turn_over()
            self._rest(handled)
        except FrameRefused as refusal:
            self._refuse(refusal)
        except Exception as bug:
            if self._ended is None:
                raise
            self._readable.stop()
            self._ended.set_exception(bug)

    def _refuse(self, refusal: FrameRefused) -> None:
        self.send(Kind.REFUSE, [str(refusal)])
        self._end(LinkEnd(str(refusal), refused=True))

    def _end(self, end: LinkEnd) -> None:
        self._readable.stop()
        if self._ended is not None and not self._ended.ready():
            self._ended.set(end)

    def _receive(self) -> bool | None:
        """Read once, without waiting; False at the end of the stream, None where nothing came, or
        a sign of life alone."""
        space = self._decoder.space()
        try:
            if self.shares_memory:
                size, ancillary, _, _ = self._sock.recvmsg_into(
                    [_buffer if space is None else space], DESCRIPTORS_SIZE
                )
                if ancillary:
                    self._descriptors.extend(map(Descriptor, unpack_descriptors(ancillary)))
                    self._bound_descriptors()
            else:
                size = self._sock.recv_into(_buffer if space is None else space)
        except BlockingIOError:
            return None
        if not size:
            return False
        self.heard = monotonic()
        self.received_bytes += size
        if space is None:
            if _buffer[:size] == _PULSE and self._ended is not None and self._decoder.is_empty:
                return None  # that is most of what ten thousand idle nodes say
            self._decoder.feed(_buffer[:size])
        else:
            self._decoder.filled(size)
        return True

    def _bound_descriptors(self) -> None:
        """Keep no more than frames on their way can need; the frames of what goes are refused."""
        while len(self._descriptors) > DESCRIPTORS_KEPT:
            self._descriptors.pop()

    def cut(self, reason: str) -> None:
        """End a link whose peer says nothing; nobody keeps what was not sent."""
        self._unsent, self._behind, self._chunks = deque(), deque(), None
        if not self._released:
            drop_unsent(self._sock.fileno())
        self.close(reason)

    def close(self, reason: str = "closed here") -> None:
        """End the link; the greenlet in `read` returns. Safe to call again."""
        if not self.closed:
            self._write_gathered()
            self.closed = True
            with contextlib.suppress(OSError):  # the peer was faster
                self._sock.shutdown(plain_socket.SHUT_RDWR)
            self._end(LinkEnd(reason))
            self._wake_waiting()
        if self._ended is None and not self._released:
            self._released = True
            for watcher in (self._readable, self._writable):
                watcher.stop()
                watcher.close()
            self._sock.close()

    def forget(self) -> None:
        """In a forked child: give up its copy of the connection, which is the parent's alone."""
        if not self._released:
            disconnect(self._sock.fileno())


def _nobody_reads(frame: Frame) -> None:
    raise AssertionError("a frame came before anybody read")
