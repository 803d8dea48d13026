"""How a computation comes to a node and leaves it: its nursery, its directory, its loading."""

import logging
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import gevent

from dispy.execution.core import Execution
from dispy.execution.records import Key
from dispy.node.needs import JobNeeds
from dispy.node.nurseries import Nurseries
from dispy.node.offer import why_not
from dispy.node.owners import Owner
from dispy.node.processes import ComputationProcesses
from dispy.node.running import FRUITLESS, Running
from dispy.node.store import Store
from dispy.protocol.frames import Buffer
from dispy.protocol.messages import Kind

logger = logging.getLogger("dispy.node")

SPARE_SECONDS = 0.05  # after a computation's start before the next nursery is made ready


class Computations:
    """Opens and closes them; the tables and the core are the node's own."""

    def __init__(
        self,
        name: str,
        address: str,
        directory: Path,
        path: Sequence[str],
        core: Execution,
        table: MutableMapping[Key, ComputationProcesses],
        running: Running,
        store: Store,
    ) -> None:
        self._name, self._address = name, address
        self._directory, self._path = directory, list(path)
        self._core, self._table, self._running = core, table, running
        self._store = store
        self._nurseries = Nurseries()

    def open(
        self, owner: Owner, number: int, name: str, settings: dict[str, Any], content: Buffer
    ) -> None:
        """Begin to load a computation; its owner is told READY in the end."""
        key = (owner.owner_id, number)
        if key in self._table:
            self.tell_if_ready(owner, key)
            return
        refusal = why_not(self._name, name, settings)
        if refusal is not None:
            owner.tell(Kind.READY, [number, refusal])
            return
        directory = self._directory / owner.owner_id[:12] / str(number)
        directory.mkdir(parents=True)
        processes = ComputationProcesses(
            directory,
            handle=lambda worker, frame: self._running.from_worker(key, worker, frame),
            loaded=lambda error: self._loaded(owner, key, error),
            lost=lambda reason: self._nursery_lost(owner, key, reason),
            died=lambda worker: self._running.worker_died(key, worker),
        )
        processes.streams = bool(settings.get("stream"))
        processes.needs = JobNeeds(
            owner.fetching,
            self._store,
            ready=lambda job: self._running.unblock(key, job),
            failed=lambda job, why: self._running.fail(key, job, why),
        )
        self._table[key] = processes
        self._core.computation_opened(key)
        provided = {
            "dispy_node_name": self._name,
            "dispy_node_ip_addr": self._address,
            "dispy_job_path": str(directory),
        }
        shares = owner.link is not None and owner.link.shares_memory
        settings = {
            "program": bool(settings.get("program")),
            "java": str(settings.get("java")),
            "names": provided,
            "path": self._path,
            "shares_memory": shares,
            "isolation": settings.get("isolation"),
            "stream": processes.streams,
        }
        processes.load(self._nurseries.take(), name, settings, content)

    def _loaded(self, owner: Owner, key: Key, error: str | None) -> None:
        processes = self._table.get(key)
        if processes is None:
            return  # closed while it was loading
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
        owner.tell(Kind.READY, [key[1], error])
        if error is None:
            self._running.perform(self._core.computation_ready(key))
        gevent.spawn_later(SPARE_SECONDS, self._nurseries.prepare)

    def _nursery_lost(self, owner: Owner, key: Key, reason: str) -> None:
        """Load a computation again whose nursery somebody killed; its jobs go on then."""
        processes = self._table.get(key)
        if processes is None or self._running.stopping:
            return
        if not processes.was_ready:
            self._loaded(owner, key, reason)
            return
        self._core.computation_unready(key)
        processes.fruitless += 1
        if processes.fruitless > FRUITLESS:
            self._break(key, reason)
            return
        logger.warning("the nursery of a computation of %s is replaced: %s", owner.name, reason)
        processes.load_again(self._nurseries.take())

    def _break(self, key: Key, reason: str) -> None:
        """Give up a computation that ran before; each job of it ends with the reason."""
        self._table[key].broken = f"node {self._name} cannot run it any more: {reason}"
        self._running.refuse(key, self._core.not_begun(key))

    def tell_if_ready(self, owner: Owner, key: Key) -> None:
        """Tell an owner that a computation is ready, which it may have missed."""
        if self._core.computations[key].ready:
            owner.tell(Kind.READY, [key[1], None])

    def close(self, key: Key) -> None:
        """End a computation; nobody wants what it still does."""
        processes = self._table.pop(key, None)
        if processes is None:
            return
        for worker_id in processes.workers:
            self._running.workers.pop(worker_id, None)
        processes.needs.close()
        self._running.perform(self._core.computation_closed(key))
        self._nurseries.end(processes)

    def stop(self) -> None:
        """End all of them; returns when their processes are gone."""
        for processes in self._table.values():
            self._nurseries.end(processes)
        self._nurseries.stop()  # also those that were closed just before
