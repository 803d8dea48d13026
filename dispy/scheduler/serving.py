"""A scheduler that many programs share, as a service: its door, its memory of before, its end."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from gevent.event import Event

from dispy.model.credentials import NOTHING, Credentials
from dispy.model.events import event
from dispy.net.dialing import listen
from dispy.net.door import Door, Guest
from dispy.net.link import Link
from dispy.net.pulses import Pulses
from dispy.net.secure import Transport
from dispy.protocol.claims import said_in
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import KNOCK, Hello, proven_identity
from dispy.protocol.messages import Kind
from dispy.scheduler.attaching import Attaching
from dispy.scheduler.budget import Budget
from dispy.scheduler.cleaning import clean
from dispy.scheduler.client import Client
from dispy.scheduler.client_files import ClientFiles
from dispy.scheduler.clients import Clients
from dispy.scheduler.counting import CountsLog
from dispy.scheduler.durable import Durable
from dispy.scheduler.hearing import Hearing
from dispy.scheduler.identity import begin
from dispy.scheduler.journal import SqliteJournal
from dispy.scheduler.journal_entries import Remembered
from dispy.scheduler.operators import Operators
from dispy.scheduler.recruiting import Recruiting
from dispy.scheduler.restoring import restore
from dispy.scheduler.room import OPERATORS, room_for
from dispy.scheduler.service import Scheduler
from dispy.scheduler.telling import Telling
from dispy.scheduling.core import Scheduling
from dispy.scheduling.policies import Policy
from dispy.system.descriptors import descriptor_limit

logger = logging.getLogger("dispy.scheduler")


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a scheduler keeps what it was given.

    directory: where, so that it is there after a restart; None: in memory alone. outlive_power: a
    machine's death too, not the process's alone. memory: bytes of arguments and results that are
    held beside the journal. zombie_seconds: for which a client that is away is remembered; 0: for
    ever. store_size, client_disk: of what clients bring, see `ClientContents`. max_file_size: bytes
    of one file; 0: any. clean: forget what an earlier scheduler was given.
    """

    directory: str | None = None
    outlive_power: bool = False
    memory: int = 1 << 30
    zombie_seconds: float = 0.0
    store_size: int | None = None
    client_disk: int | None = None
    max_file_size: int = 0
    clean: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """How a scheduler treats its clients.

    policy: by which clusters share the nodes; None: by load. owner_slots: that the clusters of one
    owner may have together; None: any number. cleanup_nodes: nodes remove what clusters have
    brought also where these want it kept. pulse_seconds: between signs of life of nodes; None: 5.
    """

    policy: Policy | None = None
    owner_slots: int | None = None
    cleanup_nodes: bool = False
    pulse_seconds: float | None = None


class SchedulerService:
    """Owns the scheduler, its clients and the door for these."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        credentials: Credentials = NOTHING,
        node_credentials: Credentials = NOTHING,
        keeping: Keeping = Keeping(),  # it never changes
        rules: Rules = Rules(),  # nor do these
    ) -> None:
        """Bind the port, 0: any that is free, and be what the earlier scheduler was.

        credentials: by which clients prove themselves; node_credentials: by which nodes do.
        Raises OSError where the port is taken, and DispyError where the directory cannot be used.
        """
        self.name = name
        listening = listen(host, port)
        self.address, self.port = listening.getsockname()[:2]
        identity, life, journal, known = os.urandom(16).hex(), 1, None, Remembered()
        if keeping.directory is not None:
            if keeping.clean:
                clean(keeping.directory)
            journal = SqliteJournal(keeping.directory, self._failed, keeping.outlive_power)
            known = journal.load()  # which locks the directory
            before = begin(keeping.directory)
            identity, life = before.identity, before.life
            node_credentials = replace(node_credentials, pair=before.pair)
        self._durable = Durable(journal)
        self.trouble = ""  # why nothing is written down for now, and all waits
        budget = Budget(keeping.memory)
        self.clients = Clients(self._durable, budget, keeping.zombie_seconds, life)
        telling = Telling(self.clients)
        core = Scheduling(rules.policy, rules.owner_slots)
        self.scheduler = Scheduler(telling, identity, name, node_credentials, core)
        self.clients.scheduler = self.scheduler
        directory, self._temporary = keeping.directory, None
        if directory is None:
            self._temporary = TemporaryDirectory(prefix="dispy-scheduler-")
            directory = self._temporary.name
        self.clients.files = ClientFiles(
            Path(directory, "contents"), self.scheduler,
            telling.given_up, self.clients.of, keeping.store_size, keeping.client_disk,
            keeping.outlive_power, keeping.max_file_size,
        )  # fmt: skip
        self.clients.recruiting = Recruiting(self.clients, self.scheduler)
        self.scheduler.want_pulse(rules.pulse_seconds)
        self._attaching = Attaching(self.clients, name)
        self._hearing = Hearing(
            self.clients, self._attaching, max(known.batches, default=0), rules.cleanup_nodes
        )
        restore(known, self.clients, self._hearing, telling, self.scheduler)
        self.operators = Operators(
            self.scheduler,
            self.clients,
            f"{self.address}:{self.port}",
            lambda: self.trouble,
            keeping.directory,
        )
        self._counts_log = CountsLog(self.clients.counts)
        self._pulses = Pulses(lambda: [*self.clients.links(), *self.operators.links()])
        self.room = room_for(descriptor_limit())
        self.scheduler.keepers.most = self.room.nodes
        self._door = Door(listening, credentials, self._receive, logger, self.room.door)

    @property
    def is_durable(self) -> bool:
        """Whether what it was given is there again after a restart."""
        return self._durable.journal is not None

    def _failed(self, why: str) -> None:
        self.trouble = why

    def _receive(self, transport: Transport, guest: Guest) -> None:
        """Serve a client that has proven what it must, until it has gone."""
        link = Link(transport, reads_always=False, gathers=True)
        try:
            hello = link.hear_hello("client", "operator")
            if not guest.admit(OPERATORS if hello.role == "operator" else 0):
                raise FrameRefused(
                    f"scheduler {self.name} has {self._door.known} programs connected, as many as "
                    f"it may: end some of them, or raise its limit of open files (`ulimit -Hn`)"
                )
        except FrameRefused as error:
            if link.received_bytes > len(KNOCK):
                guest.refuse(error)
            link.send(Kind.REFUSE, [str(error)])
        except OSError as error:
            logger.debug("%s did not say who it is: %s", guest.address, error)
        else:
            self.serve(link, hello)
        finally:
            link.close()

    def serve(self, link: Link, hello: Hello) -> None:
        """Speak with a client or an operator that has said who it is, until its link ends."""
        if hello.role == "operator":
            self.operators.serve(link, hello)
            return
        try:
            if hello.details.get("attach") is True:
                ours = Hello("scheduler", self.scheduler.identity, self.name)
                self._attaching.hand_over(link, hello, ours)
                return
            client = self._greet(link, hello)
        except FrameRefused as error:
            link.send(Kind.REFUSE, [str(error)])
            return
        if client is None:
            return
        told = event("client_connected", client=client.slot, name=client.name)
        logger.info("client %s connected", client.name, extra=told)

        def read(frame: Frame) -> None:
            self._hearing.read(client, frame)

        end = link.read(read, lambda: self.clients.turn_over(client))
        self.clients.left(client, link, end.reason)

    def _greet(self, link: Link, hello: Hello) -> Client | None:
        """Return who it is; None: it has been told that it has its cluster no more."""
        identity = proven_identity(hello.identity, link.peer_key)
        before, claim = hello.details.get("conversation"), said_in(hello.details)
        ours = Hello("scheduler", self.scheduler.identity, self.name, details={})
        if claim is None:
            client = self.clients.client(identity, hello.name, before)
        elif (held := self._attaching.client(claim, hello, identity)) is not None:
            client = held
        else:
            self._attaching.tell_over(link, claim, ours)
            return None
        token = client.token
        # It may rely on what it is told here, and drops what it hears to be heard.
        safe = Event()
        self._durable.when_safe(safe.set)
        safe.wait()
        if client not in self.clients or client.token != token:
            raise FrameRefused("this program, or who holds its cluster now, has connected anew")
        ours.details.update(heard=client.hearing.confirmed, conversation=token)
        link.send(Kind.HELLO, ours.body())
        heard = hello.details.get("heard") if before == client.token else 0
        self.clients.came(client, link, heard if type(heard) is int and heard >= 0 else 0)
        return client

    def stop(self) -> None:
        """End all links, when what was heard is written down.

        Nodes go on with what they were given, until this scheduler is there again; without a
        journal they are told to stop it, as nobody would take what it comes to.
        """
        self._door.close()
        self._pulses.stop()
        self._counts_log.stop()
        self.operators.stop()
        self.clients.stop()
        self.clients.recruiting.stop()
        if self._durable.journal is None:
            self.scheduler.part()
        self.scheduler.stop()
        self.clients.files.contents.close()
        if self._temporary is not None:
            self._temporary.cleanup()
        self._durable.close()
