"""How a computation comes to a node and leaves it: its nursery, its directory, its loading."""

import logging
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from time import monotonic
from typing import Any

import gevent

from dispy.execution.core import Execution
from dispy.execution.records import NO_LIMIT, Key
from dispy.model.errors import DispyError
from dispy.model.limits import WATCHED, check_limits
from dispy.model.sizes import tell_bytes
from dispy.node.closing import Closings
from dispy.node.confinement import Confinement
from dispy.node.directories import Directories
from dispy.node.lending import WORKERS_SEGMENTS
from dispy.node.needs import JobNeeds
from dispy.node.nurseries import Nurseries
from dispy.node.offer import why_not
from dispy.node.owners import Owner, slots_of
from dispy.node.processes import ComputationProcesses, Told
from dispy.node.quotas import size_of, weight_of_table
from dispy.node.running import FRUITLESS, Running
from dispy.node.working import ALL_JOBS, WorkingFiles
from dispy.protocol.frames import Frame
from dispy.protocol.messages import Kind
from dispy.shipping.files import check
from dispy.shipping.store import Store
from dispy.system.segments import POOL_SEGMENTS
from dispy.system.shortage import is_shortage, tell_shortage

logger = logging.getLogger("dispy.node")

RETRY_SECONDS = 0.5  # before the next attempt to start a nursery
PATIENCE_SECONDS = 30.0  # with a first nursery, before its client is told that there will be none


class Computations:
    """Opens and closes them; the tables and the core are the node's own."""

    def __init__(
        self,
        name: str,
        address: str,
        directories: Directories,
        path: Sequence[str],
        core: Execution,
        table: MutableMapping[Key, ComputationProcesses],
        running: Running,
        store: Store,
        size_limit: int,
        shut_down: Callable[[str], None] | None,
        confinement: Confinement,
    ) -> None:
        """size_limit: bytes of a file that comes along; 0: any.

        shut_down: ends the node for a client's cleanup; None: that may not.
        """
        self._name, self._address = name, address
        self._directories, self._path = directories, list(path)
        self._size_limit = size_limit
        self._core, self._table, self._running = core, table, running
        self._store = store
        self._nurseries = Nurseries(confinement)
        self._may_shut_down = shut_down is not None
        self.closings = Closings(self._nurseries, shut_down or (lambda reason: None), running.limit)

    def open(
        self,
        owner: Owner,
        number: int,
        name: str,
        settings: dict[str, Any],
        frame: Frame,
    ) -> None:
        """Begin to load a computation; its owner is told READY in the end.

        frame: has the code.
        """
        key = (owner.owner_id, number)
        if key in self._table:
            self.tell_if_ready(owner, key)
            return
        if key in self.closings:
            opening = partial(self.open, owner, number, name, settings, frame)
            self.closings.then_open(key, opening)
            return
        refusal, limits = why_not(self._name, name, settings), {}
        weight = frame.dropped or size_of(frame.buffers[0]) + weight_of_table(settings)
        if frame.dropped or not owner.memory.fits(weight):
            why = owner.memory.why_not("its code", weight)
            if frame.lacking:
                why = f"it could get no memory for {tell_bytes(weight)} of code"
            refusal = f"on node {self._name}: {why}"
        if refusal is None:
            try:
                limits = check_limits(settings.get("limits"))
                entries = check(settings.get("files", []), self._size_limit)
                place = self._directories.open(owner.owner_id, number, owner.address, settings)
            except DispyError as error:
                refusal = f"on node {self._name}: {error}"
        if refusal is not None:
            owner.tell(Kind.READY, [number, refusal, {}])
            return
        files = WorkingFiles(
            place, self._directories, owner.fetching, self._store, self._name, owner.disk
        )
        processes = ComputationProcesses(
            files,
            owner.memory,
            handle=lambda worker, frame: self._running.from_worker(key, worker, frame),
            loaded=lambda error, told: self._loaded(owner, key, error, told),
            lost=lambda reason, shortage: self._nursery_lost(owner, key, reason, shortage),
            died=lambda worker: self._running.worker_died(key, worker),
            began=self._running.began,
            not_started=self._running.not_started,
        )
        processes.setup_seconds = _seconds(settings.get("setup_timeout"))
        processes.cleans_up = bool(settings.get("cleans_up"))
        processes.streams = bool(settings.get("stream"))
        processes.needs = JobNeeds(
            owner.fetching,
            self._store,
            files,
            self._size_limit,
            ready=lambda job: self._running.unblock(key, job),
            failed=lambda job, why: self._running.fail(key, job, why),
        )
        processes.count_code(weight)
        self._table[key] = processes
        width = slots_of(settings.get("cpus"))
        processes.limits, processes.is_program = limits, bool(settings.get("program"))
        self._core.computation_opened(key, width)
        if owner.backlog.held:
            self._core.owner_held_back(owner.owner_id, True)  # it may have had no other
        processes.watched = any(map(limits.get, WATCHED))
        most = int(limits.get("jobs_per_worker") or NO_LIMIT)
        self._core.computation_bounded(key, processes.watched, most)
        provided = {
            "dispy_node_name": self._name,
            "dispy_node_ip_addr": self._address,
            "dispy_job_path": str(place.path),
        }
        segments = POOL_SEGMENTS if owner.shares_memory else WORKERS_SEGMENTS
        settings = {
            "program": bool(settings.get("program")),
            "java": str(settings.get("java")),
            "names": provided,
            "path": self._path,
            "segments": segments,
            "isolation": settings.get("isolation"),
            "cpus": width,
            "stream": processes.streams,
            "store": str(self._store.directory),
            "setup_args": _bytes(settings.get("setup_args")),
            "client_shutdown": self._may_shut_down,
            "max_result_size": settings.get("max_result_size", 0),
            "limits": limits,
        }

        processes.prepare(name, settings, frame.buffers[0])

        def load(why: str | None) -> None:
            if self._table.get(key) is not processes or self._running.stopping:
                return  # closed while its files came
            if why is not None:
                self._loaded(owner, key, why, {})
            else:
                self._load(owner, key, processes)

        if entries:
            files.bring(entries, ALL_JOBS, load)
        else:
            load(None)

    def place(self, owner: Owner, number: int, token: int, table: dict[str, Any]) -> None:
        """Put files into a computation's directory (PLACE); its owner is told PLACED."""
        processes, weight = self._table.get((owner.owner_id, number)), weight_of_table(table)
        owner.memory.take(weight)

        def tell(why: str | None) -> None:
            owner.memory.release(weight)
            owner.tell(Kind.PLACED, [number, token, why])

        if processes is None:
            tell(f"on node {self._name}: the computation is not there")
            return
        if not owner.memory.fits(0):
            tell(f"on node {self._name}: {owner.memory.why_not('its list of files', weight)}")
            return
        try:
            entries = check(table.get("files"), self._size_limit)
        except DispyError as error:
            tell(f"on node {self._name}: {error}")
        else:
            processes.files.bring(entries, ALL_JOBS, tell)

    def _load(self, owner: Owner, key: Key, processes: ComputationProcesses) -> None:
        """Have a nursery load a computation, as soon as one can be started."""
        if self._table.get(key) is not processes or self._running.stopping:
            return
        try:
            nursery = self._nurseries.take(processes.directory)
        except OSError as error:
            if is_shortage(error):
                self._load_later(owner, key, processes, tell_shortage(error))
            else:
                self._fail(owner, key, f"a process cannot be started: {error.strerror or error}")
        except DispyError as error:
            self._fail(owner, key, str(error))
        else:
            processes.load(nursery)

    def _load_later(
        self, owner: Owner, key: Key, processes: ComputationProcesses, why: str
    ) -> None:
        """Try again; give up in the end, for a client that would wait for nothing else."""
        now = monotonic()
        if processes.short_since is None:
            processes.short_since = now
            logger.warning("a process for %s cannot be started for now: %s", owner.name, why)
        if now - processes.short_since > PATIENCE_SECONDS and not processes.was_ready:
            self._fail(owner, key, f"a process cannot be started: {why}")
            return
        self._running.perform(self._core.make_room())
        gevent.spawn_later(RETRY_SECONDS, self._load, owner, key, processes)

    def _fail(self, owner: Owner, key: Key, why: str) -> None:
        """Give up a computation that cannot be loaded, or not any more."""
        if self._table[key].was_ready:
            self._break(key, why)
        else:
            self._loaded(owner, key, f"on node {self._name}: {why}", {})

    def _loaded(self, owner: Owner, key: Key, error: str | None, told: Told) -> None:
        processes = self._table.get(key)
        if processes is None:
            return  # closed while it was loading
        processes.short_since = None
        if processes.was_ready:  # a nursery was replaced; the owner need not know
            if error is None:
                self._running.perform(self._core.computation_ready(key))
            else:
                self._break(key, error)
            return
        processes.was_ready = error is None
        if error is not None:
            given, actions = self._core.computation_failed(key, f"the computation ended: {error}")
            self._running.perform(actions)
            self._running.give_back(owner, key, given, error)
            self.close(key)
        owner.tell(Kind.READY, [key[1], error, told])
        if error is None:
            self._running.perform(self._core.computation_ready(key))

    def _nursery_lost(self, owner: Owner, key: Key, reason: str, shortage: bool) -> None:
        """Load a computation again whose nursery somebody killed, or that could not be started
        for now (`shortage`); its jobs go on then."""
        processes = self._table.get(key)
        if processes is None or self._running.stopping:
            return
        if shortage:
            self._load_later(owner, key, processes, reason)
            return
        if not processes.was_ready:
            self._loaded(owner, key, reason, {})
            return
        self._core.computation_unready(key)
        processes.fruitless += 1
        if processes.fruitless > FRUITLESS:
            self._break(key, f"{reason}, as did those before it")
            return
        logger.warning("the nursery of a computation of %s is replaced: %s", owner.name, reason)
        self._load(owner, key, processes)

    def _break(self, key: Key, reason: str) -> None:
        """Give up a computation that ran before; each job of it ends with the reason."""
        self._table[key].broken = f"node {self._name} cannot run it any more: {reason}"
        self._running.refuse(key, self._core.not_begun(key))

    def tell_if_ready(self, owner: Owner, key: Key) -> None:
        """Tell an owner that a computation is ready, which it may have missed.

        While its nursery is replaced, too: nobody is told when that is done.
        """
        processes = self._table.get(key)
        if processes is not None and processes.was_ready:
            owner.tell(Kind.READY, [key[1], None, {}])

    def limit(self, key: Key, workers: int) -> None:
        """Run at most so many of a computation's jobs at once."""
        if key in self.closings:
            self.closings.then_limit(key, workers)
        self._running.limit(key, workers)

    def close(self, key: Key, owner: Owner | None = None) -> None:
        """End a computation; nobody wants what it still does. `owner` is told when it is done."""
        processes = self._table.pop(key, None)
        if processes is None:
            if owner is not None:
                self.closings.close(key, owner)
            return
        for worker_id in processes.workers:
            self._running.workers.pop(worker_id, None)
        processes.needs.close()
        processes.files.close()
        processes.close_account()
        self._running.perform(self._core.computation_closed(key))
        self.closings.begin(key, processes, owner)

    def stop(self) -> None:
        """End all of them, after their cleanup; returns when their processes are gone."""
        self.closings.stop()
        for key, processes in self._table.items():
            self.closings.begin(key, processes, None)
        self._nurseries.stop()  # also those that were closed just before


def _seconds(said: Any) -> float | None:
    """Return a limit that an owner set, None for none; a peer's nonsense is none."""
    return float(said) if type(said) in (int, float) and 0 < said < float("inf") else None


def _bytes(said: Any) -> bytes | None:
    return said if isinstance(said, bytes) else None
