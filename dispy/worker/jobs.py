"""A worker's life: take a packet of jobs, run each, answer with one frame of results.

Everything happens in the worker's main thread. Signals from the node:

SIGURG  a poke: send the results so far, and give back the jobs not begun. The node pokes a
        worker that has been silent for a while with jobs behind the one it runs.
SIGINT  a cancel of the job that runs: KeyboardInterrupt, only inside the user's code.
"""

import contextlib
import os
import signal
from collections import deque
from time import time
from typing import Any

from dispy.model.statuses import Status
from dispy.protocol.frames import Buffer, Shared
from dispy.protocol.messages import Bulk, Kind, Payload, check, join_payloads, split_payloads
from dispy.shipping.payloads import describe_failure, is_items, pack, unpack
from dispy.shipping.sharing import mapped, share, shared_buffers
from dispy.system.segments import MappedSegments, SegmentPool
from dispy.worker.channel import Channel, EndOfChannel
from dispy.worker.computation import Computation, call_each
from dispy.worker.isolation import Isolation
from dispy.worker.output import Output

Extra = dict[str, Any]
_FAILED = b""  # the result column of a job without one


class Worker:
    """Runs the jobs of one computation, one at a time."""

    def __init__(
        self, channel: Channel, computation: Computation, shares_memory: bool = False
    ) -> None:
        """`shares_memory`: results may go to the jobs' owner in memory files."""
        self._channel, self._computation = channel, computation
        self._segments = MappedSegments(released=lambda token: None)
        self._pool = SegmentPool() if shares_memory else None
        self._lent: dict[int, Shared] = {}  # results that their owner still looks at
        self._pid = os.getpid()
        self._queue: deque[tuple[int, Payload]] = deque()  # received, not begun
        self._running: int | None = None
        self._in_user_code = False
        self._sending = False
        self._forget_answer()
        self._output = Output()
        signal.signal(signal.SIGINT, self._interrupted)
        signal.signal(signal.SIGURG, self._poked)
        if computation.names is not None:
            computation.names["dispy_provisional_result"] = self.send_interim
        self._isolation = Isolation(computation.names)

    def serve(self) -> None:
        """Run jobs until the node closes the channel, or a job leaves what cannot be cleaned."""
        with contextlib.suppress(EndOfChannel):
            clean = True
            while clean:
                if not self._queue:
                    self._take(check(self._channel.receive()))
                while self._queue and clean:
                    self._run_next()
                    if not self._queue:
                        self._send_answer()  # nobody has to wait for the cleaning
                    clean = self._isolation.clean()
            self._retire()

    def _take(self, frame: Any) -> None:
        if frame.kind == Kind.RELEASE:
            for token in frame.body[0]:
                self._lent.pop(token, None)
            return
        assert frame.kind == Kind.JOBS, frame.kind
        numbers, column = frame.body
        self._queue.extend(zip(numbers, join_payloads(column, frame.buffers), strict=True))

    def _run_next(self) -> None:
        number, payload = self._queue.popleft()
        self._running = number
        start = time()
        if type(payload) is Bulk:
            result, extra = self._run_bulk(payload)
        else:
            result, extra = self._run(payload)
        end = time()
        self._running = None
        if os.getpid() != self._pid:
            os._exit(0)  # a child that the job forked came back from the job's code
        stdout, stderr = self._output.take()
        if stdout or stderr or self._computation.is_program:
            extra |= {"stdout": self._text(stdout), "stderr": self._text(stderr)}
        if extra:
            self._extras.append([len(self._numbers), extra])
        self._numbers.append(number)
        self._starts.append(start)
        self._ends.append(end)
        self._results.append(result)

    def _text(self, output: bytes) -> str | bytes:
        return output if self._computation.is_program else output.decode(errors="replace")

    def _run(self, payload: Payload) -> tuple[Payload, Extra]:
        """Run one job; return its packed result, and what is not the plain case."""
        what: str | None = "its arguments could not be rebuilt on the node"
        try:
            if is_items(payload):
                what = None
                self._in_user_code = True
                value: Any = call_each(self._computation.call, payload)
            else:
                arguments, keywords = unpack(payload)
                what = None
                self._in_user_code = True
                value = self._computation.call(*arguments, **keywords)
            self._in_user_code = False
            what = "its result could not be sent back"
            packed = pack(value, "the result")
            return (packed if type(packed) is bytes else self._share(packed)), {}
        except BaseException as error:  # SystemExit and KeyboardInterrupt end a job, not its worker
            self._in_user_code = False
            return _FAILED, _failure(error, what)

    def _run_bulk(self, payload: Bulk) -> tuple[Payload, Extra]:
        """Run a job whose large arguments are mapped; say which of them it still holds."""
        try:
            call, watched = mapped(payload, self._segments)
        except (OSError, ValueError) as error:
            return _FAILED, _failure(error, "its large arguments could not be mapped on the node")
        result, extra = self._run(call)
        del payload, call
        held = [token for token, alive in watched if alive() is not None]
        return result, {**extra, "held": held} if held else extra

    def _share(self, packed: Payload) -> Payload:
        if self._pool is None:
            return packed
        packed = share(packed, self._pool)
        self._lent.update({buffer.token: buffer for buffer in shared_buffers(packed)})
        return packed

    # -- what the node is told

    def _forget_answer(self) -> None:
        self._numbers: list[int] = []
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._results: list[Payload] = []
        self._extras: list[list[Any]] = []

    def _send_answer(self) -> None:
        if not self._numbers:
            return
        results, buffers = split_payloads(self._results)
        body = [self._numbers, self._starts, self._ends, results, self._extras]
        self._forget_answer()
        self._send(Kind.DONE, body, buffers)

    def _send(self, kind: int, body: list[Any], buffers: list[Buffer]) -> None:
        self._sending = True  # a poke in between must not put its frame into this one
        try:
            self._channel.send(kind, body, buffers)
        finally:
            self._sending = False

    def send_interim(self, result: object, relay: bool = False, timeout: float = 10) -> int:
        """`dispy_provisional_result`: send a value before the end; 0, or -1 without success."""
        try:
            column, buffers = split_payloads([pack(result, "the provisional result")])
            self._send(Kind.INTERIM, [self._running, column[0]], buffers)
        except Exception:  # foreign code, or the node has gone: upstream's answer to both
            return -1
        return 0

    def _retire(self) -> None:
        """Say that this process cannot be cleaned; the node gives its jobs to another."""
        self._send_answer()
        self._send(Kind.RETIRE, [], [])
        while True:
            self._channel.receive()  # until the node closes; what still comes is not run

    # -- signals

    def _interrupted(self, number: int, frame: Any) -> None:
        if self._in_user_code:
            raise KeyboardInterrupt

    def _poked(self, number: int, frame: Any) -> None:
        if self._running is None or self._sending or os.getpid() != self._pid:
            return  # about to answer anyway; the node pokes again if not
        with contextlib.suppress(EndOfChannel):
            for arrived in self._channel.receive_arrived():
                self._take(check(arrived))
            self._send_answer()
            if self._queue:
                given_back = [number for number, _ in self._queue]
                self._queue.clear()
                self._send(Kind.GIVEN_BACK, [given_back], [])


def _failure(error: BaseException, what: str | None) -> Extra:
    """Return the extra of a job that failed; `what` says what failed if not the user's code."""
    # The first frame is our own, which is nothing to a user.
    text, packed = describe_failure(error, skip=1)
    extra: Extra = {
        "status": int(Status.Terminated),
        "exception": f"{what}:\n{text}" if what else text,
    }
    if packed is not None:
        extra["error"] = packed
    return extra
