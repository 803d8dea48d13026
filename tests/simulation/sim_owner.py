"""A scheduler's service, with the same order of things as `dispy.scheduler.service`."""

from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING, Any

from history import History, Job
from network import Link
from sim_node import BEAT, SimNode

from dispy.model.statuses import Status
from dispy.scheduling.actions import CancelOnNode, Drop, GiveUp, Recall, Requeued, RunBatch
from dispy.scheduling.choosing import policy_of
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Cluster, Node

if TYPE_CHECKING:
    from world import World

KINDS = 4  # of clusters; a cluster's number says which it is

ONE_AFTER_THE_OTHER = ("load", "fair", "load", "first")  # policies of programs


def rules_of(cluster: int) -> tuple[bool, int | None]:
    """Return whether a cluster is reentrant, and its retries."""
    return ((True, None), (False, None), (True, None), (False, 2))[cluster % KINDS]


class SimOwner:
    """A program with its clusters, until it dies."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name, self.alive = world, name, True
        self.core = Scheduling(policy_of(ONE_AFTER_THE_OTHER[len(world.histories) % 4]))
        self.history = world.histories[name] = History()
        self.links: dict[str, Link] = {}  # by node id
        self.opened: dict[str, set[int]] = defaultdict(set)
        self.refused: set[tuple[str, int]] = set()
        self.clusters: list[int] = []  # that are open
        self.taken: set[tuple[str, int]] = set()  # batches of results, of nodes that are there
        self.numbers = count()
        self._cluster_numbers = count()
        self.watching = False
        for _ in range(KINDS):
            self.open_cluster()
        self.beat()

    def beat(self) -> None:
        if not self.alive:
            return
        for node_id, link in self.links.items():
            node = self.core.nodes.get(node_id)
            if node is not None and node.settled:
                link.send("node", "ACKNOWLEDGE", node.results_seen)
        self.world.network.later(BEAT, self.beat)

    def die(self) -> None:
        """Without a word: nodes keep what they have."""
        self.alive = False
        for link in self.links.values():
            link.alive = False

    def knows(self, cluster: int, job: int) -> bool:
        """Whether a job has yet to end."""
        there = self.core.clusters.get(cluster)
        return there is not None and (job in there.placed or self.core.is_queued(cluster, job))

    # -- what its user does

    def open_cluster(self) -> None:
        number = next(self._cluster_numbers)
        reentrant, retries = rules_of(number)
        width = self.world.usual_width(number)
        self.core.cluster_opened(Cluster(number, f"{self.name}{number}", reentrant, width, retries))
        self.clusters.append(number)
        for node_id, node in self.core.nodes.items():
            if node.settled:
                self.allocate(node_id, number)

    def close_cluster(self, cluster: int) -> None:
        """As with `terminate`: its jobs are wanted no more."""
        self.clusters.remove(cluster)
        self.history.close(cluster)
        self.core.cluster_closed(cluster)
        for node_id, opened in self.opened.items():
            if cluster in opened:
                opened.discard(cluster)
                if self.core.nodes[node_id].settled:  # else it is told when it is back
                    self.links[node_id].send("node", "CLOSE", cluster)
        self.turn_over()

    def submit(self, cluster: int, many: int, kind: str = "works", pin: str | None = None) -> None:
        jobs = [next(self.numbers) for _ in range(many)]
        node = next((n for n in self.core.nodes.values() if n.name == pin), None)
        own = {job: job % 3 for job in jobs if job % 11 == 0}  # retries that differ
        reentrant, retries = rules_of(cluster)
        for job in jobs:
            allowed = own.get(job, retries)
            pinned = pin if node else None
            self.history.submit(job, Job(cluster, kind, reentrant, allowed, pinned))
        widths = self.world.widths_of(cluster, jobs)
        if node is None:
            self.core.jobs_submitted(cluster, jobs, widths, own)
        else:
            self.perform(self.core.jobs_pinned(cluster, jobs, node.node_id, widths, own))
        self.turn_over()

    def cancel(self, job: int) -> None:
        if job not in self.history.final:
            self.history.cancelled.add(job)
        self.perform(self.core.cancel(self.history.submitted[job].cluster, job))
        self.turn_over()

    def limit(self, node_id: str, cluster: int, limit: int) -> None:
        """Let a cluster use so many slots of a node; one that was set aside is tried again."""
        if cluster not in self.opened[node_id]:
            return
        if self.core.nodes[node_id].settled:
            self.links[node_id].send("node", "LIMIT", cluster, limit)
        self.perform(self.core.cluster_allocated(node_id, cluster, limit))
        self.turn_over()

    # -- nodes

    def connected(self, node: SimNode, link: Link) -> None:
        self.links[node.node_id] = link
        link.receive["owner"] = lambda where, *message: self.hear(node.node_id, where, *message)
        if node.node_id not in self.core.nodes:
            self.core.node_joined(Node(node.node_id, node.name, node.slots, settled=False))
        self.core.node_silent(node.node_id)  # the end of the old link may not have been noticed
        self.turn_over()

    def disconnected(self, node_id: str, link: Link | None) -> None:
        """Take note of a link's end, or end it for its silence."""
        if link is None:
            return
        link.alive = False
        if self.alive and self.links.get(node_id) is link:
            self.core.node_silent(node_id)
            self.turn_over()

    def lost(self, node_id: str, link: Link | None) -> None:
        """Give a node up that has not come back since this link to it."""
        if not self.alive or link is None or self.links.get(node_id) is not link:
            return
        self.disconnected(node_id, link)
        del self.links[node_id]
        self.opened.pop(node_id, None)
        self.refused = {place for place in self.refused if place[0] != node_id}
        self.taken = {batch for batch in self.taken if batch[0] != node_id}
        actions = self.core.node_lost(node_id, "silent for too long", self.world.now)
        for action in actions:
            if isinstance(action, Requeued):
                for job in action.jobs:
                    self.history.lost(job)
        self.perform(actions)
        self.turn_over()

    def hear(self, node_id: str, link: Link, kind: str, *body: Any) -> None:
        if not self.alive or self.links.get(node_id) is not link or node_id not in self.core.nodes:
            return
        core, now = self.core, self.world.now
        if kind == "RESULTS":
            self.take_results(node_id, *body)
        elif kind == "PROVISIONAL":
            self.take_value(node_id, *body)
        elif kind == "SHARE":
            core.node_shared(node_id, *body, now)
        elif kind == "CROWDED":
            core.node_crowded(node_id, *body)
        elif kind == "READY":
            self.answered(node_id, *body)
        elif kind == "RETURNED":
            self.perform(core.jobs_returned(node_id, *body, now))
        elif kind == "FULL":
            self.perform(core.node_full(node_id, *body, now))
        else:
            assert kind == "HELD"
            self.settle(node_id, *body)
        self.turn_over()

    def take_value(self, node_id: str, number: int, cluster: int, job: int, value: int) -> None:
        """Take a node's PROVISIONAL."""
        if self.core.results_arrived(node_id, number):
            there = self.core.clusters.get(cluster)
            allocation = None if there is None else there.allocations.get(node_id)
            if allocation is not None and job in allocation.jobs:
                self.history.value(job, value)

    def take_results(
        self, node_id: str, number: int, cluster: int, jobs: list[int], status: Status,
        seconds: float, died: bool,
    ) -> None:  # fmt: skip
        """Take a node's RESULTS as `dispy.scheduler.results` and `failing` do."""
        core, now, mean = self.core, self.world.now, seconds or None
        if not core.results_arrived(node_id, number):
            return
        assert (node_id, number) not in self.taken, f"results {number} of {node_id} are taken twice"
        self.taken.add((node_id, number))
        there = core.clusters.get(cluster)
        allocation = None if there is None else there.allocations.get(node_id)
        jobs = [job for job in jobs if allocation is not None and job in allocation.jobs]
        if not jobs:
            return
        failed = 0
        if status == Status.Terminated:
            again = []
            for job in jobs if died else ():
                actions = core.job_died(node_id, cluster, job, "killed", now)
                self.perform(actions)
                again += [job] if actions else []
            jobs = [job for job in jobs if job not in again]
            failed = len(jobs)
        if failed or mean is not None:
            why, actions = core.jobs_failed(
                node_id, cluster, failed, len(jobs) - failed, mean, "it fails"
            )
            self.world.set_aside += why is not None
            self.perform(actions)
        for job in core.jobs_finished(node_id, cluster, jobs, mean, now):
            self.history.end(job, status)

    def answered(self, node_id: str, cluster: int, error: str | None) -> None:
        if cluster not in self.core.clusters:
            return
        if error is None:
            self.core.cluster_ready_on(node_id, cluster)
            return
        self.opened[node_id].discard(cluster)
        self.refused.add((node_id, cluster))
        self.perform(self.core.cluster_refused_on(node_id, cluster, error))

    def settle(self, node_id: str, jobs: list[int], keys: list[tuple[str, int]]) -> None:
        self.perform(self.core.node_settled(node_id, jobs, self.world.now))
        there = {key[1] for key in keys}
        for cluster in sorted(there - self.core.clusters.keys()):
            self.links[node_id].send("node", "CLOSE", cluster)
        for cluster in self.core.clusters:
            self.allocate(node_id, cluster, there)

    def allocate(
        self, node_id: str, cluster: int, there: set[int] | frozenset[int] = frozenset()
    ) -> None:
        """Have a node set a cluster up, unless it cannot."""
        if (node_id, cluster) in self.refused:
            return
        link, opened = self.links[node_id], self.opened[node_id]
        if cluster not in opened:
            limit = 1 if self.world.chance(0.25) else 9
            self.core.cluster_allocated(node_id, cluster, limit)
            opened.add(cluster)
        if cluster not in there:
            link.send("node", "OPEN", cluster)
        link.send("node", "LIMIT", cluster, self.core.nodes[node_id].allocations[cluster].limit)

    # -- carrying out

    def turn_over(self) -> None:
        self.perform(self.core.place(self.world.now))
        self.world.check(self.core)
        if not self.watching and self.core.due is not None:
            self.watching = True
            self.world.network.later(max(0.0, self.core.due - self.world.now), self.watch)

    def watch(self) -> None:
        self.watching = False
        if not self.alive:
            return
        recalls = self.core.time_passed(self.world.now)
        self.world.recalls += len(recalls)
        self.perform(recalls)
        self.turn_over()

    def perform(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, GiveUp):
                for job in action.jobs:
                    self.history.end(job, action.status)
                continue
            if isinstance(action, Requeued):
                continue
            link = self.links[action.node_id]
            if isinstance(action, RunBatch):
                assert self.core.nodes[action.node_id].settled, "jobs go to a node before its list"
                self.run(link, action)
            elif isinstance(action, Recall):
                link.send("node", "RECALL", action.cluster_id, list(action.jobs))
            elif isinstance(action, CancelOnNode):
                link.send("node", "CANCEL", action.cluster_id, action.job)
            else:
                assert isinstance(action, Drop)
                link.send("node", "DROP", list(action.jobs))

    def run(self, link: Link, batch: RunBatch) -> None:
        for job in batch.jobs:
            self.history.send(job)
        before = self.core.clusters[batch.cluster_id].attempts
        attempts = [before.get(job, 0) + 1 for job in batch.jobs]
        link.send("node", "RUN", batch.cluster_id, list(batch.jobs), attempts)
