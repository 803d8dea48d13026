"""`isolation="job"`: each job runs in a process of its own, a fresh fork of the worker.

The worker stays what it is to its node: it holds the channel, the queue and the journal, answers
pokes, and takes the output, which parent and child write to the same files. The child runs
the job with the memory that loading the computation has left, changes what it likes, writes its
result into the journal, and is gone with all that it has changed or started. Its death is the
end of that job and of nothing else.

After a fork every page that either process writes to is copied or at least faulted on (2 us),
and that is most of what a job costs here: so the worker does no more between two forks than it
must, and reads the journal once for many jobs, when it answers.

What does not fit into the journal comes over a socket pair, while the worker waits: interim
results, files, large results. A job that has sent something there sends its result there too.
A SIGINT of the node's goes to the whole process group: in the child it is the job's
KeyboardInterrupt, in the worker a note. The kernel delivers a signal to a group either before
a fork, or to both sides after it, and one that the interpreter has not handled yet at the
fork is due in the child as well (`dispy.system.forking`).
"""

import contextlib
import gc
import os
import select
import signal
import socket
from collections.abc import Sequence
from os import _exit, getpid, getppid
from sys import modules
from time import monotonic, sleep, time
from typing import Any, NoReturn

import msgpack

from dispy.model.statuses import Status
from dispy.protocol.frames import Buffer, Frame, Shared
from dispy.protocol.messages import Bulk, Kind, Payload, check, join_payloads, split_payloads
from dispy.shipping.payloads import pack_call
from dispy.system.forking import (
    begin_child,
    end_descriptor,
    fork_plainly,
    has_no_children,
    release_end,
    restore_default,
)
from dispy.system.memory import return_freed_memory
from dispy.system.processes import children, how_it_ended, most_memory, widen
from dispy.system.shortage import is_shortage, tell_shortage
from dispy.worker.channel import Channel, EndOfChannel, move_out_of_the_way
from dispy.worker.computation import Computation
from dispy.worker.isolation import reseed
from dispy.worker.jobs import CANCELLED, FAILED, Extra, Worker, failure
from dispy.worker.journal import SharedJournal

_SIGTERM, _SIGXCPU = int(signal.SIGTERM), int(signal.SIGXCPU)
REHEARSALS = 20  # from the eighth call on CPython 3.11 specialises a function's code
TOLL_JOBS = 500  # with others behind them: until then it is nobody's loss
FORK_PATIENCE_SECONDS = 60.0  # that a job waits for its process on a machine that has no more
FORK_PAUSE_SECONDS = 0.05  # before the first attempt after a failed one
UNWATCHED_MS = 5  # between looks at a child, where the system cannot tell of its end
_Said = tuple[dict[str, Any], float] | None  # a job's limits, and the second of its beginning
_Outcome = tuple[Payload, Extra]


class Toll:
    """Finds out whether a process for each job is what limits their rate."""

    def __init__(self) -> None:
        self.told = False
        self._jobs, self._whole, self._own = 0, 0.0, 0.0

    def paid(self, jobs: int, whole: float, own: float) -> tuple[float, float] | None:
        """Count jobs one after the other: their seconds in all, and those that they ran.

        Once, when enough jobs have spent more on their processes than on themselves, return
        the mean seconds that a job ran, and that its process cost.
        """
        self._jobs += jobs
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

    _journal: SharedJournal

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        """As for Worker, with a SharedJournal."""
        self._child: int | None = None  # the process of the job that runs; 0: this is it
        # Sent to the group it is for the job; this process tells how that ended.
        signal.signal(signal.SIGTERM, _go_on)
        super().__init__(*arguments, **keywords)
        self._spoke = False  # in a child: it sent something through the socket
        self._heard: Frame | None = None  # its result that came through the socket
        self._status: int = 0
        self._usage: Any = None  # of the last child, as `os.wait4` gives them
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
            self._leave(0, time(), *self._run(call))
        self._journal.clear(None)
        self._journal.end()
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

    # -- in the worker

    def _run_next(self) -> None:
        number, payload, options = self._queue.popleft()
        said = None
        if options is not None or self._limits.for_all:
            # Noted: the process that runs the job sets its own limits.
            said = options or {}, monotonic()
            self._limits.leave_to_children()
        self._journal.begin(number)
        self._running = number
        start = time()
        outcome = self._run_apart(number, said, payload)
        if outcome is not None:
            self._send_answer()  # what the journal has of the jobs before
            self._note(number, start, time(), *outcome)
        self._running = None
        if outcome is not None:
            self._send_answer(recorded=False)

    def _run_apart(self, number: int, said: _Said, payload: Payload) -> _Outcome | None:
        """Have a child run a job; return what came of it, None where the journal has it."""
        try:
            if self._interrupt_noted or self._dropped:
                self._heed_interrupt()
            self._isolation.check()
            parent = self._pid
            pid = self._child = self._fork()
        except KeyboardInterrupt as error:
            return FAILED, failure(error, CANCELLED)
        except OSError as error:
            what = f"the node could not start a process for it: {tell_shortage(error)}\n"
            return FAILED, failure(error, what)
        if not pid:
            self._be_child(parent, number, said, payload)
        self._await_end(pid)
        self._child = None
        if not has_no_children():
            _end_company()
        return None if self._journal.came() else self._outcome()

    def _fork(self) -> int:
        """Fork, as soon as the machine can do it; raises OSError where that takes too long."""
        until, pause = monotonic() + FORK_PATIENCE_SECONDS, FORK_PAUSE_SECONDS
        while True:
            try:
                return fork_plainly()
            except OSError as error:
                if not is_shortage(error) or monotonic() > until:
                    raise
            sleep(pause)
            pause = min(2 * pause, 1.0)
            if self._interrupt_noted or self._dropped:
                self._heed_interrupt()

    def _await_end(self, pid: int) -> None:
        """Pass on what the child says, until it has ended."""
        watched = end_descriptor(pid)
        if watched is not None:
            self._poll.register(watched, select.POLLIN)
        patience = None if watched is not None else UNWATCHED_MS
        try:
            while True:
                for ready, _ in self._poll.poll(patience):
                    if ready != watched:
                        self._hear()
                ended, self._status, self._usage = os.wait4(pid, os.WNOHANG)
                if ended:
                    return
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

    def _outcome(self) -> _Outcome:
        """Return what a child has sent at its end, or how it ended without."""
        self._hear()
        if self._heard is not None:
            frame, self._heard = self._heard, None
            return self._claim(frame)
        self._connect()  # it may have died in the middle of a frame
        how, number = how_it_ended(self._status)
        # Its node says it in words, because it knows more.
        death = [how, most_memory(self._usage), number]
        extra: Extra = {"status": int(Status.Terminated), "death": death}
        if not self._was_interrupted():
            extra["died"] = True  # it may run again, where its owner says so
        stdout, stderr = self._output.take()
        if stdout or stderr:
            extra |= {"stdout": self._text(stdout), "stderr": self._text(stderr)}
        return FAILED, extra

    def _send_answer(self, recorded: bool = True) -> None:
        columns = self._journal.untold()
        if columns[0]:
            self._numbers, self._starts, self._ends, self._results, self._extras = columns
            self._pay_toll()
        super()._send_answer(recorded)

    def _pay_toll(self) -> None:
        jobs = len(self._numbers)
        if jobs > 1 and not self._toll.told:  # the others waited for the first
            own = sum(self._ends[:-1]) - sum(self._starts[:-1])
            toll = self._toll.paid(jobs - 1, self._starts[-1] - self._starts[0], own)
            if toll is not None:
                extras = dict(self._extras)
                extras[0] = {**extras.get(0, {}), "forking": toll}
                self._extras = [list(item) for item in extras.items()]

    def _clean(self) -> bool:
        return True  # nothing of a job's ran here

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
        ours = self._lent[buffer.token] = Shared(buffer.token, buffer.size, lease, buffer.readonly)
        return ours

    # -- in the child

    def _be_child(self, parent: int, number: int, said: _Said, payload: Payload) -> NoReturn:
        """Run the job and end. A bug of ours goes up to where the worker's would be told."""
        begin_child(parent, _SIGTERM)
        self._pid = getpid()
        if said is not None:
            restore_default(_SIGXCPU)
            self._limits.begin(*said)
        if "numpy.random" in modules:
            reseed()
        start = time()
        if type(payload) is Bulk:
            result, extra = self._run_bulk(payload)
        else:
            result, extra = self._run(payload)
        self._leave(number, start, result, extra)
        _exit(0)

    def _leave(self, number: int, start: float, result: Payload, extra: Extra) -> None:
        """Tell of the job that has just ended."""
        end = time()
        if getpid() != self._pid:
            self._end_fork()
        stdout, stderr = self._output.take_last()
        if stdout or stderr:
            extra |= {"stdout": self._text(stdout), "stderr": self._text(stderr)}
        packed = b""
        if extra:
            extra.pop("held", None)  # nobody looks at its arguments any more
            packed = msgpack.packb(extra)
        plain = type(result) is bytes and not self._spoke
        if plain and self._journal.leave(number, start, end, result, packed):
            return
        try:
            column, buffers = split_payloads([result])
            extras = [[0, extra]] if extra else []
            self._send(Kind.DONE, [[number], [start], [end], column, extras], buffers)
        except EndOfChannel as error:  # the job has closed our descriptors
            what = "its result could not be sent back:\n"
            packed = msgpack.packb(failure(error, what))
            self._journal.leave(number, start, end, FAILED, packed)

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
        self._spoke = True
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
