"""A node: gives its processors to the jobs of its owners.

The object that owns an `Execution` core and carries out what that decides. Everything runs in
greenlets of one thread; a handler never waits, so that each event is taken as a whole.
Never unpickles anything.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import gevent

from dispy.execution.core import Execution
from dispy.execution.records import Key
from dispy.model.events import event
from dispy.net.fetching import Fetching
from dispy.net.link import Link
from dispy.node.computations import Computations
from dispy.node.confinement import Confinement
from dispy.node.directories import Directories
from dispy.node.heirs import Heirs
from dispy.node.offers import Offers
from dispy.node.owners import Owner
from dispy.node.processes import ComputationProcesses
from dispy.node.quotas import client_limits
from dispy.node.running import Running
from dispy.node.spare import Spare
from dispy.node.spilled import Spilled
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import Hello, proven_identity
from dispy.protocol.messages import Kind
from dispy.shipping.store import Store, default_quota
from dispy.system.spare import measure

logger = logging.getLogger("dispy.node")

PULSE_LEAST_SECONDS = 0.05  # more often than this would be work for nothing
LEDGER_BITS = 40  # of the number of a batch; above them is which ledger of this node it is in


class Node:
    """Serves owners over links that are handed to it; `directory` holds all its files."""

    def __init__(
        self,
        name: str,
        cpus: int,
        directory: Path,
        address: str = "",
        path: Sequence[str] = (),
        max_file_size: int = 0,
        store_size: int | None = None,
        shut_down: Callable[[str], None] | None = None,
        memory_reserve: int | None = None,
        confinement: Confinement | None = None,
        client_memory: int | None = None,
        client_disk: int | None = None,
        zombie_seconds: float = 0.0,
        spill_above: int | None = None,
    ) -> None:
        """max_file_size: bytes of a file that comes along or that a job may send; 0: any.

        store_size: bytes of contents that are kept in case they are needed again.
        shut_down: called with a reason when a client's cleanup ends the node; None: none may.
        memory_reserve: bytes below which no job is started; 0: any; None: what suits the machine.
        confinement: of its jobs; None: they run as this process does.
        client_memory, client_disk: bytes that one client may have; 0: any; None: half of it all.
        zombie_seconds: how long what an absent client has here is kept; 0: for ever.
        spill_above: bytes of results of one client beyond which they go to disk; None: none do.
        """
        self.name, self.cpus, self.address = name, cpus, address
        self.identity = os.urandom(16).hex()  # of this process: a restarted node is another
        self._core = Execution(cpus)
        self._owners: dict[str, Owner] = {}
        self._ledgers = count()  # that were begun
        self._table: dict[Key, ComputationProcesses] = {}
        self._offers = Offers(max_file_size)
        self._running = Running(
            name, self._core, self._owners, self._table, self._offers, memory_reserve
        )
        self._root = directory
        confinement = confinement or Confinement()
        user = confinement.user
        self._directories = Directories(directory, user)
        quota = store_size or default_quota(directory)
        self._client_limits = client_limits(client_memory, client_disk, directory)
        self._zombie_seconds = zombie_seconds
        self._spill_above = spill_above or 0
        self._spilled = None if spill_above is None else Spilled(directory)
        self._heirs = Heirs(self._spilled, zombie_seconds)
        self._store = Store(
            directory / "store", quota, for_others=user is not None,
            listed=confinement.sandbox is None,
        )  # fmt: skip
        self._computations = Computations(
            name,
            address,
            self._directories,
            path,
            self._core,
            self._table,
            self._running,
            self._store,
            max_file_size,
            shut_down,
            confinement,
        )
        self.stopping = False
        self._spare = Spare(self._owners, self.spare, self._has_computations)

    # -- owners

    def spare(self) -> tuple[float, int, int, float] | str:
        """Return what the machine has to spare, as HELLO and STATUS say it, or why it cannot."""
        return measure(str(self._root))

    def serve(self, link: Link, hello: Hello) -> str:
        """Serve an owner on its new link until that ends; return how it ended."""
        owner_id = proven_identity(hello.identity, link.peer_key)
        owner = self._owners.get(owner_id)
        if owner is None:
            self._warn_of_imitation(hello, link.peer_address)
            owner = Owner(
                owner_id, hello.name, hello.identity, *self._client_limits,
                self._spilled, self._spill_above,
                hold=lambda why: self._running.hold_owner(owner_id, why),
            )  # fmt: skip
            self._owners[owner_id] = owner
            self._heirs.inherits(owner)
            # Behind all numbers that it may know from before it was forgotten here.
            owner.backlog.ledger.begin_after(next(self._ledgers) << LEDGER_BITS)
            owner.address = link.peer_address
            owner.fetching = Fetching(owner, self._store, owner.disk)
            logger.info(
                "client %s connected", owner.name, extra=event("client_connected", name=owner.name)
            )
        owner.came_back()
        self._wants_pulse(owner, hello.details)
        self._core.owner_connected(owner.owner_id)
        held = self._core.held(owner.owner_id)
        owner.connected(
            link,
            [job for jobs in held.values() for job in jobs],
            [key[1] for key in held] + self._computations.closings.asked_by(owner),
            greet=lambda: self._greet(owner, hello, held),
        )
        end = link.read(lambda frame: self._from_owner(owner, frame))
        if owner.link is link:
            owner.disconnected()
            has_something = owner.backlog.has_inherited or self._has_computations(owner)
            if not has_something:
                self._remove(owner)
                logger.info(
                    "client %s left", owner.name, extra=event("client_left", name=owner.name)
                )
            elif not self.stopping:
                told = event("client_away", name=owner.name, why=end.reason)
                logger.info(
                    "client %s is away: %s; its jobs go on", owner.name, end.reason, extra=told
                )
                if self._zombie_seconds:
                    owner.waited_for = gevent.spawn_later(
                        self._zombie_seconds, self._give_up, owner
                    )
        return end.reason

    def _greet(self, owner: Owner, hello: Hello, held: Mapping[Key, Any]) -> None:
        """Tell an owner, once it knows what is held, what it may have missed of all else."""
        for key in filter(self._table.__contains__, held):
            self._computations.tell_if_ready(owner, key)
            if hello.details.get("recover") is True:
                self._table[key].newest.tell_again(owner)
        self._offers.tell_again(owner)
        share = self._core.share_of(owner.owner_id)
        owner.tell(Kind.SHARE, [share, len(self._owners)])
        self._running.guard.tell(owner)

    def _has_computations(self, owner: Owner) -> bool:
        return any(key[0] == owner.owner_id for key in self._table)

    def _warn_of_imitation(self, hello: Hello, address: str) -> None:
        """Tell of a client that says it is one of ours, and has not its key: it gets nothing of
        that one's. Which of the two came first proves nothing, so neither is sent away."""
        for owner in self._owners.values():
            if owner.said == hello.identity:
                logger.warning(
                    "client %s at %s says that it is client %s, and has another key: "
                    "it is served as a client of its own",
                    hello.name, address, owner.name,
                )  # fmt: skip
                return

    def _wants_pulse(self, owner: Owner, table: dict[str, Any]) -> None:
        """Take an owner's word on how often it wants to hear from us, if it is more often."""
        with contextlib.suppress(TypeError, ValueError):  # a peer's nonsense means no opinion
            asked = float(table.get("pulse") or 0)
            seconds = max(PULSE_LEAST_SECONDS, asked)
            if asked > 0 and not 0 < owner.pulse_seconds <= seconds:
                owner.pulse_seconds, owner.pulse_since = seconds, monotonic()
                self._running.watch.beat_sooner()

    def _give_up(self, owner: Owner) -> None:
        logger.warning(
            "client %s did not come back in %g minutes (zombie_interval): its jobs are stopped, "
            "and its results are dropped",
            owner.name, self._zombie_seconds / 60,
        )  # fmt: skip
        self._forget(owner)

    def _forget(self, owner: Owner) -> None:
        for key in [key for key in self._table if key[0] == owner.owner_id]:
            self._computations.close(key)
        self._remove(owner)

    def _remove(self, owner: Owner) -> None:
        owner.fetching.close()
        owner.backlog.close()
        self._owners.pop(owner.owner_id, None)

    def _from_owner(self, owner: Owner, frame: Frame) -> None:
        body = frame.body
        if frame.kind == Kind.RUN:
            self._running.run(owner, (owner.owner_id, body[0]), frame)
        elif frame.kind == Kind.ACKNOWLEDGE:
            owner.acknowledged(body[0])
        elif frame.kind == Kind.FETCH:
            self._offers.fetch(owner, *body)
        elif frame.kind == Kind.TOOK:
            self._offers.took(owner, *body)
        elif frame.kind == Kind.OPEN:
            self._wants_pulse(owner, body[2])
            self._computations.open(owner, body[0], body[1], body[2], frame)
        elif frame.kind == Kind.LIST:
            running = self._core.running((owner.owner_id, body[0]))
            owner.tell(Kind.LISTED, [body[1], running])
        elif frame.kind == Kind.PLACE:
            self._computations.place(owner, *body)
        elif frame.kind == Kind.PIECE:
            owner.fetching.piece(frame)
        elif frame.kind == Kind.PROVEN:
            owner.fetching.proven(*body)
        elif frame.kind == Kind.RELEASE:
            self._running.lending.release(owner.owner_id, body[0])
        elif frame.kind == Kind.CLOSE:
            self._computations.close((owner.owner_id, body[0]), owner)
        elif frame.kind == Kind.CANCEL:
            self._running.cancel_all(owner, (owner.owner_id, body[0]), body[1])
        elif frame.kind == Kind.DROP:
            self._running.drop(owner, body[0])
        elif frame.kind == Kind.RECALL:
            self._running.recall(owner, (owner.owner_id, body[0]), body[1])
        elif frame.kind == Kind.LIMIT:
            self._computations.limit((owner.owner_id, body[0]), body[1])
        else:
            raise FrameRefused(f"{Kind(frame.kind).name} is not for a node to receive")

    # -- the end

    def stop(self, reason: str) -> None:
        """Give jobs back, end every process, remove every file; returns when that is done."""
        if self.stopping:
            return
        self.stopping = True
        self._spare.stop()
        self._running.stop(reason)
        self._computations.stop()
        for owner in self._owners.values():
            owner.fetching.close()
            owner.backlog.stop()
            if owner.link is not None:
                owner.link.close()
        self._heirs.stop()
        self._store.close()
        self._directories.stop()
