"""A worker's life: take a packet of jobs, run each, answer with one frame of results.

Everything happens in the worker's main thread. Signals from the node:

SIGURG  a poke: send the results so far, and give back the jobs not begun. The node pokes a
        worker that has been silent for a while with jobs behind the one it runs.
SIGINT  a cancel of the job that runs: KeyboardInterrupt, only inside the user's code. Its
        number comes as a CANCEL before the signal, for a job that has not come so far.
"""

import contextlib
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pickle import loads
from time import monotonic, time
from typing import Any, NoReturn

import msgpack

from dispy.model.statuses import Status
from dispy.protocol.frames import Buffer, Frame, Shared
from dispy.protocol.messages import Bulk, Kind, Payload, check, join_payloads, split_payloads
from dispy.shipping.failures import describe_failure
from dispy.shipping.payloads import CHUNK, CannotPack, code_loader, pack, unpack
from dispy.shipping.sharing import mapped, share, shared_buffers
from dispy.system.processes import told_exit
from dispy.system.segments import MappedSegments, SegmentPool
from dispy.system.waking import AWAKE_SECONDS, BRIEF_SECONDS, Rhythm
from dispy.worker.channel import Channel, EndOfChannel
from dispy.worker.computation import Computation, call_each
from dispy.worker.inside import NAMES, node_logger
from dispy.worker.isolation import Isolation
from dispy.worker.jobcode import JobCode
from dispy.worker.journal import Journal
from dispy.worker.limits import JobLimits
from dispy.worker.output import Output
from dispy.worker.sending import send_file

Extra = dict[str, Any]
FAILED = b""  # the result column of a job without one
CANCELLED = "cancelled while it ran:\n"  # before the traceback of its KeyboardInterrupt


class Worker:
    """Runs the jobs of one computation, one at a time, in its `directory`."""

    def __init__(
        self,
        channel: Channel,
        journal: Journal,
        computation: Computation,
        directory: str,
        limits: JobLimits,
        outputs: Sequence[int],
        segments: int = 0,
        by_lines: bool = False,
        log: int = 2,
        max_result_size: int = 0,
    ) -> None:
        """outputs: files that take what jobs write.

        segments: memory files in which large results leave; 0: they are copied.

        by_lines: output is read while jobs run.

        log: descriptor of the node's own log.

        max_result_size: bytes of one result; 0: any.
        """
        self._channel, self._journal, self._computation = channel, journal, computation
        self._segments = MappedSegments(released=lambda token: None)
        self._pool = SegmentPool(segments) if segments else None
        self._max_result_size = max_result_size or sys.maxsize
        self._lent: dict[int, Shared] = {}  # results that their owner still looks at
        self._pid = os.getpid()
        # Received, not begun: number, payload, options.
        self._queue: deque[tuple[int, Payload, dict[str, Any] | None]] = deque()
        self._running: int | None = None
        self._in_user_code = False
        self._interrupted_job: int | None = None  # whose code got KeyboardInterrupt last
        self._in_poke = self._interrupted_in_poke = False  # SIGURG is being handled
        self._interrupt_noted = True  # SIGINT came outside a job's code; before this line, say
        self._dropped: set[int] = set()  # jobs that the node cancels
        self._sending = threading.Lock()
        self._rhythm = Rhythm()
        self._awake = 0.0  # seconds for which the next packet is waited for without sleeping
        self._forget_answer()
        self._output = Output(outputs, by_lines)
        signal.signal(signal.SIGINT, self._interrupted)
        signal.signal(signal.SIGURG, self._poked)
        if computation.is_program:  # it ends by the signals of a cancel, its worker tells how
            signal.signal(signal.SIGTERM, lambda *_: None)

        injected = {
            "dispy_provisional_result": self.send_interim,
            "dispy_send_file": self.send_file,
            "dispynode_logger": node_logger(log),
        }
        NAMES.update(injected)
        if computation.names is not None:
            computation.names.update(injected)
        code_loader[:] = [JobCode(computation.names).load]
        self._isolation = Isolation(computation.names, directory, self._output)
        self._limits = limits
        limits.started(lambda: self._in_user_code)

    def serve(self) -> None:
        """Run jobs until the node closes the channel, or a job leaves what cannot be cleaned."""
        with contextlib.suppress(EndOfChannel):
            clean = True
            while clean:
                if not self._queue:
                    self._take(check(self._channel.receive(self._awake)))
                    self._isolation.check()
                while self._queue and clean:
                    self._run_next()
                    if not self._queue:
                        self._send_answer()  # nobody has to wait for the cleaning
                    clean = self._clean()
                    if self._limits.may_wear and self._limits.is_worn():
                        clean = False
            self._retire()

    def _clean(self) -> bool:
        return self._isolation.clean()

    def _take(self, frame: Frame) -> None:
        if frame.kind == Kind.RELEASE:
            for token in frame.body[0]:
                self._lent.pop(token, None)
            return
        if frame.kind == Kind.CANCEL:
            self._dropped.update(frame.body[1])
            return
        assert frame.kind == Kind.JOBS, frame.kind
        numbers, column, extras = frame.body
        payloads, options = join_payloads(column, frame.buffers), dict(extras)
        self._queue.extend(
            zip(numbers, payloads, map(options.get, range(len(numbers))), strict=True)
        )

    def _run_next(self) -> None:
        number, payload, options = self._queue.popleft()
        limited = options is not None or self._limits.for_all
        if limited:  # before the node can see that it runs, whose clock is about to start
            self._limit(options or {})
        self._journal.begin(number)
        self._running = number
        start = time()
        if type(payload) is Bulk:
            result, extra = self._run_bulk(payload)
        else:
            result, extra = self._run(payload)
        end = time()
        self._running = None
        if limited:
            self._limits.end()
        if os.getpid() != self._pid:
            self._end_fork()
        stdout, stderr = self._output.take()
        if stdout or stderr or self._computation.is_program:
            extra |= {"stdout": self._text(stdout), "stderr": self._text(stderr)}
        self._note(number, start, end, result, extra)
        packed_extra = msgpack.packb(extra) if extra else b""
        if not self._journal.add(number, start, end, result, packed_extra):
            self._send_answer(recorded=False)

    def _note(self, number: int, start: float, end: float, result: Payload, extra: Extra) -> None:
        """Add to the next answer."""
        if extra:
            self._extras.append([len(self._numbers), extra])
        self._numbers.append(number)
        self._starts.append(start)
        self._ends.append(end)
        self._results.append(result)

    def _limit(self, options: dict[str, Any]) -> None:
        """Set what the next job may use."""
        self._limits.begin(options, monotonic())

    def _end_fork(self) -> None:
        """End a child that the job forked and that came back from the job's code."""
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(0)

    def _text(self, output: bytes) -> str | bytes:
        return output if self._computation.is_program else output.decode(errors="replace")

    def _run(self, payload: Payload) -> tuple[Payload, Extra]:
        """Run one job; return its packed result, and what is not the plain case."""
        what = "its arguments could not be rebuilt on the node:\n"
        # Each call of a function costs a job in a process of its own some 5 page faults (10 us):
        # this is written out where most jobs pass.
        try:
            if payload.startswith(CHUNK):
                what = ""
                self._in_user_code = True
                if self._interrupt_noted or self._dropped:
                    self._heed_interrupt()
                result = call_each(self._computation.call, payload)
                self._in_user_code = False
                self._isolation.recover()
            else:
                arguments, keywords = loads(payload) if type(payload) is bytes else unpack(payload)
                what = ""
                self._in_user_code = True
                if self._interrupt_noted or self._dropped:
                    self._heed_interrupt()
                value = self._computation.call(*arguments, **keywords)
                self._in_user_code = False
                self._isolation.recover()
                what = "its result could not be sent back:\n"
                result = pack(value, "the result")
            if len(result) > self._max_result_size:
                self._refuse(result)
            if type(result) is not bytes:
                result = self._share(result)
        except BaseException as error:  # SystemExit and KeyboardInterrupt end a job, not its worker
            self._in_user_code = False
            self._isolation.recover()
            if isinstance(error, KeyboardInterrupt) and self._was_interrupted():
                what = CANCELLED
            elif isinstance(error, MemoryError) and self._limits.memory:
                what = self._limits.tell_memory()
            return FAILED, failure(error, what)
        if self._computation.is_program and self._was_interrupted():
            reason = f"cancelled while it ran; the program {told_exit(value)}"
            return result, {"status": int(Status.Terminated), "exception": reason}
        return result, {}

    def _refuse(self, result: Payload) -> NoReturn:
        raise CannotPack(
            f"it has {len(result):,} bytes, and a result may have {self._max_result_size:,} at "
            f"most (max_result_size). Write it to a file and send that with dispy_send_file, "
            f"return less, or set another max_result_size for the cluster"
        )

    def _run_bulk(self, payload: Bulk) -> tuple[Payload, Extra]:
        """Run a job whose large arguments are mapped; say which of them it still holds."""
        try:
            call, watched = mapped(payload, self._segments)
        except (OSError, ValueError) as error:
            return FAILED, failure(error, "its large arguments could not be mapped on the node:\n")
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

    def _heed_interrupt(self) -> None:
        """Raise KeyboardInterrupt if the signal that came too early was for this job."""
        if self._running is None:
            return  # no job: what comes now is for the first one
        self._interrupt_noted = False
        running, self._running = self._running, None  # a poke must not read at the same time
        for frame in self._channel.receive_arrived():
            self._take(check(frame))
        self._running = running
        dropped, self._dropped = self._dropped, set()  # the others were done before it came
        if running in dropped:
            self._interrupted_job = running
            raise KeyboardInterrupt

    def _was_interrupted(self) -> bool:
        return self._interrupted_job == self._running

    # -- what the node is told

    def _forget_answer(self) -> None:
        self._numbers: list[int] = []
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._results: list[Payload] = []
        self._extras: list[list[Any]] = []

    def _send_answer(self, recorded: bool = True) -> None:
        """Send what is done. A last job that is not `recorded` runs, to whoever reads the
        journal, until it is sent: it must not be taken for one that was not begun."""
        if not self._numbers:
            return
        running = self._running
        if running is None and recorded:
            self._journal.end()
        brief = len(self._numbers) == 1 and self._ends[0] - self._starts[0] < BRIEF_SECONDS
        self._awake = AWAKE_SECONDS if brief and self._rhythm.beat(monotonic()) else 0.0
        results, buffers = split_payloads(self._results)
        body = [self._numbers, self._starts, self._ends, results, self._extras]
        self._forget_answer()
        self._send(Kind.DONE, body, buffers)
        self._journal.clear(running)  # one that runs goes on: a poke came in between

    def _send(
        self,
        kind: int,
        body: list[Any],
        buffers: Sequence[Buffer] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        with self._sending:  # a job's threads may send interim values and files
            self._channel.send(kind, body, buffers, descriptors)

    def send_interim(self, result: object, relay: bool = False, timeout: float = 10) -> int:
        """`dispy_provisional_result`: send a value before the end; 0, or -1 without success."""
        job = self._running
        if job is None or os.getpid() != self._pid:
            return -1  # a thread outlived its job, or a child that the job forked asks
        try:
            packed = pack(result, "the provisional result")
            if len(packed) > self._max_result_size:
                self._refuse(packed)
            column, buffers = split_payloads([packed])
            self._send(Kind.INTERIM, [job, column[0]], buffers)
        except Exception:  # foreign code, or the node has gone: upstream's answer to both
            return -1
        return 0

    def send_file(
        self, path: str | os.PathLike[str], relay: bool = False, timeout: float | None = 10
    ) -> int:
        """`dispy_send_file`: return 0 once the job's owner has the file; see `send_file`."""
        job = self._running
        if job is None or os.getpid() != self._pid:
            return -1  # as above
        return send_file(self._send_open_file, job, path, timeout)

    def _send_open_file(self, body: list[Any], descriptors: Sequence[int]) -> None:
        self._send(Kind.FILE, body, descriptors=descriptors)

    def _retire(self) -> None:
        """Say that this process cannot be cleaned; the node gives its jobs to another."""
        self._send_answer()
        self._send(Kind.RETIRE, [], [])
        while True:
            self._channel.receive()  # until the node closes; what still comes is not run

    # -- signals

    def _interrupted(self, number: int, frame: Any) -> None:
        if self._in_user_code:
            self._interrupted_job = self._running
            # A program was interrupted too and decides how it ends. An exception while its end
            # is waited for would lose its exit status.
            if self._computation.is_program:
                return
            if self._in_poke:  # half of a frame may be taken: the poke raises it in the end
                self._interrupted_in_poke = True
                return
            raise KeyboardInterrupt
        else:
            self._interrupt_noted = True

    def _poked(self, number: int, frame: Any) -> None:
        if self._running is None or self._sending.locked() or os.getpid() != self._pid:
            return  # about to answer anyway; the node pokes again if not
        if self._in_poke:
            return  # Python handles a signal in the midst of a handler too
        self._in_poke = True
        try:
            with contextlib.suppress(EndOfChannel):
                self._answer_poke()
        finally:
            self._in_poke = False
        if self._interrupted_in_poke:
            self._interrupted_in_poke = False
            raise KeyboardInterrupt

    def _answer_poke(self) -> None:
        for arrived in self._channel.receive_arrived():
            self._take(check(arrived))
        self._send_answer()
        if self._queue:
            given_back = [number for number, _, _ in self._queue]
            self._queue.clear()
            self._send(Kind.GIVEN_BACK, [given_back], [])


def failure(error: BaseException, what: str) -> Extra:
    """Return the extra of a job that failed; `what` leads its text."""
    described = describe_failure(error)
    extra: Extra = {"status": int(Status.Terminated), "exception": what + described.text}
    if described.error is not None:
        extra["error"] = described.error
    return extra
