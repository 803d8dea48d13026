"""Which nodes a cluster gets to use, where its program has said by rules which it may.

A computation that is set up on a node costs both sides memory and a turn of its code, so a thousand
clusters on ten thousand nodes cannot all be everywhere. Each has the first EAGER of its nodes at
once. It gets twice as many whenever its jobs have filled those that it has: idle ones first, and
busy ones as far as its part of all slots may need them. Which, chance says, so that clusters
spread.

A program whose rules are functions of its own is told of every node, and decides (ALLOT).
"""

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from random import Random
from time import monotonic

import gevent

from dispy.model.rules import Rule, slots_by
from dispy.protocol.messages import Kind
from dispy.scheduler.clients import Clients, table_of
from dispy.scheduler.journal_entries import Allotted
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.service import Scheduler

EAGER = 64  # nodes that a cluster has in any case
SPREAD = 4  # times its part of all nodes that it has where all are busy
GLANCE = (
    4  # idle nodes that a cluster gets at once which has that; four times as many are looked at
)
LOOK_SECONDS = 0.5  # between two looks for one cluster
_NEXT_TURN = 1e-6  # seconds; a timer, because the loop looks for others' bytes before it


class Recruiting:
    """Of one scheduler service, on its hub."""

    def __init__(
        self, clients: Clients, scheduler: Scheduler, random: Random | None = None
    ) -> None:
        self._clients, self._scheduler = clients, scheduler
        self._random = random or Random()
        self._rules: dict[int, tuple[Rule, ...]] = {}
        self._nodes: list[str] = []  # those that may be used
        self._places: dict[str, int] = {}  # where they are in that list
        self._opening: dict[int, set[str]] = {}  # where a cluster is being set up
        self._has_all: set[int] = set()  # clusters for which there is no further node
        self._hungry: dict[int, float] = {}  # when to look again at clusters that want more
        self._beginning: deque[int] = deque()  # clusters that wait for their first nodes
        self._beginner: gevent.Greenlet[..., None] | None = None
        self._greenlet = gevent.spawn(self._keep)

    # -- clusters

    def opened(self, cluster_id: int, rules: tuple[Rule, ...]) -> None:
        """Take in a cluster, or other rules of one, and give it nodes to begin with."""
        self._rules[cluster_id] = rules
        self._opening.setdefault(cluster_id, set())
        self._has_all.discard(cluster_id)
        named = {rule.host for rule in rules if not rule.is_pattern}
        if named:
            nodes = self._scheduler.nodes
            mine = [n for n in self._nodes if nodes[n].ip_addr in named]
            self._allot(cluster_id, mine)
        if self._beginner is None:
            self._begin(cluster_id)
            self._beginner = gevent.spawn(self._begin_others)
        else:
            self._beginning.append(cluster_id)

    def _begin(self, cluster_id: int) -> None:
        if cluster_id in self._rules:
            self._recruit(cluster_id, EAGER - self._count(cluster_id))

    def _begin_others(self) -> None:
        """Give clusters their first nodes, one in a turn of the loop: each costs 10 ms."""
        try:
            gevent.sleep(_NEXT_TURN)
            while self._beginning:
                self._begin(self._beginning.popleft())
                gevent.sleep(_NEXT_TURN)
        finally:
            self._beginner = None

    def closed(self, cluster_id: int) -> None:
        """Forget a cluster."""
        self._rules.pop(cluster_id, None)
        self._opening.pop(cluster_id, None)
        self._has_all.discard(cluster_id)
        self._hungry.pop(cluster_id, None)

    def look(self, hungry: set[int]) -> None:
        """Give more nodes to those of these clusters that have none left for jobs that wait."""
        now = monotonic()
        for cluster_id in hungry:
            if self._rules.get(cluster_id) and cluster_id not in self._has_all:
                self._hungry[cluster_id] = cluster = self._hungry.get(cluster_id, 0.0)
                if cluster <= now:
                    self._feed(cluster_id, now)
        hungry.clear()

    def _feed(self, cluster_id: int, now: float) -> None:
        if self._opening[cluster_id]:
            return  # then it is seen whether these are enough
        have = len(self._scheduler.standing.nodes_of(cluster_id))
        self._recruit(cluster_id, max(EAGER, have))
        if not self._opening[cluster_id]:
            self._hungry[cluster_id] = now + LOOK_SECONDS

    def _keep(self) -> None:
        """See whether others have left nodes idle, for clusters of which nothing is heard."""
        while True:
            gevent.sleep(LOOK_SECONDS)
            self.look_again(monotonic())

    def look_again(self, now: float) -> None:
        """Do so at this second."""
        for cluster_id in list(self._hungry):
            if not self._scheduler.standing.has_waiting(cluster_id):
                del self._hungry[cluster_id]
            elif self._hungry[cluster_id] <= now:
                self._feed(cluster_id, now)

    def stop(self) -> None:
        """End the greenlet that looks."""
        self._greenlet.kill(block=False)
        if self._beginner is not None:
            self._beginner.kill(block=False)

    # -- nodes

    def found(self, node: RemoteNode) -> None:
        """Take in a node, perhaps once more, and give it to clusters that lack some."""
        if node.node_id not in self._places:
            self._places[node.node_id] = len(self._nodes)
            self._nodes.append(node.node_id)
        answers: dict[tuple[Rule, ...], int | None] = {}
        for cluster_id, rules in self._rules.items():
            if rules not in answers:
                answers[rules] = slots_by(rules, node.ip_addr, node.port, node.cpus)
            if answers[rules] is None:
                continue
            self._has_all.discard(cluster_id)
            named = any(rule.host == node.ip_addr for rule in rules)
            if named or self._count(cluster_id) < EAGER:
                self._allot(cluster_id, [node.node_id])

    def lost(self, node: RemoteNode) -> None:
        """Forget a node."""
        place = self._places.pop(node.node_id, None)
        if place is not None:
            last = self._nodes.pop()
            if last != node.node_id:
                self._nodes[place] = last
                self._places[last] = place
        for opening in self._opening.values():
            opening.discard(node.node_id)

    def answered(self, cluster_id: int, node: RemoteNode) -> None:
        """Take note that a cluster is set up on a node, or cannot be."""
        opening = self._opening.get(cluster_id)
        if opening is not None:
            opening.discard(node.node_id)
            if cluster_id in self._hungry and cluster_id not in node.ready:
                self._hungry[cluster_id] = 0.0  # it cannot: another one may

    # -- choosing

    def _count(self, cluster_id: int) -> int:
        """Return how many nodes a cluster has, or will have when its files have come."""
        have = self._scheduler.standing.nodes_of(cluster_id)
        return len(have) or len(self._opening[cluster_id])

    def _recruit(self, cluster_id: int, most: int) -> None:
        if most <= 0 or cluster_id in self._has_all:
            return
        have = self._scheduler.standing.nodes_of(cluster_id)
        part = max(EAGER, SPREAD * len(self._nodes) // max(1, len(self._rules)))
        if len(have) >= part:
            most = min(most, GLANCE)
        fresh = [node_id for node_id in self._some(len(have), most) if node_id not in have]
        fresh = [node_id for node_id in fresh if self._slots(cluster_id, node_id) is not None]
        if not fresh and len(have) < part:
            others = (n for n in self._nodes if n not in have)
            fresh = [n for n in others if self._slots(cluster_id, n) is not None][: 2 * most]
            if not fresh:
                self._has_all.add(cluster_id)
                return
        idle, busy = self._scheduler.standing.by_idleness(fresh)
        chosen = idle[:most]
        room = min(part - len(have), most) - len(chosen)
        self._allot(cluster_id, [*chosen, *busy[: max(0, room)]])

    def _some(self, have: int, most: int) -> Sequence[str]:
        """Return nodes by chance, so many that enough of them will be new."""
        if 2 * have > len(self._nodes) or 4 * most > len(self._nodes):
            return self._random.sample(self._nodes, len(self._nodes))
        return self._random.sample(self._nodes, 4 * most)

    def _slots(self, cluster_id: int, node_id: str) -> int | None:
        """Return how many slots of a node a cluster may use; None: none."""
        node = self._scheduler.nodes[node_id]
        return slots_by(self._rules[cluster_id], node.ip_addr, node.port, node.cpus)

    def _allot(self, cluster_id: int, node_ids: Iterable[str]) -> None:
        """Let a cluster use nodes, where it does not yet."""
        client = self._clients.of(cluster_id)
        have = self._scheduler.standing.nodes_of(cluster_id)
        for node_id in node_ids:
            slots = self._slots(cluster_id, node_id)
            if node_id in have or node_id in self._opening[cluster_id]:
                continue
            if client is None or slots is None:
                continue
            node = self._scheduler.nodes[node_id]
            client.meet(node_id, Kind.NODE, [node_id, table_of(node)])
            settings = self._clients.opened[cluster_id].settings
            if not self._clients.files.may_open(node, cluster_id, settings):
                continue  # its program is told of the node, says so, and this is done once more
            self._clients.durable.record(Allotted(cluster_id, node_id, slots))
            self._opening[cluster_id].add(node_id)
            allot = partial(self._scheduler.allocate, cluster_id, node_id, slots)
            self._clients.files.awaiting.allotted(client, cluster_id, node_id, {}, allot)
