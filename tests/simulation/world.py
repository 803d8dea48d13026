"""Both cores against each other through a simulated network, from one seed.

`SimOwner` and `SimNode` do with the real cores and the real ledger what the services do, with a
toy link instead of TCP: in order while it lives, lost with everything on the way when it breaks.
A seed decides delays, breaks, crashes, deaths of workers, cancels and repeats; the same seed gives
the same run. `History` is what really happened, and holds the promises.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import count, islice
from typing import Any

from dispy.execution.core import Execution
from dispy.execution.ledger import Ledger
from dispy.execution.records import Feed, Report, StartWorker, Stop, TellCrowded, TellShare
from dispy.model.statuses import Status
from dispy.scheduling.actions import CancelOnNode, Drop, GiveUp, Recall, Requeued, RunBatch
from dispy.scheduling.core import Scheduling
from dispy.scheduling.records import Cluster, Node

LAST_RESORT = "last resort"
BEAT = 0.1  # seconds: acknowledgements, and the nodes' look at the time


class History:
    """What happened to each job; every method is a promise that can be broken."""

    def __init__(self) -> None:
        self.submitted: dict[int, tuple[int, bool, str | None]] = {}  # cluster, reentrant, pin
        self.final: dict[int, Status] = {}
        self.starts: dict[int, int] = defaultdict(int)
        self.finished_somewhere: set[int] = set()
        self.cancelled: set[int] = set()
        self.killed: set[int] = set()  # with its worker, or its nursery
        self.sent: dict[int, list[int]] = defaultdict(list)  # values before their job's end
        self.came: dict[int, list[int]] = defaultdict(list)

    def submit(self, job: int, cluster: int, reentrant: bool, pin: str | None) -> None:
        self.submitted[job] = (cluster, reentrant, pin)

    def start(self, job: int, node: str) -> None:
        _, reentrant, pin = self.submitted[job]
        self.starts[job] += 1
        assert pin is None or pin == node, f"job {job} is pinned to {pin} and ran on {node}"
        assert reentrant or self.starts[job] == 1, f"job {job} is not reentrant and ran twice"

    def value(self, job: int, value: int) -> None:
        assert job not in self.final, f"job {job} has ended, and a value of it comes"
        assert value not in self.came[job], f"value {value} of job {job} comes twice"
        self.came[job].append(value)

    def end(self, job: int, status: Status) -> None:
        assert job not in self.final, f"job {job} is {self.final[job]!r} and {status!r}"
        self.final[job] = status
        if status == Status.Finished and not self.submitted[job][1]:  # else it may run elsewhere
            sent, came = self.sent[job], self.came[job]
            assert came == sent, f"job {job} has sent {sent}, and {came} came"
        if status == Status.Finished:
            assert job in self.finished_somewhere, f"job {job} has a result and never ran"
        if status == Status.Terminated:
            assert job in self.killed, f"job {job} was terminated by nobody"
        if status == Status.Cancelled:
            pinned = self.submitted[job][2] is not None
            assert job in self.cancelled or pinned, f"job {job} was cancelled by nobody"

    def at_quiet(self) -> None:
        """Everything is over: nothing may be missing, and little may have failed."""
        lost = self.submitted.keys() - self.final.keys()
        assert not lost, f"jobs without an end: {sorted(lost)[:10]}"
        for job, status in self.final.items():
            _, reentrant, pin = self.submitted[job]
            if reentrant and pin is None and job not in self.cancelled:
                assert status != Status.Abandoned, f"reentrant job {job} was given up"
                assert self.starts[job] >= 1, f"reentrant job {job} never ran"


class Network:
    """Time, what happens when, and links that keep order while they live."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._numbers), what))

    def step(self) -> bool:
        if not self._agenda:
            return False
        self.now, _, what = heapq.heappop(self._agenda)
        what()
        return True


class Link:
    """One connection: two directions, each in order, with delays of its own."""

    def __init__(self, network: Network, slow: float) -> None:
        self.network, self.slow, self.alive = network, slow, True
        self._arrival = {"owner": 0.0, "node": 0.0}
        self.receive: dict[str, Callable[..., None]] = {}

    def send(self, to: str, *message: Any) -> None:
        network = self.network
        delay = network.random.random() ** 4 * self.slow
        at = self._arrival[to] = max(self._arrival[to], network.now + delay)
        network.later(at - network.now, lambda: self._deliver(to, message))

    def _deliver(self, to: str, message: tuple[Any, ...]) -> None:
        if self.alive:
            self.receive[to](self, *message)


class SimNode:
    """A node's service without processes: workers are entries of the agenda."""

    def __init__(self, world: "World", name: str, slots: int) -> None:
        self.world, self.name, self.alive = world, name, True
        self.node_id = f"{name}#{next(world.incarnations)}"
        self.core = Execution(slots)
        self.ledgers: dict[str, Ledger[tuple[Any, ...]]] = {}
        self.links: dict[str, Link] = {}
        self.speed = world.random.choice((1.0, 1.0, 1.0, 10.0))
        self.running: dict[int, tuple[int, ...]] = {}  # worker -> packets it has
        self.slots = slots
        self.beat()

    def beat(self) -> None:
        if self.alive:
            self.perform(self.core.time_passed(self.world.now))
            self.world.network.later(BEAT, self.beat)

    def connected(self, owner: str, link: Link) -> None:
        self.links[owner] = link
        link.receive["node"] = lambda where, *message: self.hear(owner, where, *message)
        ledger = self.ledgers.setdefault(owner, Ledger())
        for batch in ledger.owed():
            link.send("owner", *batch)
        self.core.owner_connected(owner)
        held = self.core.held(owner)
        link.send("owner", "HELD", [j for jobs in held.values() for j in jobs], list(held))
        for key in held:
            self.tell_ready(key)
        self.tell(owner, "SHARE", self.core.share_of(owner), len(self.links))

    def tell(self, owner: str, *message: Any) -> None:
        link = self.links.get(owner)
        if link is not None and link.alive:
            link.send("owner", *message)

    def tell_ready(self, key: tuple[str, int]) -> None:
        if self.core.computations[key].ready:
            self.tell(key[0], "READY", key[1], None)

    def owe(self, key: tuple[str, int], jobs: list[int], status: Status, seconds: float) -> None:
        batch = self.owe_batch(key, "RESULTS", jobs, status, seconds)
        if self.world.random.random() < 0.05:
            self.tell(key[0], *batch)  # a repeat, as after a broken link

    def owe_value(self, key: tuple[str, int], job: int) -> None:
        """A job sends a value before its end."""
        value = next(self.world.values)
        self.world.owners[key[0]].history.sent[job].append(value)
        self.owe_batch(key, "PROVISIONAL", job, value)

    def owe_batch(self, key: tuple[str, int], kind: str, *body: Any) -> tuple[Any, ...]:
        ledger = self.ledgers[key[0]]
        number = ledger.next_number()
        batch = (kind, number, key[1], *body)
        ledger.owe(number, batch)
        self.tell(key[0], *batch)
        return batch

    def hear(self, owner: str, link: Link, kind: str, *body: Any) -> None:
        if not self.alive or self.links.get(owner) is not link:
            return
        core, key = self.core, (owner, body[0])
        if kind == "OPEN" and key not in core.computations:
            core.computation_opened(key, self.world.usual_width(key[1]))
            self.world.network.later(self.world.random.random() * 0.3, lambda: self.loaded(key))
        elif kind == "OPEN":
            self.tell_ready(key)
        elif kind == "LIMIT":
            self.perform(core.computation_limited(key, body[1]))
        elif kind == "RUN":
            if key not in core.computations:
                self.tell(owner, "RETURNED", key[1], body[1], "it is not here")
            else:
                widths = self.world.widths_of(key[1], body[1])
                lacking = [job for job in body[1] if self.world.random.random() < 0.05]
                self.perform(core.jobs_received(key, body[1], self.world.now, lacking, widths))
                if lacking:
                    later = self.world.random.random() * 0.3
                    self.world.network.later(later, lambda: self.has_come(key, lacking))
                if self.world.random.random() < 0.02:
                    self.perform(
                        core.jobs_received(key, body[1][:1], self.world.now, widths=widths)
                    )
        elif kind == "RECALL":
            self.tell(owner, "RETURNED", key[1], core.jobs_recalled(key, body[1]), None)
        elif kind == "CANCEL":
            self.cancel(key, body[1])
        elif kind == "DROP":
            self.perform(core.jobs_dropped(owner, body[0])[1])
        elif kind == "ACKNOWLEDGE":
            self.ledgers[owner].acknowledged(body[0])
        self.world.check(core)

    def has_come(self, key: tuple[str, int], jobs: list[int]) -> None:
        """What these jobs need is here."""
        if self.alive:
            self.perform(self.core.jobs_unblocked(key, jobs))
            self.world.check(self.core)

    def cancel(self, key: tuple[str, int], job: int) -> None:
        for action in self.core.cancel(key, job):
            if isinstance(action, Report):
                self.owe(key, list(action.jobs), Status.Cancelled, 0.0)
            elif isinstance(action, Stop):
                worker = self.core.workers[action.worker_id]
                if worker.jobs[0] == job:  # else it is not begun; a real node pokes the worker
                    self.worker_ends(action.worker_id, cancelled=True)

    def loaded(self, key: tuple[str, int]) -> None:
        if not self.alive or key not in self.core.computations:
            return
        if self.world.random.random() < 0.05 and self.world.troubled:
            self.fail(key)
            return
        self.tell(key[0], "READY", key[1], None)
        self.perform(self.core.computation_ready(key))

    def fail(self, key: tuple[str, int]) -> None:
        """The nursery has ended, or could not load it."""
        killed = self.world.owners[key[0]].history.killed
        workers = self.core.computations[key].workers.values()
        killed.update(worker.jobs[0] for worker in workers if worker.jobs)
        given, actions = self.core.computation_failed(key, "its nursery ended")
        self.perform(actions)
        if given:
            self.tell(key[0], "RETURNED", key[1], given, "its nursery ended")
        self.tell(key[0], "READY", key[1], "its nursery ended")

    def perform(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, Feed):
                self.feed(action.worker_id, action.jobs)
            elif isinstance(action, Report):
                self.owe(action.key, list(action.jobs), Status.Terminated, 0.0)
            elif isinstance(action, TellShare):
                self.tell(action.owner, "SHARE", action.slots, len(self.links))
            elif isinstance(action, TellCrowded):
                self.tell(action.owner, "CROWDED", ", ".join(who for who, _ in action.others))
            elif isinstance(action, Stop):
                self.running.pop(action.worker_id, None)
            else:
                assert isinstance(action, StartWorker)
        if actions:
            self.world.check(self.core)

    def feed(self, worker_id: int, jobs: tuple[int, ...]) -> None:
        begins = worker_id not in self.running
        self.running[worker_id] = (*self.running.get(worker_id, ()), *jobs)
        if begins:
            self.begin(worker_id)

    def begin(self, worker_id: int) -> None:
        """The worker begins its next job."""
        job = self.running[worker_id][0]
        key = self.core.workers[worker_id].key
        owner = key[0]
        self.world.owners[owner].history.start(job, self.name)
        if self.world.chatter.random() < 0.1:
            self.owe_value(key, job)
        filled = sum(self.core.workers[w].width for w in self.running)
        assert filled <= self.slots, f"jobs fill {filled} slots of {self.name}"
        cluster = self.world.owners[owner].history.submitted[job][0]
        seconds = self.world.seconds_of(cluster, job) * self.speed
        self.world.network.later(seconds, lambda: self.job_ends(worker_id, job, seconds))

    def job_ends(self, worker_id: int, job: int, seconds: float) -> None:
        if not self.alive or self.running.get(worker_id, ())[:1] != (job,):
            return  # the node, or the worker, died before
        key = self.core.workers[worker_id].key
        if self.world.troubled and self.world.random.random() < 0.004:
            self.worker_ends(worker_id, cancelled=False)
            return
        for _ in range(self.world.chatter.choice((0, 0, 1, 2))):
            self.owe_value(key, job)
        self.world.owners[key[0]].history.finished_somewhere.add(job)
        rest = self.running[worker_id][1:]
        self.running[worker_id] = rest
        self.owe(key, [job], Status.Finished, seconds)
        if not rest:
            del self.running[worker_id]
        self.perform(self.core.jobs_done(worker_id, [job], seconds, self.world.now))
        if rest:
            if self.world.random.random() < 0.1:  # it is poked and gives back what it can
                self.running[worker_id] = self.running[worker_id][:1]
                back = list(islice(self.core.workers[worker_id].jobs, 1, None))
                self.begin(worker_id)
                self.perform(self.core.jobs_given_back(worker_id, back))
            else:
                self.begin(worker_id)

    def worker_ends(self, worker_id: int, cancelled: bool) -> None:
        worker = self.core.workers[worker_id]
        self.world.owners[worker.key[0]].history.killed.update(list(worker.jobs)[:1])
        self.running.pop(worker_id, None)
        self.perform(self.core.worker_died(worker_id, 0, True, "killed", cancelled))

    def crash(self) -> None:
        self.alive = False
        for link in self.links.values():
            link.alive = False


class SimOwner:
    """A scheduler's service, with the same order of things as `dispy.scheduler.service`."""

    def __init__(self, world: "World", name: str, clusters: int) -> None:
        self.world, self.name = world, name
        self.core = Scheduling()
        self.history = History()
        self.links: dict[str, Link] = {}  # by node id
        self.acknowledged: dict[str, int] = {}
        self.opened: dict[str, set[int]] = defaultdict(set)
        self.refused: set[tuple[str, int]] = set()
        self.reentrant: dict[int, bool] = {}
        self.numbers = count()
        self.watching = False
        for number in range(clusters):
            self.reentrant[number] = number % 2 == 0
            width = world.usual_width(number)
            self.core.cluster_opened(
                Cluster(number, f"{name}{number}", self.reentrant[number], width)
            )
        self.beat()

    def beat(self) -> None:
        for node_id, link in self.links.items():
            node = self.core.nodes.get(node_id)
            if node is not None and link.alive and node.settled:
                link.send("node", "ACKNOWLEDGE", node.results_seen)
        self.world.network.later(BEAT, self.beat)

    def submit(self, cluster: int, many: int, pin: str | None) -> None:
        jobs = [next(self.numbers) for _ in range(many)]
        node = next((n for n in self.core.nodes.values() if n.name == pin), None)
        for job in jobs:
            self.history.submit(job, cluster, self.reentrant[cluster], pin if node else None)
        if node is None:
            self.core.jobs_submitted(cluster, jobs, self.world.widths_of(cluster, jobs))
        else:
            widths = self.world.widths_of(cluster, jobs)
            self.perform(self.core.jobs_pinned(cluster, jobs, node.node_id, widths))
        self.turn_over()

    def cancel(self, job: int) -> None:
        self.history.cancelled.add(job)
        self.perform(self.core.cancel(self.history.submitted[job][0], job))

    def connected(self, node: SimNode, link: Link) -> None:
        self.links[node.node_id] = link
        link.receive["owner"] = lambda where, *message: self.hear(node.node_id, where, *message)
        if node.node_id not in self.core.nodes:
            self.core.node_joined(Node(node.node_id, node.name, node.slots, settled=False))
        self.core.node_silent(node.node_id)  # the end of the old link may not have been noticed

    def disconnected(self, node_id: str, link: Link) -> None:
        if self.links.get(node_id) is link:
            self.core.node_silent(node_id)

    def lost(self, node_id: str) -> None:
        self.links.pop(node_id, None)
        self.opened.pop(node_id, None)
        self.perform(self.core.node_lost(node_id, "silent for too long", self.world.now))
        self.turn_over()

    def hear(self, node_id: str, link: Link, kind: str, *body: Any) -> None:
        if self.links.get(node_id) is not link or node_id not in self.core.nodes:
            return
        core, now = self.core, self.world.now
        if kind == "RESULTS":
            number, cluster, jobs, status, seconds = body
            if core.results_arrived(node_id, number):
                for job in core.jobs_finished(node_id, cluster, jobs, seconds or None, now):
                    self.history.end(job, status)
        elif kind == "PROVISIONAL":
            number, cluster, job, value = body
            there = core.nodes[node_id].allocations.get(cluster)
            if core.results_arrived(node_id, number) and there is not None and job in there.jobs:
                self.history.value(job, value)
        elif kind == "SHARE":
            core.node_shared(node_id, *body, now)
        elif kind == "CROWDED":
            core.node_crowded(node_id, *body)
        elif kind == "READY":
            if body[1] is None:
                core.cluster_ready_on(node_id, body[0])
            else:
                self.opened[node_id].discard(body[0])
                self.refused.add((node_id, body[0]))
                self.perform(core.cluster_refused_on(node_id, *body))
        elif kind == "RETURNED":
            self.perform(core.jobs_returned(node_id, *body, now))
        elif kind == "HELD":
            self.settle(node_id, *body)
        self.turn_over()

    def settle(self, node_id: str, jobs: list[int], keys: list[tuple[str, int]]) -> None:
        self.perform(self.core.node_settled(node_id, jobs, self.world.now))
        link, opened = self.links[node_id], self.opened[node_id]
        there = {key[1] for key in keys}
        for cluster in self.core.clusters:
            if (node_id, cluster) in self.refused:
                continue
            if cluster not in opened:
                limit = self.world.random.choice((9, 9, 9, 1))
                self.core.cluster_allocated(node_id, cluster, limit)
                opened.add(cluster)
            if cluster not in there:
                link.send("node", "OPEN", cluster)
            limit = self.core.nodes[node_id].allocations[cluster].limit
            link.send("node", "LIMIT", cluster, limit)

    def limit(self, node_id: str, cluster: int, limit: int) -> None:
        link = self.links.get(node_id)
        if link is None or not link.alive or cluster not in self.opened[node_id]:
            return
        if self.core.nodes[node_id].settled:
            link.send("node", "LIMIT", cluster, limit)
        self.perform(self.core.cluster_allocated(node_id, cluster, limit))
        self.turn_over()

    def turn_over(self) -> None:
        self.perform(self.core.place(self.world.now))
        self.world.check(self.core)
        if not self.watching and self.core.due is not None:
            self.watching = True
            self.world.network.later(max(0.0, self.core.due - self.world.now), self.watch)

    def watch(self) -> None:
        self.watching = False
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
                assert link.alive or self.core.nodes[action.node_id].settled
                link.send("node", "RUN", action.cluster_id, list(action.jobs))
            elif isinstance(action, Recall):
                link.send("node", "RECALL", action.cluster_id, list(action.jobs))
            elif isinstance(action, CancelOnNode):
                link.send("node", "CANCEL", action.cluster_id, action.job)
            else:
                assert isinstance(action, Drop)
                link.send("node", "DROP", list(action.jobs))


class World:
    """A few owners, a few nodes, and what befalls them."""

    def __init__(self, seed: int) -> None:
        self.network = Network(seed)
        self.random = self.network.random
        self.incarnations = count()
        # Apart, so that a seed decides the rest as if nobody sent values.
        self.chatter, self.values = random.Random(seed), count()
        self.troubled = True
        self.recalls = self.events = 0
        self.wide = seed % 2 == 0  # jobs differ in how many slots they need
        self.slow = self.random.choice((0.001, 0.05, 0.5))  # seconds, the longest delay
        self.owners = {name: SimOwner(self, name, clusters=3) for name in ("a", "b")}
        self.scale = {c: self.random.choice((1e-4, 1e-2, 0.3)) for c in range(3)}
        self.nodes: dict[str, SimNode] = {}
        for name in ("n1", "n2", "n3", "n4")[: self.random.randint(2, 4)]:
            self.start_node(name)

    @property
    def now(self) -> float:
        return self.network.now

    def usual_width(self, cluster: int) -> int:
        return 2 if self.wide and cluster == 2 else 1

    def widths_of(self, cluster: int, jobs: list[int]) -> dict[int, int]:
        """Slots that jobs need that differ from their cluster; a node has four at most."""
        return {job: 1 + job % 4 for job in jobs if job % 5 == 0} if self.wide else {}

    def check(self, core: Scheduling | Execution) -> None:
        """Look into a core now and then: a look costs more than an event."""
        self.events += 1
        if self.events % 8 == 0:
            core.check_invariants()

    def seconds_of(self, cluster: int, job: int) -> float:
        return self.scale[cluster] * (30 if job % 97 == 0 else 1 + job % 7)

    def start_node(self, name: str) -> None:
        node = self.nodes[name] = SimNode(
            self, name, 4 if name == LAST_RESORT else self.random.randint(1, 4)
        )
        for owner in self.owners.values():
            self.network.later(self.random.random() * 0.3, lambda o=owner: self.connect(o, node))

    def connect(self, owner: SimOwner, node: SimNode) -> None:
        if not node.alive:
            return
        link = Link(self.network, self.slow)
        owner.connected(node, link)
        node.connected(owner.name, link)

    def cut(self, owner: SimOwner, node: SimNode) -> None:
        """Break a link; whatever is on the way is lost. Mostly it is made again in time."""
        link = owner.links.get(node.node_id)
        if link is None or not link.alive:
            return
        link.alive = False
        self.network.later(0.02, lambda: owner.disconnected(node.node_id, link))
        if node.alive and self.random.random() < 0.9:
            self.network.later(self.random.random(), lambda: self.connect(owner, node))
        else:
            self.network.later(2.0, lambda: owner.lost(node.node_id))
            self.network.later(3.0, lambda: self.connect(owner, node))

    def crash(self, node: SimNode) -> None:
        node.crash()
        for owner in self.owners.values():
            if (link := owner.links.get(node.node_id)) is not None:
                gone = partial(owner.disconnected, node.node_id, link)
                self.network.later(0.02, gone)
            self.network.later(1.0 + self.random.random(), lambda o=owner: o.lost(node.node_id))
        self.network.later(self.random.random() * 2, lambda: self.start_node(node.name))

    def trouble(self) -> None:
        """Do one thing that may happen at any time."""
        owner = self.random.choice(list(self.owners.values()))
        node = self.random.choice(list(self.nodes.values()))
        chance = self.random.random()
        if chance < 0.5:
            pin = node.name if self.random.random() < 0.15 else None
            owner.submit(self.random.randrange(3), self.random.choice((1, 1, 8, 60)), pin)
        elif chance < 0.65 and owner.history.submitted:
            owner.cancel(self.random.choice(list(owner.history.submitted)))
        elif chance < 0.80:
            self.cut(owner, node)
        elif chance < 0.85 and node.alive:
            self.crash(node)
        elif chance < 0.90:
            owner.limit(node.node_id, self.random.randrange(3), self.random.choice((0, 1, 9)))
        elif node.core.computations and node.alive and chance < 0.91:
            node.fail(self.random.choice(list(node.core.computations)))
        elif node.running and node.alive:
            node.worker_ends(self.random.choice(list(node.running)), cancelled=False)

    def run(self, troubles: int) -> None:
        """Let things happen, then let everything come to rest, and look at the promises."""
        for _ in range(troubles):
            self.trouble()
            until = self.now + self.random.random() * 0.2
            self.advance(until)
        self.troubled = False
        self.advance(self.now + 5.0)  # links that were cut are back
        self.start_node(LAST_RESORT)  # one that never refuses, for what the others refused
        self.advance(self.now + 2.0)
        for owner in self.owners.values():
            for node_id, opened in list(owner.opened.items()):
                for cluster in list(opened):
                    owner.limit(node_id, cluster, 9)
        deadline = self.now + 3000.0
        while self.now < deadline and any(
            len(o.history.final) < len(o.history.submitted) for o in self.owners.values()
        ):
            self.advance(self.now + 1.0)
        for owner in self.owners.values():
            owner.history.at_quiet()

    def advance(self, until: float) -> None:
        done = False

        def stop() -> None:
            nonlocal done
            done = True

        self.network.later(until - self.now, stop)
        while not done:
            self.network.step()
