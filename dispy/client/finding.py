"""How a cluster comes to its first nodes: those it names, those that answer, or one of its own.

Looked for with plain sockets before gevent is imported, so that a local node starts while this
process still imports. What takes longer is left to `dispy.client.discovery`, on the hub.
"""

import logging
import socket
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from dispy.client.local_node import LocalNode
from dispy.client.nodes import NodeAllocate
from dispy.client.probing import why_unusable
from dispy.client.search import INSECURE, Search, Wanted
from dispy.client.settings import resolve_here
from dispy.model.credentials import Secret
from dispy.model.errors import DispyError
from dispy.model.settings import processors_to_offer
from dispy.system.network import LOOPBACK, Network, is_loopback, networks
from dispy.system.processes import processors

if TYPE_CHECKING:
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")

ANSWER_SECONDS = 0.15  # that answers to pings are waited for before a local node is started


def look_for_nodes(
    session: "Session",
    allocations: Sequence[NodeAllocate],
    node_port: int | None,
    elsewhere: bool,
    local_node: bool,
    broadcast: bool,
    secrets: Sequence[Secret] = (),
) -> Search:
    """Look whether a node answers at once, and start one of our own if none does.

    elsewhere: on other machines too. Returns the record of the search, with which
    `dispy.client.discovery` goes on. Raises DispyError where all of them are on other machines
    and nothing was said about security. secrets: one of which a node that answers has to prove.
    """
    search = Search(Wanted(allocations, node_port, elsewhere, local_node, broadcast, secrets))
    _refuse_listed(search)
    if search.wanted.takes_local and (session.local.node is not None or not _finds_one(search)):
        search.counts_on_local = True
        if session.local.node is None:
            start_local_node(session)
    return search


def _refuse_listed(search: Search) -> None:
    """Say once that hosts of other machines are not used, if nothing was said about security."""
    wanted = search.wanted
    refused = [host for host, _ in wanted.listed if not wanted.trusts(host)]
    if not refused:
        return
    search.refused_listed(refused)
    complaint = f"{', '.join(refused)}: {INSECURE}"
    if len(refused) == len(wanted.listed) and not wanted.patterns:
        raise DispyError(complaint)
    logger.error("%s", complaint)


def start_local_node(session: "Session") -> None:
    """Start a node of our own and say so; raises DispyError where a setting of it is wrong."""
    # It reads its settings itself, but could complain to nobody.
    processors_to_offer(resolve_here("node", {})["cpus"], processors())
    local = session.local.node = LocalNode()
    logger.info("no node found: started a local node, which ends with this program")
    session.hub.post(lambda: session.local.adopt(local))


def _finds_one(search: Search) -> bool:
    """Say whether a usable node answers at once; `search.met` has it.

    The system itself knows whether a program of this machine listens, so nothing is waited
    for where none does; answers of other machines are waited for only if they may be used.
    """
    ports = {search.wanted.port_of(allocation) for allocation in search.wanted.patterns}
    for port in ports:
        if search.wanted.covers(LOOPBACK.address, port) and _is_usable(
            search, LOOPBACK.address, port
        ):
            search.met.append(((LOOPBACK.address, port), ""))
            return True
    targets = [
        (network, port)
        for network in _worth_asking(search)
        for port in ports
        if not network.is_loopback or _hears_broadcasts(port)
    ]
    return bool(targets) and _one_answers(search, targets)


def _is_usable(search: Search, address: str, port: int) -> bool:
    """Say whether a node listens at this address of this machine, and may be used."""
    complaint = why_unusable(address, port, search.wanted.elsewhere)
    if complaint:
        search.tried(address, port, complaint)
    return not complaint


def _worth_asking(search: Search) -> list[Network]:
    others = search.wanted.elsewhere and search.wanted.broadcast
    reachable = networks() if others else [LOOPBACK]
    return [network for network in reachable if search.wanted.may_meet(network)]


def _hears_broadcasts(port: int) -> bool:
    """Say whether a program of this machine hears what is broadcast on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((LOOPBACK.broadcast, port))
        except OSError:
            return True  # it is in use; or this system cannot say, and is asked
    return False


def _one_answers(search: Search, targets: Sequence[tuple[Network, int]]) -> bool:
    """Ping networks; wait for the first node that may be used, ANSWER_SECONDS at most."""
    # Late: a program that starts its own node has it import msgpack at the same time.
    from dispy.client.asking import Asker

    wanted = search.wanted
    with Asker(wanted.secrets) as asker:
        for network, port in targets:
            error = asker.ask(network.broadcast, port, wanted.node_port or 0)
            search.asked(network.broadcast, port, monotonic(), network, error)
        for here, address, proven in asker.answers(ANSWER_SECONDS):
            search.answered(here, address)
            if not (proven and wanted.covers(address, here.port) and wanted.trusts(address)):
                continue
            if not is_loopback(address) or _is_usable(search, address, here.port):
                search.met.append(((address, here.port), here.identity))
                return True
    return False
