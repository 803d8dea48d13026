"""`isolation="job"`: each job runs in a process of its own, a fresh fork of the worker.

The worker stays what it is to its node: it holds the channel, the queue and the journal, answers
pokes, and takes the output, which parent and child write to the same files. The child runs
the job with the memory that loading the computation has left, changes what it likes, leaves
its result on the slip, and is gone with all that it has changed or started. Its death is the
end of that job and of nothing else.

What does not fit on the slip comes over a socket pair, while the worker waits: interim results,
files, large results. A SIGINT of the node's goes to the whole process group: in the child it is the
job's KeyboardInterrupt, in the worker a note. The kernel delivers a signal to a group either before
a fork, or to both sides after it, and one that the interpreter has not handled yet at the
fork is due in the child as well (`dispy.system.forking`).
"""

import contextlib
import gc
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from os import _exit, getpid, getppid
from time import monotonic, perf_counter
from typing import Any, NoReturn

import msgpack

from dispy.model.sizes import tell_bytes
from dispy.model.statuses import Status
from dispy.protocol.frames import Buffer, Frame, Shared
from dispy.protocol.messages import Bulk, Kind, Payload, check, join_payloads, split_payloads
from dispy.shipping.payloads import pack_call
from dispy.system.forking import (
    die_with,
    end_descriptor,
    fork_plainly,
    release_end,
    restore_default,
)
from dispy.system.memory import return_freed_memory
from dispy.system.processes import children, how_it_ended, most_memory, widen
from dispy.worker.channel import Channel, EndOfChannel, move_out_of_the_way
from dispy.worker.computation import Computation
from dispy.worker.isolation import reseed
from dispy.worker.jobs import CANCELLED, FAILED, Extra, Worker, failure
from dispy.worker.slip import Slip

_SIGTERM, _SIGXCPU = int(signal.SIGTERM), int(signal.SIGXCPU)
REHEARSALS = 20  # from the eighth call on CPython 3.11 specialises a function's code
TOLL_JOBS = 500  # with others behind them: until then it is nobody's loss
UNWATCHED_MS = 5  # between looks at a child, where the system cannot tell of its end
_Said = tuple[dict[str, Any], float] | None  # a job's limits, and the second of its beginning
_Run = Callable[[Any], tuple[Payload, Extra]]


class Toll:
    """Finds out whether a process for each job is what limits their rate."""

    def __init__(self) -> None:
        self.told = False
        self._jobs, self._whole, self._own = 0, 0.0, 0.0

    def paid(self, whole: float, own: float) -> tuple[float, float] | None:
        """Count a job: its seconds in all, and those that it ran.

        Once, when enough jobs have spent more on their processes than on themselves, return
        the mean seconds that a job ran, and that its process cost.
        """
        self._jobs += 1
        self._whole += whole
        self._own += own
        if self._jobs < TOLL_JOBS:
            return None
        mean, toll = self._own / self._jobs, (self._whole - self._own) / self._jobs
        self._jobs, self._whole, self._own = 0, 0.0, 0.0
        self.told = toll > mean
        return (mean, toll) if self.told else None


class ForkingWorker(Worker):
    """A worker whose jobs see nothing of each other."""

    def __init__(self, node_name: str, *arguments: Any, **keywords: Any) -> None:
        """`node_name` is for people; the rest as for Worker."""
        # Sent to the group it is for the job; this process tells how that ended.
        signal.signal(signal.SIGTERM, _go_on)
        super().__init__(*arguments, **keywords)
        self._node_name = node_name
        self._slip = Slip()
        self._child: int | None = None  # the process of the job that runs; 0: this is it
        self._heard: Frame | None = None  # what it said through the socket of its end
        self._said: _Said = None
        self._most_memory = 0  # bytes that the last child had at once
        self._toll = Toll()
        self._connect()
        self._rehearse()
        return_freed_memory()
        gc.freeze()  # so that no collection in a child writes to memory that it shares

    def _rehearse(self) -> None:
        """Walk a child's way here: what the interpreter learns of it would else be learnt, and
        written to memory that is shared, in every child anew."""
        ours, self._computation = self._computation, Computation("", abs, None)
        call = pack_call("", (1,), {})
        for _ in range(REHEARSALS):
            getppid()
            result, extra = super()._run(call)
            self._output.flush()
            self._leave(result, extra, 0.0)
        self._computation = ours

    def _connect(self) -> None:
        """Make the socket pair through which children speak; each has both ends."""
        ours, theirs = (
            Channel(socket.socket(fileno=move_out_of_the_way(sock.detach())))
            for sock in socket.socketpair()
        )
        for channel in (ours, theirs):
            widen(channel.sock)
        self._ours, self._theirs = ours, theirs
        self._poll = select.poll()
        self._poll.register(ours.sock, select.POLLIN)

    def _run(self, payload: Payload) -> tuple[Payload, Extra]:
        return self._run_apart(super()._run, payload)

    def _run_bulk(self, payload: Bulk) -> tuple[Payload, Extra]:
        return self._run_apart(super()._run_bulk, payload)

    # -- in the worker

    def _limit(self, options: dict[str, Any]) -> None:
        """Note what holds for the next job: the process that runs it sets its own limits."""
        self._said = options, monotonic()
        self._limits.leave_to_children()

    def _run_apart(self, run: _Run, payload: Any) -> tuple[Payload, Extra]:
        if self._child == 0:
            return run(payload)  # a job with bulk, whose arguments are mapped now
        begin = perf_counter()
        said, self._said = self._said, None
        try:
            if self._interrupt_noted or self._dropped:
                self._heed_interrupt()
            self._isolation.check()
            self._slip.clear()
            parent, self._heard = self._pid, None
            pid = self._child = fork_plainly()
        except KeyboardInterrupt as error:
            return FAILED, failure(error, CANCELLED)
        except OSError as error:
            return FAILED, failure(error, "the node could not start a process for it:\n")
        if not pid:
            self._be_child(parent, said, run, payload)
        status = self._await_end(pid)
        self._child = None
        _end_company()
        result, extra = self._outcome(status)
        if self._queue and not self._toll.told:  # others wait for this one
            toll = self._toll.paid(perf_counter() - begin, self._slip.seconds)
            return result, extra if toll is None else {**extra, "forking": toll}
        return result, extra

    def _await_end(self, pid: int) -> int:
        """Pass on what the child says, until it has ended; return its wait status."""
        watched = end_descriptor(pid)
        if watched is not None:
            self._poll.register(watched, select.POLLIN)
        patience = None if watched is not None else UNWATCHED_MS
        try:
            while True:
                self._poll.poll(patience)
                ended, status, usage = os.wait4(pid, os.WNOHANG)
                if self._slip.spoke:
                    self._hear()
                if ended:
                    self._most_memory = most_memory(usage)
                    return status
        finally:
            if watched is not None:
                self._poll.unregister(watched)
                release_end(watched)

    def _hear(self) -> None:
        for frame in map(check, self._ours.receive_arrived()):
            if frame.kind == Kind.INTERIM:
                self._send(frame.kind, frame.body, frame.buffers)
            elif frame.kind == Kind.FILE:
                came = [self._ours.descriptors.popleft() for _ in range(2)]
                self._send(frame.kind, frame.body, descriptors=[c.descriptor for c in came])
            else:
                self._heard = frame

    def _outcome(self, status: int) -> tuple[Payload, Extra]:
        """Return what a child has left, or how it ended without."""
        left = self._slip.take()
        if left is not None:
            result, extra = left
            return result, msgpack.unpackb(extra) if extra else {}
        if self._heard is not None:
            return self._claim(self._heard)
        if self._slip.spoke:
            self._connect()  # it may have died in the middle of a frame
        reason = f"the worker process {how_it_ended(status)}"
        if self._was_interrupted():
            reason = f"cancelled; {reason}"
        reason = f"{reason}, while it ran this job on node {self._node_name}"
        reason = f"{reason}; it had used {tell_bytes(self._most_memory)} of memory at most"
        return FAILED, {"status": int(Status.Terminated), "exception": reason}

    def _claim(self, frame: Frame) -> tuple[Payload, Extra]:
        """Return a large result as our own: its segments belong to our pool from now on."""
        (result,) = join_payloads(frame.body[3], frame.buffers)
        if isinstance(result, Bulk):
            result.beside = [
                self._claim_segment(buffer) if isinstance(buffer, Shared) else buffer
                for buffer in result.beside
            ]
        return result, dict(frame.body[4]).get(0, {})

    def _claim_segment(self, buffer: Shared) -> Shared:
        assert self._pool is not None, "children have what we have"
        lease = self._pool.claim(buffer.token, buffer.size, buffer.source.descriptor)
        ours = self._lent[buffer.token] = Shared(buffer.token, buffer.size, lease)
        return ours

    # -- in the child

    def _be_child(self, parent: int, said: _Said, run: _Run, payload: Any) -> NoReturn:
        """Run the job and end. A bug of ours goes up to where the worker's would be told."""
        die_with(parent)
        self._pid = getpid()
        restore_default(_SIGTERM)
        if said is not None:
            restore_default(_SIGXCPU)
            self._limits.begin(*said)
        reseed()
        begin = perf_counter()
        result, extra = run(payload)
        seconds = perf_counter() - begin
        if getpid() != self._pid:
            self._end_fork()
        self._output.flush()
        self._leave(result, extra, seconds)
        _exit(0)

    def _leave(self, result: Payload, extra: Extra, seconds: float) -> None:
        extra.pop("held", None)  # nobody looks at its arguments any more
        if type(result) is bytes and self._slip.put(result, _packed(extra), seconds):
            return
        try:
            column, buffers = split_payloads([result])
            extras = [[0, extra]] if extra else []
            self._send(Kind.DONE, [[self._running], [0.0], [0.0], column, extras], buffers)
        except EndOfChannel as error:  # the job has closed our descriptors
            what = "its result could not be sent back:\n"
            self._slip.put(FAILED, _packed(failure(error, what)), seconds)

    def _send(
        self,
        kind: int,
        body: list[Any],
        buffers: Sequence[Buffer] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        if self._child != 0:
            super()._send(kind, body, buffers, descriptors)
            return
        self._slip.note_spoke()
        with self._sending:
            self._theirs.send(kind, body, buffers, descriptors)

    # -- signals

    def _heed_interrupt(self) -> None:
        if self._child != 0:
            super()._heed_interrupt()
            return
        if self._interrupt_noted:  # it came after the fork: it is for this job
            self._interrupt_noted = False
            self._interrupted_job = self._running
            raise KeyboardInterrupt

    def _interrupted(self, number: int, frame: Any) -> None:
        if self._child == 0:
            super()._interrupted(number, frame)
        else:
            self._interrupted_job, self._interrupt_noted = self._running, True

    def _poked(self, number: int, frame: Any) -> None:
        if self._child == 0:
            return
        super()._poked(number, frame)
        if self._child is not None and self._was_interrupted():
            # A signal that came just before a system call is noticed with the next one.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGURG)


def _packed(extra: Extra) -> bytes:
    packed: bytes = msgpack.packb(extra) if extra else b""
    return packed


def _go_on(number: int, frame: Any) -> None:
    """Handle a signal by doing nothing."""


def _end_company() -> None:
    """End whatever the job's process has left running: it is our child now."""
    with contextlib.suppress(ChildProcessError):
        while True:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                for pid in children(os.getpid()):
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                os.waitpid(-1, 0)
