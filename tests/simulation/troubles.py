"""What befalls a world whose seed decides everything: which of its events, when, and whom."""

import random

from sim_owner import SimOwner
from world import World

SLOW = 0.001, 0.05, 0.5  # seconds; the longest delay of a message
SCALES = 1e-4, 1e-2, 0.3  # seconds that jobs take
PATIENCE = 2.0  # seconds after which an owner gives up a node


class Troubles:
    """Chooses by the seed; what was broken is mended after a while, or is given up."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        slots = tuple(self.random.randint(1, 4) for _ in range(self.random.randint(2, 4)))
        scale = tuple(self.random.choice(SCALES) for _ in range(4))
        wide, slow = seed % 2 == 0, self.random.choice(SLOW)
        self.world = World(seed, slots, slow, wide, chances=True, scale=scale)

    def run(self, troubles: int) -> World:
        """Let things happen, then let everything come to rest, and look at the promises."""
        for _ in range(troubles):
            self.happen()
            self.world.network.advance(self.random.random() * 0.2)
        self.world.rest()
        return self.world

    def happen(self) -> None:
        """Do one thing that may happen at any time."""
        chance = self.random.random()
        if chance < 0.45:
            self.submit()
        elif chance < 0.60:
            self.cancel()
        elif chance < 0.75:
            self.break_link()
        elif chance < 0.80:
            self.break_node()
        elif chance < 0.83:
            self.limit()
        elif chance < 0.88:
            self.kill()
        elif chance < 0.91:
            self.sicken()
        elif chance < 0.94:
            self.close_cluster()
        elif chance < 0.96:
            self.end_program()
        elif chance < 0.97 and self.world.dead:
            self.world.recover(self.random.choice(sorted(self.world.dead)))

    def an_owner(self) -> SimOwner:
        return self.random.choice(list(self.world.owners.values()))

    def submit(self) -> None:
        owner = self.an_owner()
        pin = None
        if self.random.random() < 0.15:
            pin = self.random.choice(sorted(self.world.nodes))
        kind = self.random.choices(("works", "fails", "kills", "endless"), (80, 10, 6, 4))[0]
        many = self.random.choice((1, 1, 8, 60)) if kind == "works" else 1
        owner.submit(self.random.choice(owner.clusters), many, kind, pin)

    def cancel(self) -> None:
        owner = self.an_owner()
        if missing := owner.history.missing():
            owner.cancel(self.random.choice(missing))

    def break_link(self) -> None:
        world, owner = self.world, self.an_owner()
        node = self.random.choice(list(world.nodes.values()))
        how = self.random.choice(("noticed", "unnoticed", "owner", "node"))
        if how in ("noticed", "unnoticed"):
            world.cut(owner, node, how == "noticed")
        else:
            world.silence(owner, node, how)
        link = owner.links.get(node.node_id)
        patience = self.random.random() * PATIENCE
        world.network.later(patience, lambda: owner.disconnected(node.node_id, link))
        if self.random.random() < 0.2:
            world.network.later(PATIENCE, lambda: owner.lost(node.node_id, link))
            patience += PATIENCE
        world.network.later(patience + 0.1, lambda: world.connect(owner, node))

    def break_node(self) -> None:
        """It dies and is started again, or hangs and goes on."""
        world, node = self.world, self.random.choice(list(self.world.nodes.values()))
        if not node.alive or node.frozen:
            return
        away = self.random.random() * 2 * PATIENCE
        if self.random.random() < 0.5:
            world.crash(node)
            for owner in world.owners.values():
                link = owner.links.get(node.node_id)
                gone = self.random.random() * PATIENCE
                world.network.later(gone, lambda o=owner, k=link: o.lost(node.node_id, k))
            world.network.later(away, lambda: world.start_node(node.name, node.slots))
            return
        node.freeze()
        for owner in world.owners.values():
            link = owner.links.get(node.node_id)
            if away > PATIENCE / 2:
                world.notice(owner, node, PATIENCE / 2)
            if away > PATIENCE:
                world.network.later(PATIENCE, lambda o=owner, k=link: o.lost(node.node_id, k))
        world.network.later(away, node.resume)
        for owner in world.owners.values():
            world.network.later(away + 0.1, lambda o=owner: world.connect(o, node))

    def limit(self) -> None:
        owner = self.an_owner()
        if owner.core.nodes:
            node_id = self.random.choice(sorted(owner.core.nodes))
            owner.limit(node_id, self.random.choice(owner.clusters), self.random.choice((0, 1, 9)))

    def kill(self) -> None:
        """A worker, or rarely a nursery."""
        node = self.random.choice(list(self.world.nodes.values()))
        if not node.alive or node.frozen:
            return
        if self.random.random() < 0.1 and node.core.computations:
            node.fail(self.random.choice(list(node.core.computations)))
        elif node.running:
            node.worker_ends(self.random.choice(list(node.running)), cancelled=False)

    def sicken(self) -> None:
        """A node on which every job fails, for some seconds."""
        node = self.random.choice(list(self.world.nodes.values()))

        def recover() -> None:
            node.sick = False

        node.sick = True
        self.world.network.later(PATIENCE, recover)

    def close_cluster(self) -> None:
        owner = self.an_owner()
        owner.close_cluster(self.random.choice(owner.clusters))
        owner.open_cluster()

    def end_program(self) -> None:
        if len(self.world.histories) < 8:
            self.world.owner_dies(self.an_owner())
