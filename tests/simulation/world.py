"""Both cores against each other through a simulated network, from one seed.

`SimOwner` and `SimNode` do with the real cores and the real ledger what the services do, with a
toy link instead of TCP. Each method of `World` is one thing that may happen at any time; who calls
it chooses: a seed (`Troubles`), or hypothesis. `History` is what really happened, and holds the
promises. The same seed and the same calls give the same run.
"""

from itertools import count

from history import History
from network import Link, Network
from recovery import Recovery
from sim_node import SimNode
from sim_owner import KINDS, SimOwner

from dispy.execution.core import Execution
from dispy.scheduling.core import Scheduling

LAST_RESORT = "last resort"
NOTICED = 0.02  # seconds until the end of a link is noticed, where it is


class World:
    """A few owners, a few nodes, and what befalls them."""

    def __init__(
        self, seed: int, slots: tuple[int, ...], slow: float, wide: bool, chances: bool,
        scale: tuple[float, ...] = (0.01,),
    ) -> None:  # fmt: skip
        """slots: of each node. slow: seconds, the longest delay of a message. wide: jobs differ
        in how many slots they need. chances: small troubles come by themselves. scale: how long
        jobs are, in seconds, by kind of cluster."""
        self.network = Network(seed)
        self.random = self.network.random
        self.incarnations = count()
        self.wide, self.slow, self.scale = wide, slow, scale
        self.chances, self.hurry = chances, False
        self.recalls = self.set_aside = self.events = self.recovered = 0
        self.look_each = 8  # events: a look into a core costs more than an event
        self.histories: dict[str, History] = {}
        self.owners: dict[str, SimOwner] = {}
        self.nodes: dict[str, SimNode] = {}
        self.dead: dict[str, Recovery | None] = {}  # programs, and who recovers from them
        self._names, self.values = count(), count()
        for number, many in enumerate(slots):
            self.start_node(f"n{number}", many)
        for _ in range(2):
            self.start_owner()

    # -- what the actors ask

    @property
    def now(self) -> float:
        return self.network.now

    def chance(self, part: float) -> bool:
        """Whether a small trouble happens now."""
        return self.chances and self.random.random() < part

    def usual_width(self, cluster: int) -> int:
        return 2 if self.wide and cluster % KINDS == 2 else 1

    def widths_of(self, cluster: int, jobs: list[int]) -> dict[int, int]:
        """Slots that jobs need that differ from their cluster; a node has four at most."""
        return {job: 1 + job % 4 for job in jobs if job % 5 == 0} if self.wide else {}

    def seconds_of(self, cluster: int, job: int) -> float:
        scale = self.scale[cluster % KINDS % len(self.scale)]
        return (scale / 100 if self.hurry else scale) * (30 if job % 97 == 0 else 1 + job % 7)

    def check(self, core: Scheduling | Execution) -> None:
        self.events += 1
        if self.events % self.look_each == 0:
            core.check_invariants()

    def check_all(self) -> None:
        """Look into all cores: valid between two events."""
        for owner in self.owners.values():
            owner.core.check_invariants()
        for node in self.nodes.values():
            node.core.check_invariants()

    def acknowledged(self, name: str, cluster: int, jobs: list[int]) -> None:
        """A node forgets results: nobody may need them any more."""
        history, owner = self.histories[name], self.owners.get(name)
        for job in jobs:
            assert (
                job in history.final or cluster in history.closed or history.recovered
                or (owner is not None and owner.knows(cluster, job))
            ), f"the result of {history.tell(job)} is forgotten and was never taken"  # fmt: skip

    # -- owners and nodes come and go

    def start_owner(self) -> None:
        name = "abcdefghijklmnopqrstuvwxyz"[next(self._names) % 26]
        name += "" if name not in self.histories else f"{len(self.histories)}"
        owner = self.owners[name] = SimOwner(self, name)
        for node in self.nodes.values():
            self.connect(owner, node)

    def start_node(self, name: str, slots: int) -> None:
        """Start a node, in the place of one that has died."""
        if name in self.nodes and self.nodes[name].alive:
            return
        node = self.nodes[name] = SimNode(self, name, slots)
        for owner in self.owners.values():
            self.connect(owner, node)

    def crash(self, node: SimNode) -> None:
        node.crash()
        for owner in self.owners.values():
            self.notice(owner, node, NOTICED)

    def owner_dies(self, owner: SimOwner) -> None:
        owner.die()
        del self.owners[owner.name]
        self.dead[owner.name] = None
        self.start_owner()

    def recover(self, name: str) -> None:
        """Have a program take what nodes keep for one that has died; one before it dies too."""
        before = self.dead[name]
        if before is not None:
            before.die()
        recovery = self.dead[name] = Recovery(self, name)
        for node in self.nodes.values():
            if node.alive:
                self.dial(recovery, node)

    def has_recovered(self, name: str) -> None:
        """It has taken all that there was."""
        del self.dead[name]
        self.recovered += 1

    # -- links

    def connect(self, owner: SimOwner, node: SimNode) -> None:
        """Make a new link; what hangs does not say hello."""
        if node.alive and not node.frozen and owner.alive and self.nodes[node.name] is node:
            old = owner.links.get(node.node_id)
            if old is not None:
                old.alive = False
            link = Link(self.network, self.slow)
            owner.connected(node, link)
            node.connected(owner.name, link)

    def dial(self, recovery: Recovery, node: SimNode) -> None:
        """Make a link to a recovering program, for as long as there is somebody at both ends."""
        if node.frozen:
            self.network.later(0.5, lambda: self.dial(recovery, node))
        elif node.alive and recovery.alive:
            link = Link(self.network, self.slow)
            recovery.connected(node, link)
            node.connected(recovery.name, link)

    def notice(self, owner: SimOwner, node: SimNode, after: float) -> None:
        """Have an owner find out after so many seconds that its link is no more."""
        link = owner.links.get(node.node_id)
        if link is not None:
            self.network.later(after, lambda: owner.disconnected(node.node_id, link))

    def cut(self, owner: SimOwner, node: SimNode, noticed: bool = True) -> None:
        """Break a link; whatever is on the way is lost. An end that does not notice talks on."""
        link = owner.links.get(node.node_id)
        if link is not None:
            link.alive = False
            if noticed:
                self.notice(owner, node, NOTICED)

    def silence(self, owner: SimOwner, node: SimNode, end: str) -> None:
        """Lose all that is sent to one end of a link from now on, though the link lives."""
        link = owner.links.get(node.node_id)
        if link is not None:
            link.silent.add(end)

    def give_up(self, owner: SimOwner, node: SimNode) -> None:
        """An owner has waited long enough for a node that is away, or seems to be."""
        owner.lost(node.node_id, owner.links.get(node.node_id))

    # -- the end

    def heal(self) -> None:
        """Let nothing go wrong any more, and all meet: at last also one node that never refuses."""
        self.chances, self.hurry, self.look_each = False, True, 200
        for name, history in self.histories.items():
            for job in history.missing():
                if history.submitted[job].kind == "endless" and name in self.owners:
                    self.owners[name].cancel(job)
        for node in self.nodes.values():
            node.resume()
            node.sick = False
            node.make_room()
        for node in [*self.nodes.values()]:
            if not node.alive:
                self.start_node(node.name, node.slots)
        self.start_node(LAST_RESORT, 4)
        self.network.advance(1.0)
        for owner in self.owners.values():
            for node_id in [*owner.links]:
                node = next((n for n in self.nodes.values() if n.node_id == node_id), None)
                if node is None:
                    owner.lost(node_id, owner.links[node_id])
            for node in self.nodes.values():
                link = owner.links.get(node.node_id)
                if link is None or link.silent or not link.alive:
                    self.connect(owner, node)
        for name in [*self.dead]:
            self.recover(name)
        self.network.advance(1.0)
        for owner in self.owners.values():
            for node_id, opened in owner.opened.items():
                for cluster in sorted(opened):
                    there = owner.core.nodes[node_id].allocations[cluster]
                    if there.limit < 9 or there.set_aside:
                        owner.limit(node_id, cluster, 9)

    def rest(self) -> None:
        """Heal everything, let it come to rest, and look at the promises."""
        self.heal()
        deadline = self.now + 300.0
        while self.now < deadline and not self.is_quiet:
            self.network.advance(0.5)
        self.network.advance(2.0)  # what has been closed last
        assert not self.dead, f"nobody recovers from {sorted(self.dead)}"
        self.check_all()
        for history in self.histories.values():
            history.at_quiet()
        for node in self.nodes.values():
            self.check_left(node)

    @property
    def is_quiet(self) -> bool:
        return not self.dead and not any(self.histories[name].missing() for name in self.owners)

    def check_left(self, node: SimNode) -> None:
        """Nothing may be on a node that nobody has open."""
        for owner, cluster in node.core.computations:
            history = self.histories[owner]
            assert owner in self.owners, (
                f"{node.name} keeps a computation of {owner}, which is over"
            )
            assert cluster not in history.closed, f"{node.name} keeps closed {owner}{cluster}"
        for name, owner in self.owners.items():
            held = node.core.held(name)
            jobs = [owner.history.tell(job) for there in held.values() for job in there]
            assert not jobs, f"{node.name} still has {jobs[0]}"
