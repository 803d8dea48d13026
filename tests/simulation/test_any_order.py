"""Any order of events that hypothesis finds, in the same world; what fails is made short.

Each rule prints itself. To look longer:
`DISPY_EXAMPLES=5000 pytest --timeout=0 tests/simulation/test_any_order.py`.
"""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from sim_node import SimNode
from sim_owner import SimOwner
from world import World

EXAMPLES = int(os.environ.get("DISPY_EXAMPLES", "100"))
STEPS = 30

OWNERS = st.integers(0, 1)
NODES = st.sampled_from(["n0", "n1", "n2"])
KINDS = st.sampled_from(["works", "works", "fails", "kills", "endless"])
SECONDS = 0.01, 0.1, 1.0


def crash_or_start(world: World, node: SimNode) -> None:
    if node.alive:
        world.crash(node)
    else:
        world.start_node(node.name, node.slots)


def hang_or_go_on(world: World, node: SimNode) -> None:
    if node.frozen:
        node.resume()
    else:
        node.freeze()


def sicken_or_heal(world: World, node: SimNode) -> None:
    node.sick = not node.sick


def fill_or_empty(world: World, node: SimNode) -> None:
    if node.full:
        node.do(node.make_room)
    else:
        node.full = True


def repeat(world: World, owner: SimOwner, node: SimNode) -> None:
    node.do(lambda: node.repeat(owner.name))


LINK_TROUBLES = {
    "cut": World.cut,
    "cut unnoticed": partial(World.cut, noticed=False),
    "deaf owner": partial(World.silence, end="owner"),
    "deaf node": partial(World.silence, end="node"),
    "given up": World.give_up,
    "mended": World.connect,
    "results come twice": repeat,
}
NODE_TROUBLES = {
    "crashes or starts": crash_or_start,
    "hangs or goes on": hang_or_go_on,
    "sickens or heals": sicken_or_heal,
    "is full or is not": fill_or_empty,
}


class TwoCores(RuleBasedStateMachine):
    """Two programs, three nodes. Links that break stay so until some rule mends them."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.broken = False  # some promise is

    @initialize(seed=st.integers(0, 3), wide=st.booleans(), scale=st.sampled_from(SECONDS))
    def begin(self, seed: int, wide: bool, scale: float) -> None:
        self.world = World(seed, (1, 2, 2), 0.05, wide, chances=False, scale=(scale,))
        self.world.look_each = 10**9  # it is done after each rule
        self.do(self.world.network.advance, 0.5)

    def do(self, event: Callable[..., None], *arguments: Any) -> None:
        """Have it happen, and look into all cores."""
        try:
            event(*arguments)
            self.world.check_all()
        except BaseException:
            self.broken = True
            raise

    def owner(self, number: int) -> SimOwner:
        return list(self.world.owners.values())[number]

    def node(self, name: str) -> SimNode:
        return self.world.nodes[name]

    # -- what users do

    @rule(owner=OWNERS, cluster=st.integers(0, 3), many=st.integers(1, 9), kind=KINDS)
    def submit(self, owner: int, cluster: int, many: int, kind: str) -> None:
        self.do(self.owner(owner).submit, self.owner(owner).clusters[cluster], many, kind)

    @rule(owner=OWNERS, cluster=st.integers(0, 3), node=NODES)
    def pin(self, owner: int, cluster: int, node: str) -> None:
        self.do(self.owner(owner).submit, self.owner(owner).clusters[cluster], 2, "works", node)

    @precondition(lambda self: any(o.history.missing() for o in self.world.owners.values()))
    @rule(owner=OWNERS, which=st.integers(0, 5))
    def cancel(self, owner: int, which: int) -> None:
        if missing := self.owner(owner).history.missing():
            self.do(self.owner(owner).cancel, missing[which % len(missing)])

    @rule(owner=OWNERS, cluster=st.integers(0, 3))
    def close(self, owner: int, cluster: int) -> None:
        self.do(self.owner(owner).close_cluster, self.owner(owner).clusters[cluster])
        self.do(self.owner(owner).open_cluster)

    @rule(owner=OWNERS, node=NODES, cluster=st.integers(0, 3), slots=st.sampled_from([0, 1, 9]))
    def limit(self, owner: int, node: str, cluster: int, slots: int) -> None:
        number, node_id = self.owner(owner).clusters[cluster], self.node(node).node_id
        if node_id in self.owner(owner).core.nodes:
            self.do(self.owner(owner).limit, node_id, number, slots)

    @rule(owner=OWNERS)
    def program_dies(self, owner: int) -> None:
        if len(self.world.histories) < 5:
            self.do(self.world.owner_dies, self.owner(owner))

    @precondition(lambda self: self.world.dead)
    @rule()
    def recover(self) -> None:
        """Begin, or begin anew."""
        self.do(self.world.recover, next(iter(self.world.dead)))

    # -- what befalls links and nodes

    @rule(owner=OWNERS, node=NODES, what=st.sampled_from(sorted(LINK_TROUBLES)))
    def befall_link(self, owner: int, node: str, what: str) -> None:
        self.do(LINK_TROUBLES[what], self.world, self.owner(owner), self.node(node))

    @rule(node=NODES, what=st.sampled_from(sorted(NODE_TROUBLES)))
    def befall_node(self, node: str, what: str) -> None:
        self.do(NODE_TROUBLES[what], self.world, self.node(node))

    @rule(node=NODES, which=st.integers(0, 3))
    def kill_worker(self, node: str, which: int) -> None:
        there = self.node(node)
        if there.alive and not there.frozen and there.running:
            workers = list(there.running)
            self.do(there.worker_ends, workers[which % len(workers)], False)

    @rule(node=NODES, owner=OWNERS, cluster=st.integers(0, 3))
    def kill_nursery(self, node: str, owner: int, cluster: int) -> None:
        there = self.node(node)
        key = (self.owner(owner).name, self.owner(owner).clusters[cluster])
        if there.alive and not there.frozen and key in there.core.computations:
            self.do(there.fail, key)

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.05, 0.3, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.world.network.advance, seconds)

    def teardown(self) -> None:
        if self.world is not None and not self.broken:
            self.world.rest()


TwoCores.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
TestAnyOrder = TwoCores.TestCase
