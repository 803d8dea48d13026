"""How a client comes to its nodes: those it names, those that answer, or one of its own.

Looked for with plain sockets before gevent is imported, so that a local node starts while this
process still imports.
"""

import ipaddress
import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dispy.client.local_node import LocalNode
from dispy.client.nodes import NodeAllocate
from dispy.client.settings import resolve_here
from dispy.model.errors import DispyError
from dispy.model.settings import processors_to_offer
from dispy.system.processes import processors

if TYPE_CHECKING:
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")

PROBE_SECONDS = 0.5  # for a loopback connection, which answers or refuses at once


def find_nodes(
    session: "Session",
    allocations: Sequence[NodeAllocate],
    node_port: int,
    insecure: bool,
    local_node: bool,
) -> None:
    """Have the session connect to the nodes that a new cluster may use.

    Raises DispyError where all of them are on other machines and nothing was said about
    security.
    """
    addresses = [
        (a.ip_addr, a.port or node_port) for a in allocations if not a.is_pattern and a.ip_addr
    ]
    refused = [host for host, _ in addresses if not insecure and not _is_loopback(host)]
    if refused:
        complaint = (
            f"nodes of other machines ({', '.join(refused)}) would be used without encryption, "
            f"and anybody could pretend to be one. If that is fine in your network, say "
            f"JobCluster(..., insecure=True) or set DISPY_INSECURE=1"
        )
        if len(refused) == len(addresses) and not any(a.is_pattern for a in allocations):
            raise DispyError(complaint)
        logger.error("%s", complaint)
    for host, port in addresses:
        if host not in refused:
            session.hub.post(_connect(session, host, port))
    if any(a.is_pattern and a.matches("127.0.0.1") for a in allocations):
        if _answers("127.0.0.1", node_port):
            session.hub.post(_connect(session, "127.0.0.1", node_port))
        elif local_node and session.local_node is None:
            start_local_node(session)


def start_local_node(session: "Session") -> None:
    """Start a node of our own and say so; raises DispyError where a setting of it is wrong."""
    # It reads its settings itself, but could complain to nobody.
    processors_to_offer(resolve_here("node", {})["cpus"], processors())
    local = session.local_node = LocalNode()
    logger.info("no node found: started a local node, which ends with this program")
    session.hub.post(lambda: session.adopt(local))


def _connect(session: "Session", host: str, port: int):  # type: ignore[no-untyped-def]
    return lambda: session.scheduler.connect(host, port)


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except OSError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.split("%")[0]).is_loopback
