"""A node's open port: takes connections, asks who is there, hands owners to the node.

Clients find it by the beacon that answers on the same port number.
"""

import logging
from time import time
from typing import Any

from dispy.model.credentials import NOTHING, Credentials
from dispy.net.credentials import current
from dispy.net.dialing import listen
from dispy.net.discovery import Beacon
from dispy.net.door import Door, Guest
from dispy.net.link import Link
from dispy.net.secure import Transport
from dispy.node.service import Node
from dispy.protocol.discovery import Here
from dispy.protocol.frames import FrameRefused
from dispy.protocol.handshake import KNOCK, Hello
from dispy.protocol.messages import Kind
from dispy.system.network import LOOPBACK, networks

logger = logging.getLogger("dispy.node")


def node_hello(node: Node, spare: bool = True) -> Hello:
    """Return what a node says of itself; `spare`: also what it has to spare."""
    details: dict[str, Any] = {"cpus": node.cpus, "time": time()}
    if spare:
        details["available"] = node.spare()
    return Hello("node", node.identity, node.name, details=details)


class Listener:
    """Owns the door and the beacon."""

    def __init__(
        self,
        node: Node,
        host: str,
        port: int,
        broadcast: bool = True,
        credentials: Credentials = NOTHING,
    ) -> None:
        """Bind the port, 0: any that is free; raises OSError.

        broadcast: be found by other machines, where `host` lets them in.
        """
        self._node = node
        listening = listen(host, port)
        self.address, self.port = listening.getsockname()[:2]
        hello = node_hello(node)
        here = Here(node.identity, node.name, self.port, version=hello.version, python=hello.python)
        self._beacon = Beacon(
            here, self.address, networks() if broadcast else [LOOPBACK],
            lambda: current(credentials).secrets,
        )  # fmt: skip
        self._door = Door(listening, credentials, self._receive, logger)

    def _receive(self, transport: Transport, guest: Guest) -> None:
        """Serve whoever has proven what it must, until it has gone."""
        link = Link(transport, reads_always=False)
        try:
            hello = link.exchange_hello(node_hello(self._node), "client")
            if not guest.admit():
                raise FrameRefused(
                    f"node {self._node.name} has {self._door.bounds.known} connections, as many "
                    f"as it may: end programs that use it, or raise its limit of descriptors"
                )
        except FrameRefused as error:
            # Who comes and goes without a word only looked whether somebody is here.
            if link.received_bytes > len(KNOCK):
                guest.refuse(error)
            link.send(Kind.REFUSE, [str(error)])
        except OSError as error:
            logger.debug("%s did not say who it is: %s", guest.address, error)
        else:
            self._node.serve(link, hello)
        finally:
            link.close()

    def close(self) -> None:
        """Take no more connections, and say so; those that are open go on."""
        self._beacon.close()
        self._door.close()
