"""A node's open port: takes connections, asks who is there, hands owners to the node.

Clients find it by the beacon that answers on the same port number.
"""

import logging
from time import time
from typing import Any

import gevent
from gevent import socket
from gevent.pool import Pool

from dispy.model.credentials import NOTHING, Credentials
from dispy.net.dialing import listen
from dispy.net.discovery import Beacon
from dispy.net.link import Link
from dispy.net.secure import NotProven, accept
from dispy.node.service import Node
from dispy.protocol.discovery import Here
from dispy.protocol.frames import FrameRefused
from dispy.protocol.handshake import KNOCK, Hello
from dispy.protocol.messages import Kind
from dispy.system.network import LOOPBACK, networks

logger = logging.getLogger("dispy.node")

CONNECTIONS = 4096  # at once, known or not: what descriptors and memory of a small machine bear


def node_hello(node: Node, spare: bool = True) -> Hello:
    """Return what a node says of itself; `spare`: also what it has to spare."""
    details: dict[str, Any] = {"cpus": node.cpus, "time": time()}
    if spare:
        details["available"] = node.spare()
    return Hello("node", node.identity, node.name, details=details)


class Listener:
    """Owns the listening socket, a greenlet for each connection, and the beacon."""

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
        self._node, self._credentials = node, credentials
        self._socket = listen(host, port)
        self.address, self.port = self._socket.getsockname()[:2]
        hello = node_hello(node)
        here = Here(node.identity, node.name, self.port, version=hello.version, python=hello.python)
        self._beacon = Beacon(here, self.address, networks() if broadcast else [LOOPBACK])
        self._pool = Pool(CONNECTIONS)
        self._accepting = gevent.spawn(self._accept)

    def _accept(self) -> None:
        while True:
            try:
                sock, address = self._socket.accept()
            except OSError as error:
                logger.error("cannot take a connection: %s; trying again", error)
                gevent.sleep(1)
                continue
            if self._pool.full():
                logger.warning("refused %s: %d connections are open", address[0], CONNECTIONS)
                sock.close()
                continue
            self._pool.spawn(self._serve, sock, address[0])

    def _serve(self, sock: socket.socket, peer: str) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            link = Link(accept(sock, self._credentials), reads_always=False)
        except NotProven as error:
            logger.warning("refused %s: %s", peer, error)
            return
        except OSError as error:
            logger.debug("%s has not proven itself: %s", peer, error)
            return
        try:
            hello = link.exchange_hello(node_hello(self._node), "client")
        except FrameRefused as error:
            # Who comes and goes without a word only looked whether somebody is here.
            level = logging.WARNING if link.received_bytes > len(KNOCK) else logging.DEBUG
            logger.log(level, "refused %s: %s", peer, error)
            link.send(Kind.REFUSE, [str(error)])
            link.close()
        except OSError as error:
            logger.debug("%s did not say who it is: %s", peer, error)
            link.close()
        else:
            self._node.serve(link, hello)

    def close(self) -> None:
        """Take no more connections, and say so; those that are open go on."""
        self._beacon.close()
        self._accepting.kill()
        self._socket.close()
