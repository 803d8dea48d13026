"""Setup and cleanup of a computation, which its nursery runs itself.

What they write is captured as a job's output is. SIGTERM, from the node, is KeyboardInterrupt
in them; at any other time it ends the process, as it does where nobody has said anything else.
"""

import contextlib
import gc
import os
import reprlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from dispy.model.errors import DispyError
from dispy.shipping.failures import describe_failure
from dispy.shipping.payloads import unpack
from dispy.worker.channel import move_out_of_the_way
from dispy.worker.computation import Computation, function_of
from dispy.worker.inside import NAMES
from dispy.worker.output import Output, make_outputs

SUCCESS = (None, 0, 1, 2)  # 1 and 2 told dispy 4.15 where jobs should be forked from
THREADS_TOLD = 10
_SHUTDOWN = "dispynode_shutdown"

Told = dict[str, Any]  # what else there is to tell: "stdout", "stderr", "threads", "shutdown"


class Preparing:
    """Calls a computation's setup, then its cleanup, with the same arguments."""

    def __init__(
        self, computation: Computation, packed_arguments: bytes | None, may_shut_down: bool
    ) -> None:
        """`may_shut_down`: whether cleanup may end the node."""
        self._computation, self._packed = computation, packed_arguments
        self._may_shut_down = may_shut_down
        self._arguments: tuple[Any, ...] = ()

    def set_up(self) -> tuple[str | None, Told]:
        """Run setup, if there is one; return why the computation cannot be used."""
        told: Told = {}
        setup = self._computation.setup
        if self._packed is not None:
            try:
                self._arguments = tuple(unpack(self._packed))
            except BaseException as failure:  # foreign code: the objects' own
                text = describe_failure(failure).text
                return f"its setup_args could not be rebuilt on the node:\n{text}", told
        if setup is None:
            return None, told
        value, error = _call(setup, self._arguments, told)
        if error is None and not _is_success(value):
            error = f"setup returned {reprlib.repr(value)}; None, 0, 1 and 2 mean success"
            after, _ = self.clean_up()
            error += f"; then its cleanup failed:\n{after}" if after is not None else ""
        if error is None:
            started = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
            if started:
                told["threads"] = started[:THREADS_TOLD]
            # Workers are forked from what there is now. A collection in one of them would write
            # to each object, and with that unshare it.
            gc.collect()
            gc.freeze()
        return error, told

    def clean_up(self) -> tuple[str | None, Told]:
        """Run cleanup, if there is one; return what it raised."""
        told: Told = {}
        cleanup = self._computation.cleanup
        if cleanup is None:
            return None, told

        def shut_down() -> None:
            if not self._may_shut_down:
                raise DispyError(
                    f"node {NAMES.get('dispy_node_name')} does not let clients end it; it must be "
                    f"started with --client_shutdown"
                )
            told["shutdown"] = True

        NAMES[_SHUTDOWN] = shut_down
        plain = function_of(cleanup)
        if plain is not None:
            plain.__globals__[_SHUTDOWN] = shut_down
        _, error = _call(cleanup, self._arguments, told)
        return error, told


def _is_success(value: object) -> bool:
    return value is None or (type(value) is int and value in SUCCESS)


def _call(
    function: Callable[..., Any], arguments: tuple[Any, ...], told: Told
) -> tuple[Any, str | None]:
    """Call foreign code; return its value and what it raised, and put its output into `told`."""
    with _captured(told), _interruptible() as interrupts:
        try:
            interrupts[0] = True
            value = function(*arguments)
            interrupts[0] = False
        except BaseException as error:  # foreign code
            interrupts[0] = False
            return None, describe_failure(error).text
        return value, None


@contextlib.contextmanager
def _interruptible() -> Iterator[list[bool]]:
    """Have SIGTERM raise KeyboardInterrupt while the yielded list says so."""
    wanted, process = [False], os.getpid()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a child that the code has forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif wanted[0]:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield wanted
    finally:
        if signal.getsignal(signal.SIGTERM) is interrupt:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _captured(told: Told) -> Iterator[None]:
    """Catch what this process and its children write, and put it into `told` as text."""
    streams = sys.stdin, sys.stdout, sys.stderr
    before = [move_out_of_the_way(os.dup(descriptor)) for descriptor in range(3)]
    output = Output(make_outputs())
    try:
        yield
    finally:
        for name, text in zip(("stdout", "stderr"), output.take(), strict=True):
            if text:
                told[name] = text.decode(errors="replace")
        for target, descriptor in enumerate(before):
            os.dup2(descriptor, target)
            os.close(descriptor)
        sys.stdin, sys.stdout, sys.stderr = streams
        output.close()
