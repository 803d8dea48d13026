"""Nodes as a user's program names and sees them."""

import logging
import os
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dispy.model.errors import DispyError
from dispy.model.statuses import Status

logger = logging.getLogger("dispy.client")


@dataclass
class DispyNodeAvailInfo:
    """What a node has to spare: percent of idle CPU, bytes of memory and disk, percent of swap."""

    cpu: float
    memory: int
    disk: int
    swap: float


class DispyNode:
    """A node as one cluster sees it; times in seconds (wall time of jobs, not CPU time)."""

    Initialized = Status.Initialized
    Closed = Status.Closed
    AvailInfo = Status.AvailInfo

    def __init__(self, ip_addr: str, name: str, cpus: int) -> None:
        self.ip_addr, self.name = ip_addr, name
        self.cpus = self.avail_cpus = cpus
        self.busy = 0
        self.jobs_done = 0
        self.cpu_time = 0.0
        self.update_time = 0.0
        self.avail_info: DispyNodeAvailInfo | None = None
        self.error: str | None = None  # why the cluster cannot use it; or what its cleanup raised
        self.exposed = False  # another machine's, over a link that is not encrypted
        self._traffic: Callable[[], tuple[int, int]] = _no_traffic

    @property
    def tx(self) -> int:
        """Bytes that this program has sent to the node, for all its clusters together."""
        return self._traffic()[0]

    @property
    def rx(self) -> int:
        """Bytes that this program has received from the node."""
        return self._traffic()[1]

    def __repr__(self) -> str:
        return f"<DispyNode {self.name} ({self.ip_addr}), {self.cpus} cpus>"


def _no_traffic() -> tuple[int, int]:
    return 0, 0


class NodeAllocate:
    """Which hosts may be used, and how many processors of each; subclass it to decide yourself.

    `host` is an address, a name, or a pattern with `*`. `cpus`: at most so many; negative:
    all but so many; 0: all.
    """

    def __init__(
        self,
        host: str,
        port: int | None = None,
        cpus: int = 0,
        depends: list[Any] | None = None,
        setup_args: tuple[Any, ...] = (),
    ) -> None:
        if not isinstance(host, str) or not host:
            raise DispyError(f"a node's host is a name, an address or a pattern, not {host!r}")
        self.host = host
        self.port, self.cpus = _whole(port, "port"), _whole(cpus, "cpus") or 0
        if depends is not None and not isinstance(depends, (list, tuple)):
            raise DispyError(f"depends of a node is a list of files, not {depends!r}")
        for path in depends or ():
            if not (isinstance(path, (str, os.PathLike)) and os.path.exists(path)):
                raise DispyError(f"depends of node {host}: there is no file {path!r}")
        self.depends, self.setup_args = list(depends or ()), setup_args
        self.error: str | None = None  # why its name has no address
        self.ip_addr: str | None
        self.move(host if "*" in host else self._resolve())

    def _resolve(self) -> str | None:
        try:
            found = socket.getaddrinfo(self.host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self.error = getattr(error, "strerror", None) or str(error)
            logger.warning("node %r is left out: %s", self.host, self.error)
            return None
        return addresses_in(found)[0]

    def move(self, ip_addr: str | None) -> None:
        """Mean another address from now on; None: its name has none."""
        self.ip_addr = ip_addr
        self.ip_rex = re.escape(ip_addr or "").replace(r"\*", ".*")

    @property
    def is_name(self) -> bool:
        """Whether it names a host, whose address may change."""
        return not self.is_pattern and self.host != self.ip_addr

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for hosts that have to be found first."""
        return "*" in self.host

    def matches(self, ip_addr: str) -> bool:
        """Say whether a node of this address is meant; a pattern matches as a prefix."""
        if not self.is_pattern:
            return self.ip_addr == ip_addr
        return re.match(self.ip_rex, ip_addr) is not None

    def allocate(
        self,
        cluster: Any,
        ip_addr: str,
        name: str,
        cpus: int,
        avail_info: DispyNodeAvailInfo | None = None,
        platform: str = "",
    ) -> int:
        """Return how many processors of this node the cluster uses; 0: none.

        Called for each cluster and each node that is found, on a thread of dispy's own. An
        override may take as few as the first four. `avail_info` is None where psutil is missing.
        """
        if not self.matches(ip_addr):
            return 0
        if self.cpus > 0:
            return min(cpus, self.cpus)
        return max(0, cpus + self.cpus) or cpus

    @property
    def is_default(self) -> bool:
        """Whether nothing of the user's is run for it, so that the hub itself may ask it."""
        return type(self).allocate is NodeAllocate.allocate and not (
            self.setup_args or self.depends
        )


def addresses_in(found: Sequence[tuple[Any, ...]]) -> list[str]:
    """Return the addresses that `getaddrinfo` has found, those at which nodes listen first."""
    ordered = sorted(found, key=lambda entry: bool(entry[0] != socket.AF_INET))
    return [str(entry[4][0]) for entry in ordered]


def parse_nodes(nodes: Any) -> list[NodeAllocate]:
    """Return what a cluster's `nodes` argument means; raises DispyError for what it cannot be.

    Concrete hosts come before patterns, longer patterns before shorter ones.
    """
    if nodes is None or nodes == [] or nodes == ():
        nodes = ["*"]
    if isinstance(nodes, (str, NodeAllocate)):
        nodes = [nodes]
    if not isinstance(nodes, (list, tuple)):
        raise DispyError(f'"nodes" argument is invalid: a list of hosts, not {nodes!r}')
    allocations = [_parse_node(node) for node in nodes]  # one without an address matches none
    if all(allocation.ip_addr is None for allocation in allocations):
        raise DispyError(f'"nodes" argument is invalid: none of {nodes!r} can be resolved')
    return sorted(allocations, key=lambda a: (a.is_pattern, -len(a.host)))


def _parse_node(node: Any) -> NodeAllocate:
    if isinstance(node, NodeAllocate):
        return node
    if isinstance(node, DispyNode):
        return NodeAllocate(node.ip_addr)
    if isinstance(node, str):
        return NodeAllocate(node)
    try:
        if isinstance(node, dict):
            return NodeAllocate(**{"host": "*", **node})
        if isinstance(node, (list, tuple)) and node:
            return NodeAllocate(*node)
    except TypeError as error:
        raise DispyError(f'"nodes" argument is invalid: {node!r}: {error}') from None
    raise DispyError(f'"nodes" argument is invalid: {node!r} is not a host')


def _whole(value: Any, what: str) -> int | None:
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError):
        logger.warning("%s %r of a node is not a number; ignored", what, value)
        return None
