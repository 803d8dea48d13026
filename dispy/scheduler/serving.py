"""A scheduler that many programs share, as a service: its door, its search for nodes, its end."""

import logging
import os

from dispy.model.credentials import NOTHING, Credentials
from dispy.net.dialing import listen
from dispy.net.door import Door, Guest
from dispy.net.link import Link
from dispy.net.pulses import Pulses
from dispy.net.secure import Transport
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import KNOCK, Hello, proven_identity
from dispy.protocol.messages import Kind
from dispy.scheduler.clients import Client, Clients
from dispy.scheduler.operators import Operators
from dispy.scheduler.service import Scheduler
from dispy.scheduling.core import Scheduling
from dispy.scheduling.policies import Policy

logger = logging.getLogger("dispy.scheduler")


class SchedulerService:
    """Owns the scheduler, its clients and the door for these."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        credentials: Credentials = NOTHING,
        node_credentials: Credentials = NOTHING,
        zombie_seconds: float = 0.0,
        policy: Policy | None = None,
        owner_slots: int | None = None,
    ) -> None:
        """Bind the port, 0: any that is free; raises OSError.

        zombie_seconds: for which a client that is away is remembered; 0: for ever.
        policy: by which clusters share the nodes; None: by load.
        owner_slots: that the clusters of one owner may have together; None: any number.

        credentials: by which clients prove themselves; node_credentials: by which nodes do.
        """
        self.name = name
        listening = listen(host, port)
        self.address, self.port = listening.getsockname()[:2]
        self.clients = Clients(zombie_seconds)
        self.scheduler = Scheduler(
            self.clients,
            os.urandom(16).hex(),
            name,
            node_credentials,
            Scheduling(policy, owner_slots),
        )
        self.clients.scheduler = self.scheduler
        name_of_policy, place = (policy or Policy()).name, f"{self.address}:{self.port}"
        self.operators = Operators(self.scheduler, self.clients, name_of_policy, place)
        self._pulses = Pulses(lambda: [*self.clients.links(), *self.operators.links()])
        self._door = Door(listening, credentials, self._receive, logger)

    def _receive(self, transport: Transport, guest: Guest) -> None:
        """Serve a client that has proven what it must, until it has gone."""
        link = Link(transport, reads_always=False)
        try:
            hello = link.hear_hello("client", "operator")
            if not guest.admit():
                raise FrameRefused(
                    f"scheduler {self.name} has {self._door.bounds.known} connections, as many as "
                    f"it may: end programs that use it, or raise its limit of descriptors"
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
            client = self._greet(link, hello)
        except FrameRefused as error:
            link.send(Kind.REFUSE, [str(error)])
            return
        logger.info("client %s connected", client.name)

        def read(frame: Frame) -> None:
            self.clients.read(client, frame)

        end = link.read(read, lambda: self.clients.turn_over(client))
        self.clients.left(client, link, end.reason)

    def _greet(self, link: Link, hello: Hello) -> Client:
        identity = proven_identity(hello.identity, link.peer_key)
        before = hello.details.get("conversation")
        client = self.clients.client(identity, hello.name, before)
        details = {"heard": client.conversation.arrived, "conversation": client.token}
        ours = Hello("scheduler", self.scheduler.identity, self.name, details=details)
        link.send(Kind.HELLO, ours.body())
        heard = hello.details.get("heard") if before == client.token else 0
        client.came(link, heard if type(heard) is int and heard >= 0 else 0)
        return client

    def stop(self) -> None:
        """End all links; nodes are told to stop what they were given, as nobody would take it."""
        self._door.close()
        self._pulses.stop()
        self.operators.stop()
        self.clients.stop()
        self.scheduler.part()
        self.scheduler.stop()
