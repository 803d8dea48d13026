"""What a node looks at from time to time: busy workers, shares, signs of life.

Two greenlets. The one that looks at workers sleeps while none is busy, so that an idle node
costs nothing but its heartbeats.
"""

from collections.abc import Callable, Sequence
from time import monotonic

import gevent
from gevent.event import Event

from dispy.execution.core import Execution
from dispy.execution.records import Action, Key
from dispy.net.rhythm import Rhythm
from dispy.node.owners import Owner
from dispy.node.processes import WorkerProcess
from dispy.protocol.handshake import UNUSED_PULSES
from dispy.protocol.messages import Kind

PULSE_SECONDS = 5.0  # between signs of life, ours and the owner's, where it wants none more often
LOOKS = 4  # at whether one is due, in that time
SILENT_PULSES = 5  # that an owner may miss before it is away
SUPERVISION_SECONDS = 0.01
OUTPUT_SECONDS = 0.1


class Watch:
    """Watches over the workers and owners of one node; both tables are the node's own."""

    def __init__(
        self,
        core: Execution,
        workers: dict[int, WorkerProcess],
        owners: dict[str, Owner],
        perform: Callable[[Sequence[Action]], None],
        look_at_memory: Callable[[float], None],
    ) -> None:
        self._core, self._workers, self._owners, self._perform = core, workers, owners, perform
        self._look_at_memory = look_at_memory
        self._work = Event()
        self._sooner = Event()  # an owner wants signs of life sooner than the next one comes
        self._greenlets = [gevent.spawn(self._supervise), gevent.spawn(self._beat)]

    def wake(self) -> None:
        """Begin to look at workers: there are jobs."""
        self._work.set()

    def beat_sooner(self) -> None:
        """Look again at how often owners want to hear from us."""
        self._sooner.set()

    def stop(self) -> None:
        """End both greenlets."""
        gevent.killall(self._greenlets)

    def _supervise(self) -> None:
        output_at = share_at = monotonic()
        while True:
            self._work.wait()
            gevent.sleep(SUPERVISION_SECONDS)
            now = monotonic()
            bound = now - output_at > OUTPUT_SECONDS
            busy = False
            for worker_id, worker in list(self._workers.items()):
                fed = self._core.workers[worker_id]
                if fed.jobs:
                    busy = True
                    expected = fed.computation.duration or 0.0
                    worker.supervise(now, expected, behind=len(fed.jobs) > 1)
                    if bound:
                        if worker.streams:
                            self._stream(fed.key, worker)
                        worker.bound_output()
            if bound:
                output_at = now
            if now - share_at > OUTPUT_SECONDS:
                share_at = now
                self._look_at_memory(now)
                self._perform(self._core.time_passed(now))
            if not busy and not self._core.active_owners:
                self._work.clear()

    def _stream(self, key: Key, worker: WorkerProcess) -> None:
        """Send what the worker's job has written of late."""
        owner = self._owners[key[0]]
        for job, descriptor, offset, text in worker.new_output():
            owner.tell(Kind.OUTPUT, [key[1], job, descriptor, offset, text])

    def _beat(self) -> None:
        """Give every connected owner a sign of life in time, and look for its own.

        The link of an owner that is silent is cut: its machine may be switched off, and what waits
        for it would grow. The one of a local node has no network, and ends with its program.
        """
        rhythm = Rhythm(monotonic())
        while True:
            wanted = [o.pulse_seconds for o in self._owners.values() if o.pulse_seconds > 0]
            self._sooner.clear()
            self._sooner.wait(timeout=min([PULSE_SECONDS, *wanted]) / LOOKS)
            now, late = monotonic(), 1.5 * min([PULSE_SECONDS, *wanted])
            rhythm.beat(now, late)
            for owner in self._owners.values():
                if owner.link is None:
                    continue
                pause = min(PULSE_SECONDS, owner.pulse_seconds or PULSE_SECONDS)
                if not self._has_computations(owner):
                    pause *= UNUSED_PULSES
                heard = max(owner.link.last_sign, owner.pulse_since)
                silent = now - rhythm.silent_since(heard, now, late)
                if silent > pause * SILENT_PULSES and not owner.shares_memory:
                    owner.link.cut(f"it has been silent for {silent:.0f} s")
                elif now - owner.link.spoke > pause - pause / LOOKS:  # else it would be too late
                    owner.tell(Kind.PULSE, [])

    def _has_computations(self, owner: Owner) -> bool:
        return any(key[0] == owner.owner_id for key in self._core.computations)
