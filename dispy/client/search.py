"""Which nodes a cluster may use, and what the search for them has met so far.

Plain records: nothing here asks, waits or reads a clock; times are seconds of `monotonic`.
`Search.lines` says it all to a person: what was tried, with what result, and what to do.
Filled in the thread that opens the cluster, then on the hub.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dispy.client.nodes import NodeAllocate
from dispy.model.credentials import OTHER_SECRET, Secret
from dispy.model.ports import NODE_PORT
from dispy.system.network import Network, is_loopback

if TYPE_CHECKING:
    from dispy.protocol.discovery import Here

NAMED_LIMIT = 50  # nodes refused or passed over that are kept by name; the rest is counted
INSECURE = (
    "nodes of other machines would be used without encryption, and anybody could pretend to be "
    "one. Put the same secret on both machines: `dispy secret` says how. Or, if everybody in that "
    "network may, say JobCluster(..., insecure=True) or set DISPY_INSECURE=1"
)

COMPARE = "`dispy secret --check` on both machines shows whether they have the same"
OTHER_SECRET_HERE = f"it has not the secret of this program. {COMPARE}"

Address = tuple[str, int]  # host, port


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a cluster's arguments say about its nodes."""

    allocations: Sequence[NodeAllocate]
    node_port: int | None  # None: of any port where a pattern finds them, else NODE_PORT
    elsewhere: bool  # also on other machines: they prove themselves, or it was said
    local_node: bool
    broadcast: bool = True  # ask other machines too, where a pattern may mean them
    secrets: Sequence[Secret] = ()  # when it was opened; which one a node has is proven by it

    def port_of(self, allocation: NodeAllocate) -> int:
        """Return the port at which an allocation's hosts are asked."""
        return allocation.port or self.node_port or NODE_PORT

    @property
    def listed(self) -> list[Address]:
        """The addresses that are named one by one."""
        return [
            (a.ip_addr, self.port_of(a)) for a in self.allocations if a.ip_addr and not a.is_pattern
        ]

    @property
    def patterns(self) -> list[NodeAllocate]:
        """The allocations that stand for hosts that have to be found."""
        return [a for a in self.allocations if a.is_pattern]

    def covers(self, address: str, port: int) -> bool:
        """Say whether the arguments mean the node at this address."""
        return any(self.fits(allocation, address, port) for allocation in self.allocations)

    def fits(self, allocation: NodeAllocate, address: str, port: int) -> bool:
        """Say whether an allocation means the node at this address; port 0: the local node."""
        if not allocation.matches(address):
            return False
        if not allocation.is_pattern:
            return port == self.port_of(allocation)
        if port == 0:
            return self.local_node
        return port == (allocation.port or self.node_port or port)

    @property
    def takes_local(self) -> bool:
        """Whether a local node may serve it."""
        return self.covers("127.0.0.1", 0)

    def trusts(self, address: str, of_other_user: bool = False) -> bool:
        """Say whether a node there may be dialled: what it has to prove is asked on its link.

        of_other_user: of this machine, and that has turned out there.
        """
        return self.elsewhere or (is_loopback(address) and not of_other_user)

    def may_meet(self, network: Network) -> bool:
        """Say whether a pattern means any address of a network."""
        fixed = ".".join(network.address.split(".")[: network.prefix // 8])
        texts = [allocation.host.split("*")[0] for allocation in self.patterns]
        return any(text.startswith(fixed) or fixed.startswith(text) for text in texts)


@dataclass(slots=True)
class Asked:
    """One address that was pinged: of a host, or the broadcast of a network."""

    host: str
    port: int
    first: float
    network: Network | None = None
    error: str | None = None  # why the last ping could not be sent
    answered: set[str] = field(default_factory=set)  # identities, at most NAMED_LIMIT

    def line(self, now: float) -> str:
        """Say what came of it."""
        what = f"broadcast on {self.network}" if self.network else f"asked {self.host}"
        if self.error:
            came = f"cannot be sent: {self.error}"
        elif self.answered:
            count = len(self.answered)
            more = " or more" if count == NAMED_LIMIT else ""
            came = f"{count}{more} node{'s' if count > 1 else ''} answered"
        else:
            came = f"no node answered in {now - self.first:.1f} s"
        return f"{what} port {self.port}: {came}"


class Search:
    """What the search for one cluster's nodes has met."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.counts_on_local = False  # no other node answered at first
        self.met: list[tuple[Address, str]] = []  # (address, identity) found before the hub ran
        self._pinged: dict[Address, Asked] = {}
        self._tried: dict[Address, str] = {}  # connected to by hand -> what came of it
        self._refused: dict[str, str] = {}  # identity -> the line that says so
        self._passed_over: dict[str, str] = {}
        self._unnamed = 0
        self.deaf: str | None = None  # why announcements are not heard

    # -- what happened

    def asked(
        self, host: str, port: int, now: float, network: Network | None, error: str | None
    ) -> None:
        """A host or network was pinged."""
        asked = self._pinged.setdefault((host, port), Asked(host, port, now, network))
        asked.error = error

    def tried(self, host: str, port: int, outcome: str) -> None:
        """A connection was tried once, and `outcome` is why there is none."""
        self._tried[host, port] = outcome

    def answered(self, here: "Here", address: str) -> None:
        """A node answered a ping."""
        for (host, _), asked in self._pinged.items():
            covered = asked.network.covers(address) if asked.network else host == address
            if covered and len(asked.answered) < NAMED_LIMIT:
                asked.answered.add(here.identity)

    def refused(self, here: "Here", address: str, why: str = INSECURE) -> str | None:
        """A node answered that must not be used; returns what to say where that is news."""
        line = f"node {here.name} at {address} port {here.port} is refused: {why}"
        return line if self._name(self._refused, here.identity, line) else None

    def refused_listed(self, hosts: Sequence[str]) -> None:
        """Hosts that are named must not be used."""
        for host in hosts:
            self._name(self._refused, host, f"{host} is refused: {INSECURE}")

    def passed_over(self, here: "Here", address: str) -> None:
        """A node answered that the arguments do not mean."""
        place = f"node {here.name} at {address} port {here.port}"
        line = f"{place} answered, but the cluster's `nodes` do not mean it"
        self._name(self._passed_over, here.identity, line)

    def _name(self, table: dict[str, str], key: str, line: str) -> bool:
        if key in table:
            return False
        if len(table) >= NAMED_LIMIT:
            self._unnamed += 1
            return False
        table[key] = line
        return True

    # -- what to say

    def lines(
        self, now: float, unreachable: Mapping[Address, str], connected: Sequence[Address]
    ) -> list[str]:
        """Return what was tried and what came of it, then what to do, line by line.

        unreachable: why the last attempt to connect to an address failed.
        connected: addresses of nodes that are connected; nothing is wrong with them.
        """
        said = [f"{a.host} is left out: {a.error}" for a in self.wanted.allocations if a.error]
        dialled = [address for address in self.wanted.listed if address not in connected]
        for host, port in dialled:
            said.append(self._dialled(host, port, unreachable.get((host, port))))
        for (host, port), outcome in self._tried.items():
            if (host, port) not in [*dialled, *connected]:
                said.append(f"asked {host} port {port}: {outcome}")
        for asked in self._pinged.values():
            if asked.network is not None:
                said.append(asked.line(now))
        for address, reason in unreachable.items():
            if address not in self.wanted.listed and self.wanted.covers(*address):
                said.append(f"node at {address[0]} port {address[1]} was found, but {reason}")
        said += [*self._refused.values(), *self._passed_over.values()]
        if self._unnamed:
            said.append(f"and {self._unnamed} more answers from nodes that are not used")
        if self.wanted.patterns and not self.wanted.broadcast:
            said.append("other machines were not asked: DISPY_BROADCAST says so")
        if self.deaf:
            said.append(f"nodes that start later are found by the next search only: {self.deaf}")
        return [*said, *self._advice(dialled, unreachable)]

    def _dialled(self, host: str, port: int, reason: str | None) -> str:
        if not self.wanted.trusts(host):
            return f"{host} port {port} was not asked"
        pinged = self._pinged.get((host, port))
        aside = ""
        # Not "no answer any more": what answered was there before.
        if (reason or "").startswith("no answer:") and pinged and pinged.answered:
            aside = " (a node answers pings there; does a firewall stop TCP?)"
        return f"asked {host} port {port}: {reason or 'no answer yet'}{aside}"

    def _advice(self, dialled: Sequence[Address], unreachable: Mapping[Address, str]) -> list[str]:
        dialled = [address for address in dialled if self.wanted.trusts(address[0])]
        others = [each for each in dialled if unreachable.get(each, "") != OTHER_SECRET]
        if dialled and not others:
            return [COMPARE]
        hosts = list(dict.fromkeys(host for host, _ in others))
        if hosts:
            some = " ".join(hosts[:5])
            return [f"is `dispy node` running there? `dispy doctor {some}` checks the way to it"]
        answered = any(asked.answered for asked in self._pinged.values())
        if self.wanted.patterns and not answered:
            return [
                "start `dispy node` on this machine, or `dispy node --host=ADDRESS` on others of "
                "the network, with the same secret (`dispy secret`); `dispy doctor` checks the "
                "network, `dispy doctor HOST` the way to a host"
            ]
        return []
