"""Any order of events keeps the scheduler's promises."""

import random

from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Cluster, GiveUp, Node, Requeued


class House:
    """A scheduling core, a crowd of imaginary nodes, and what should be true of them."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.random = random.Random(seed)
        self.core = Scheduling()
        self.names = [f"node{n}" for n in range(nodes)]
        self.submitted: dict[int, int] = {}  # job -> cluster
        self.final: set[int] = set()
        self.sent = 0
        for number in range(3):
            self.core.cluster_opened(Cluster(number, f"cluster{number}", reentrant=number != 1))

    def settle(self, actions: list) -> None:
        for action in actions:
            if isinstance(action, GiveUp):
                assert action.cluster_id == 1, "a reentrant job was given up"
                self.finish(action.jobs)
            elif isinstance(action, Requeued):
                assert not self.final & set(action.jobs), "a final job waits again"

    def finish(self, jobs) -> None:
        for job in jobs:
            assert job not in self.final, "a job is final twice"
            self.final.add(job)

    def step(self) -> None:
        chance, core = self.random.random(), self.core
        name = self.random.choice(self.names)
        node = core.nodes.get(name)
        if chance < 0.25:
            cluster = self.random.randrange(3)
            jobs = range(len(self.submitted), len(self.submitted) + self.random.choice((1, 5, 40)))
            self.submitted.update(dict.fromkeys(jobs, cluster))
            core.jobs_submitted(cluster, list(jobs))
        elif node is None:
            core.node_joined(Node(name, name, self.random.randint(1, 4)))
            for cluster in range(3):
                if self.random.random() < 0.8:
                    core.cluster_ready_on(name, cluster)
        elif chance < 0.85:
            jobs = list(node.jobs)[: self.random.randint(0, 60)]
            strangers = [self.random.randrange(len(self.submitted) + 1)]
            expected = {j for j in (*jobs, *strangers) if j in node.jobs}
            seconds = self.random.choice((1e-6, 1e-3, 1.0))
            counted = core.jobs_finished(name, [*jobs, *strangers], seconds)
            assert counted == expected
            self.finish(counted)
        elif chance < 0.88:
            core.node_shared(name, self.random.randint(0, 6))
        elif chance < 0.91:
            self.settle(core.jobs_returned(name, list(node.jobs)[-3:]))
        elif chance < 0.95:
            core.node_silent(name)
            held = [job for job in node.jobs if self.random.random() < 0.7]
            if self.random.random() < 0.8:
                self.settle(core.node_settled(name, [*held, 10**9]))
        elif chance < 0.98:
            self.settle(core.node_lost(name, "its link broke"))
        elif self.submitted:
            job = self.random.randrange(len(self.submitted))
            cluster = core.clusters[self.submitted[job]]
            was_queued = job in cluster.queued
            core.cancel(cluster.cluster_id, job, None)
            if was_queued:
                self.finish([job])

    def check(self) -> None:
        places = [job for cluster in self.core.clusters.values() for job in cluster.queued]
        places += [job for node in self.core.nodes.values() for job in node.jobs]
        assert sorted([*places, *self.final]) == list(range(len(self.submitted)))
        self.core.check_invariants()


def test_any_order_of_events_keeps_the_promises() -> None:
    for seed in range(60):
        house = House(seed, nodes=6)
        for _ in range(120):
            house.step()
            house.core.place()
            house.check()


def test_many_nodes_and_events_lose_nothing() -> None:
    house = House(seed=1, nodes=3000)
    for at in range(60_000):
        house.step()
        house.core.place()
        if at % 6000 == 0:
            house.check()
    house.check()


def test_a_few_jobs_are_spread_over_the_nodes() -> None:
    core = Scheduling()
    core.cluster_opened(Cluster(1, "compute"))
    for name in "abcde":
        core.node_joined(Node(name, name, 4))
        core.cluster_ready_on(name, 1)
    core.jobs_submitted(1, range(10))
    core.place()
    assert {name: len(node.jobs) for name, node in core.nodes.items()} == dict.fromkeys("abcde", 2)


def test_nothing_is_prefetched_before_a_duration_is_known_nor_beyond_50_ms() -> None:
    core = Scheduling()
    core.cluster_opened(Cluster(1, "compute"))
    core.node_joined(Node("a", "a", 2))
    core.cluster_ready_on("a", 1)
    core.jobs_submitted(1, range(1000))
    core.place()
    assert len(core.nodes["a"].jobs) == 2
    core.jobs_finished("a", [0, 1], seconds=0.005)
    core.place()
    assert len(core.nodes["a"].jobs) == 2 + 2 * 10
