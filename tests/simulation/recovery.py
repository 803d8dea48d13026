"""A program that takes what nodes keep for one that has died."""

from typing import TYPE_CHECKING, Any

from network import Link

from dispy.model.statuses import Status

if TYPE_CHECKING:
    from sim_node import SimNode
    from world import World


class Recovery:
    """Has the dead program's identity. Nothing is acknowledged before it has everything, so that
    it may die at any time and another one takes all again."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name, self.alive = world, name, True
        self.taken: dict[tuple[int, int], Status] = {}  # results, by cluster and job
        self.links: dict[str, Link] = {}
        self.held: dict[str, set[int]] = {}  # jobs that nodes still have, by node
        self.expected = [node.node_id for node in world.nodes.values()]
        self.computations: dict[str, set[int]] = {}
        self.numbers: dict[str, int] = {}
        self.look()

    def die(self) -> None:
        self.alive = False
        for link in self.links.values():
            link.alive = False

    def connected(self, node: "SimNode", link: Link) -> None:
        self.links[node.node_id] = link
        self.numbers[node.node_id] = 0
        self.held.pop(node.node_id, None)
        link.receive["owner"] = lambda where, *message: self.hear(node, where, *message)

    def hear(self, node: "SimNode", link: Link, kind: str, *body: Any) -> None:
        if not self.alive or self.links.get(node.node_id) is not link:
            return
        if kind == "RESULTS":
            number, cluster, jobs, status, _, _ = body
            self.numbers[node.node_id] = max(self.numbers[node.node_id], number)
            for job in jobs:
                self.taken.setdefault((cluster, job), status)
            self.held.get(node.node_id, set()).difference_update(jobs)
        elif kind == "PROVISIONAL":
            self.numbers[node.node_id] = max(self.numbers[node.node_id], body[0])
        elif kind == "RETURNED":
            self.held.get(node.node_id, set()).difference_update(body[1])
        elif kind == "HELD":
            self.held[node.node_id] = set(body[0])
            self.computations[node.node_id] = {key[1] for key in body[1]}
            for job in sorted(body[0]):
                job_kind = self.world.histories[self.name].submitted[job].kind
                if job_kind == "endless":  # nobody waits for it
                    self.world.histories[self.name].cancelled.add(job)
                    link.send("node", "CANCEL", self.cluster_of(job), job)

    def cluster_of(self, job: int) -> int:
        return self.world.histories[self.name].submitted[job].cluster

    def look(self) -> None:
        """Now and then: is everything here? Then hand it over, acknowledge, and close."""
        if not self.alive:
            return
        alive = {node.node_id: node for node in self.world.nodes.values() if node.alive}
        there = [node_id for node_id in self.expected if node_id in alive]
        if all(node_id in self.held and not self.held[node_id] for node_id in there):
            self.hand_over(there)
            return
        self.world.network.later(0.2, self.look)

    def hand_over(self, there: list[str]) -> None:
        history = self.world.histories[self.name]
        history.recovered = True
        for (cluster, job), status in self.taken.items():
            if job not in history.final and cluster not in history.closed:
                history.end(job, status)
        for node_id in there:
            link = self.links[node_id]
            link.send("node", "ACKNOWLEDGE", self.numbers[node_id])
            for cluster in sorted(self.computations[node_id]):
                link.send("node", "CLOSE", cluster)
        self.alive = False  # its links stay until all is sent
        self.world.has_recovered(self.name)
