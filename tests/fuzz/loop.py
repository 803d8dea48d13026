"""What targets with a gevent loop share: failures of greenlets, turns of the loop, sockets.

No time passes and no thread runs that an input did not ask for, so that one input does the same
each time.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import gevent
from fuzz import messages
from gevent import get_hub

from dispy.protocol.frames import Frame, FrameDecoder, FrameRefused

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # disks are slow
TURNS = 3  # of the loop after each step: what one handler begins, another one ends


def directly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Do at once what else a thread would do."""
    return function(*arguments)


def signal_nobody(*_: Any) -> None:
    """Stand in for what sends signals: processes have the numbers that the fuzzer gives them."""
    raise ProcessLookupError


@contextmanager
def alone(*more: Any) -> Iterator[None]:
    """Signal no process, and use no threads."""
    threads = (
        "net.fetching", "net.possession", "node.working", "net.pieces", "scheduler.possession",
    )  # fmt: skip
    with ExitStack() as patches:
        patches.enter_context(mock.patch.multiple(os, kill=signal_nobody, killpg=signal_nobody))
        for module in threads:
            patches.enter_context(mock.patch(f"dispy.{module}.in_thread", directly))
        for patch in more:
            patches.enter_context(patch)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(5.0)  # the loop ends a turn after so long, done or not
        patches.callback(sys.setswitchinterval, interval)
        yield


class Failures:
    """Keeps what greenlets and callbacks of the loop raise, instead of printing it."""

    def __init__(self) -> None:
        self._hub = get_hub()
        self._kept: list[BaseException] = []

    def __enter__(self) -> "Failures":
        self._hub.print_exception = self._keep
        return self

    def _keep(self, context: Any, kind: Any, value: Any, traceback: Any) -> None:
        if not issubclass(kind, (gevent.GreenletExit, SystemExit)):
            self._kept.append(value.with_traceback(traceback) if traceback else value)

    def __exit__(self, *_: Any) -> None:
        del self._hub.print_exception

    def look(self) -> None:
        """Raise the first of them."""
        if self._kept:
            raise self._kept[0]


def turn(count: int = TURNS) -> None:
    """Let everything happen that can: a sleep of 0 would look at no socket."""
    for _ in range(count):
        gevent.sleep(1e-6)


class Wire:
    """The fuzzer's end of a connection."""

    def __init__(self, sock: Any) -> None:
        self._ours = sock
        self._ours.setblocking(False)
        self._decoder = FrameDecoder()
        self.ended = False

    def send(self, data: bytes) -> None:
        """Send as much as fits; the rest is lost."""
        try:
            self._ours.send(data)
        except OSError:
            self.ended = True

    def tell(self, kind: int, body: list[Any], buffers: Sequence[bytes] = ()) -> None:
        """Send a frame."""
        self.send(messages.encode(kind, body, buffers))

    def frames(self) -> list[Frame]:
        """Return what the other side has said since this was asked for last."""
        got: list[Frame] = []
        try:
            while data := self._ours.recv(1 << 18):
                self._decoder.feed(data)
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        try:
            while (frame := self._decoder.next_frame()) is not None:
                got.append(frame)
        except FrameRefused as refusal:
            raise AssertionError(f"what is sent breaks a rule: {refusal}") from None
        return got

    def close(self) -> None:
        self._ours.close()
