"""A scheduling core, a crowd of imaginary nodes, and a model of what should be true of them.

The model is kept apart from the core: it believes only the orders that come out. After each event
it checks in time that does not depend on the size of the world: every order is legal where the
jobs are, and no slot idles while a job that may use it waits. `check_all` compares everything.
"""

import random
from dataclasses import dataclass, field

from dispy.model.statuses import Status
from dispy.scheduling.actions import CancelOnNode, Drop, GiveUp, Leave, Recall, Requeued
from dispy.scheduling.core import Scheduling
from dispy.scheduling.policies import Policy
from dispy.scheduling.records import Cluster, Node

SMALL = 50  # nodes of a world that is looked through after each event
LIMIT = 6  # slots of each user, in a gated world
QUEUED, FINAL = "queued", "final"


@dataclass
class Seat:
    """What a cluster has of a node."""

    limit: int
    ready: bool = False
    refused: bool = False
    full: bool = False  # until it says that there is room
    leaving: bool = False  # its computation is to be closed there
    told: bool = False  # the node was told so
    stops: bool = False  # what runs there does not end by itself
    jobs: dict[int, None] = field(default_factory=dict)
    pinned: int = 0  # queued for this node alone
    idles: bool = False  # a job of the cluster would begin at once
    recalled: list[tuple[int, ...]] = field(default_factory=list)  # unanswered


@dataclass
class House:
    """A node."""

    slots: int
    capacity: int
    settled: bool = True
    drained: bool = False
    seats: dict[int, Seat] = field(default_factory=dict)


@dataclass
class Group:
    """A cluster."""

    reentrant: bool
    queued: int = 0
    idle_seats: int = 0


class World:
    """Each method is one event, random or chosen; all end in `settle`."""

    def __init__(
        self,
        seed: int = 0,
        nodes: int = 6,
        clusters: int = 3,
        wide: bool = False,
        policy: Policy | None = None,
        gated: bool = False,
        drains: bool = False,
    ) -> None:
        """wide: jobs differ in how many slots they need.

        gated: clusters belong to users with a limit, some run exclusively, jobs have priorities.
        drains: nodes are drained, and used again.
        """
        self.gated, self.drains = gated, drains
        self.drained = 0  # nodes that had jobs
        self.out_of_use: set[str] = set()  # drained, and perhaps lost meanwhile
        self.alone = self.held = 0  # exclusive clusters that had jobs, and looks at a full limit
        self.random = random.Random(seed)
        self.wide = wide
        self.priorities: dict[int, int] = {}
        self.widths: dict[int, int] = {}  # of jobs that need more than one slot
        self.reservations = self.starts_of_wide = 0
        self.core = Scheduling(policy, owner_slots=LIMIT if gated else None)
        self.now = 0.0
        self.names = [f"node{n}" for n in range(nodes)]
        self.houses: dict[str, House] = {}
        self.groups: dict[int, Group] = {}
        self.where: dict[int, str] = {}  # job -> QUEUED, FINAL, or a node
        self.cluster_of: dict[int, int] = {}
        self.cancelling: set[int] = set()  # while they are on a node
        self.pins: dict[int, str] = {}
        self.bad_pins: set[tuple[str, int]] = set()  # idle slots with pinned jobs waiting
        self.finals = 0
        self.recalls = 0
        self.next_cluster = 0
        for _ in range(clusters):
            self.open_cluster()

    # -- events

    def open_cluster(self) -> None:
        number, self.next_cluster = self.next_cluster, self.next_cluster + 1
        self.groups[number] = Group(reentrant=number % 3 != 1)
        width = 2 if self.wide and number % 3 == 2 else 1
        cluster = Cluster(number, f"c{number}", reentrant=number % 3 != 1, width=width)
        if self.gated:
            cluster.owner = self.random.choice(("", "ann", "ben"))
            cluster.exclusive = self.random.random() < 0.3
            cluster.priority = self.random.choice((0, 0, 1))
        self.core.cluster_opened(cluster)

    def close_cluster(self, cluster: int) -> None:
        actions = self.core.cluster_closed(cluster)
        dropped = [job for action in actions for job in action.jobs]
        held = [job for h in self.houses.values() if cluster in h.seats
                for job in h.seats[cluster].jobs]  # fmt: skip
        assert sorted(dropped) == sorted(held), "a closed cluster leaves jobs on nodes"
        for job, owner in list(self.cluster_of.items()):
            if owner == cluster and self.where[job] != FINAL:
                self.end(job)
        for house in self.houses.values():
            if house.seats.pop(cluster, None):
                self.touch(house)
        del self.groups[cluster]
        self.settle([])

    def choose_widths(self, cluster: int, jobs: list[int], width: int) -> dict[int, int]:
        """Let some of these jobs need `width` slots; the others need what their cluster says."""
        usual = self.core.clusters[cluster].width
        widths = {job: width for job in jobs if job % 3} if width and self.wide else {}
        self.widths.update({job: w for job in jobs if (w := widths.get(job, usual)) != 1})
        return widths

    def choose_priorities(self, jobs: list[int]) -> dict[int, int]:
        """Let some of these jobs go before others, or after them; only in worlds with gates."""
        if not self.gated:
            return {}
        chosen = {job: p for job in jobs if (p := self.random.choice((0, 0, -1, 2)))}
        self.priorities.update(chosen)
        return chosen

    def submit(self, cluster: int, count: int, width: int = 0) -> list[int]:
        jobs = list(range(len(self.where), len(self.where) + count))
        widths = self.choose_widths(cluster, jobs, width)
        self.where.update(dict.fromkeys(jobs, QUEUED))
        self.cluster_of.update(dict.fromkeys(jobs, cluster))
        self.groups[cluster].queued += count
        self.core.jobs_submitted(cluster, jobs, widths, priorities=self.choose_priorities(jobs))
        self.settle([])
        return jobs

    def pin(self, cluster: int, name: str, count: int, width: int = 0) -> None:
        jobs = list(range(len(self.where), len(self.where) + count))
        widths = self.choose_widths(cluster, jobs, width)
        self.where.update(dict.fromkeys(jobs, QUEUED))
        self.cluster_of.update(dict.fromkeys(jobs, cluster))
        priorities = self.choose_priorities(jobs)
        actions = self.core.jobs_pinned(cluster, jobs, name, widths, priorities=priorities)
        house = self.houses.get(name)
        seat = house.seats.get(cluster) if house else None
        widest = max(self.widths.get(job, 1) for job in jobs)
        narrow = seat is not None and 0 < min(seat.limit, house.capacity) < widest
        if house is None or seat is None or seat.refused or narrow:
            assert [a.status for a in actions] == [Status.Cancelled]
            self.groups[cluster].queued += count  # `settle` takes them back
        else:
            assert not actions
            seat.pinned += count
            self.pins.update(dict.fromkeys(jobs, name))
            self.touch(house)
        self.settle(actions)

    def join(self, name: str, slots: int, limits: dict[int, int | None]) -> None:
        """`limits`: for each cluster that may use it, how many slots; None: never decided."""
        self.core.node_joined(Node(name, name, slots))
        house = self.houses[name] = House(slots, slots, drained=name in self.out_of_use)
        for cluster, limit in limits.items():
            if limit is not None:
                self.core.cluster_allocated(name, cluster, limit)
                house.seats[cluster] = Seat(limit)
        self.settle([])

    def ready(self, name: str, cluster: int) -> None:
        house = self.houses[name]
        if cluster not in house.seats:
            self.core.cluster_allocated(name, cluster, 1)
            house.seats[cluster] = Seat(1)
        if not house.seats[cluster].leaving:
            house.seats[cluster].ready, house.seats[cluster].refused = True, False
        self.core.cluster_ready_on(name, cluster)
        self.touch(house)
        self.settle([])

    def refuse(self, name: str, cluster: int) -> None:
        house = self.houses[name]
        if cluster in house.seats:
            house.seats[cluster].refused = True
        self.touch(house)
        self.settle(self.core.cluster_refused_on(name, cluster, "its code cannot be loaded"))

    def leave(self, name: str, cluster: int, terminate: bool, again: bool) -> None:
        house = self.houses[name]
        if cluster in house.seats:
            seat = house.seats[cluster]
            seat.leaving, seat.told, seat.ready = True, False, False
            seat.refused = seat.refused or not again
            seat.stops = seat.stops or terminate
        self.touch(house)
        why = None if again else "it was closed there"
        self.settle(self.core.cluster_leaves(name, cluster, terminate, why))

    def left(self, name: str, cluster: int) -> None:
        """The node has closed it, if it was told to."""
        seat = self.houses[name].seats.get(cluster)
        if seat is not None and seat.told:
            seat.leaving = seat.told = seat.stops = False
            self.core.cluster_left(name, cluster)
            self.settle([])

    def limit(self, name: str, cluster: int, limit: int) -> None:
        house = self.houses[name]
        house.seats.setdefault(cluster, Seat(limit)).limit = limit
        self.touch(house)
        self.settle(self.core.cluster_allocated(name, cluster, limit))

    def share(self, name: str, slots: int) -> None:
        self.houses[name].slots = max(1, slots)
        self.houses[name].capacity = max(self.houses[name].capacity, slots)
        self.touch(self.houses[name])
        self.core.node_shared(name, slots, 1, self.now)
        self.settle([])

    def finish(self, name: str, cluster: int, count: int, seconds: float) -> None:
        house = self.houses[name]
        seat = house.seats.get(cluster)
        jobs = list(seat.jobs)[:count] if seat else []
        strangers = [self.random.randrange(len(self.where) + 1), *jobs[:1]]
        expected = [*jobs]
        if seat and strangers[0] in seat.jobs and strangers[0] not in jobs:
            expected.append(strangers[0])
        counted = self.core.jobs_finished(name, cluster, [*jobs, *strangers], seconds, self.now)
        assert counted == expected, "another node's or a final job's result counts"
        for job in counted:
            del seat.jobs[job]
            self.end(job)
        self.touch(house)
        self.settle([])

    def cancel(self, job: int) -> None:
        cluster, where = self.cluster_of[job], self.where[job]
        queued = self.core.is_queued(cluster, job)
        actions = self.core.cancel(cluster, job)
        assert queued == (where is QUEUED)
        if where is QUEUED:
            assert [(a.status, a.jobs) for a in actions] == [(Status.Cancelled, (job,))]
        elif where is FINAL:
            assert not actions
        else:
            assert [(a.node_id, a.job) for a in actions] == [(where, job)]
            self.cancelling.add(job)
            actions = []
        if job in self.pins and where is QUEUED:
            house = self.houses[self.pins[job]]
            house.seats[cluster].pinned -= 1
            self.touch(house)
        self.settle(actions)

    def drain(self, name: str, off: bool) -> None:
        house = self.houses[name]
        house.drained = not off
        (self.out_of_use.discard if off else self.out_of_use.add)(name)
        self.drained += not off and any(seat.jobs for seat in house.seats.values())
        self.touch(house)
        node = self.core.nodes[name]
        self.settle(self.core.drains.drain(node, "" if off else "drained by ann"))

    def silent(self, name: str) -> None:
        self.houses[name].settled = False
        self.touch(self.houses[name])
        self.core.node_silent(name)
        self.settle([])

    def settled(self, name: str, arrived: float) -> None:
        """The link is back; that part of its jobs had arrived."""
        house = self.houses[name]
        house.settled = True
        self.touch(house)
        held = [job for s in house.seats.values() for job in s.jobs
                if self.random.random() < arrived]  # fmt: skip
        for seat in house.seats.values():
            seat.recalled.clear()
            seat.full = False
        stranger = 10**9
        actions = self.core.node_settled(name, [*held, stranger], self.now)
        assert [a.jobs for a in actions if isinstance(a, Drop)] == [(stranger,)]
        again = {a.job for a in actions if isinstance(a, CancelOnNode)}
        assert again == self.cancelling.intersection(held), "an order was lost with the link"
        self.settle(actions)
        assert {j for s in house.seats.values() for j in s.jobs} >= set(held)

    def answer(self, name: str, cluster: int, part: float) -> None:
        """The node answers a call-back with that part of what it was asked for."""
        house = self.houses[name]
        seat = house.seats.get(cluster)
        if seat is None or not seat.recalled or not house.settled:
            return
        asked = seat.recalled.pop(0)
        jobs = [j for j in asked if j in seat.jobs and self.random.random() < part]
        self.settle(self.core.jobs_returned(name, cluster, jobs, None, self.now))

    def give_back(self, name: str, cluster: int, count: int) -> None:
        """The node gives jobs back unasked."""
        house = self.houses[name]
        seat = house.seats.get(cluster)
        if seat is None or seat.recalled:
            return
        jobs = list(seat.jobs)[-count:]
        seat.refused = True
        self.touch(house)
        self.settle(self.core.jobs_returned(name, cluster, jobs, "it is closing", self.now))

    def full(self, name: str, cluster: int, count: int) -> None:
        """The node has no room for some jobs; or again, where `count` is 0."""
        house = self.houses[name]
        seat = house.seats.get(cluster)
        if seat is None or not house.settled:
            return
        jobs, seat.full = list(seat.jobs)[-count:] if count else [], count > 0
        self.touch(house)
        why = "no room there" if count else ""
        self.settle(self.core.node_full(name, cluster, jobs, why, self.now))

    def lose(self, name: str) -> None:
        house = self.houses.pop(name)
        house.settled = False
        self.touch(house)
        self.settle(self.core.node_lost(name, "its link broke", self.now), house)
        assert all(not s.jobs and not s.pinned for s in house.seats.values()), "a job is lost"

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for recall in self.core.time_passed(self.now):
            idles = self.groups[recall.cluster_id].idle_seats or self.core.policy.strict
            assert idles, "called back though nobody idles"
            self.take_recall(recall)
        self.settle([])

    # -- what comes out

    def settle(self, actions: list, lost: House | None = None) -> None:
        for action in actions:
            if isinstance(action, GiveUp):
                self.take_giving_up(action, lost)
            elif isinstance(action, Requeued):
                for job in action.jobs:
                    assert job not in self.cancelling, "what is cancelled waits again"
                    self.leave_node(job, lost)
                    self.where[job] = QUEUED
                    if job in self.pins:
                        self.houses[self.pins[job]].seats[action.cluster_id].pinned += 1
                        self.touch(self.houses[self.pins[job]])
                    else:
                        self.groups[action.cluster_id].queued += 1
            elif isinstance(action, Recall):
                self.take_recall(action)
        nodes = self.core.nodes
        small = self.houses if self.wide and len(self.names) <= SMALL else ()
        kept = {n: nodes[n].reserved for n in small if n in nodes and nodes[n].reserved}
        sent, order = set(), dict[tuple[int, int], list[int]]()
        for batch in self.core.place(self.now):
            house = self.houses[batch.node_id]
            seat = house.seats[batch.cluster_id]
            if isinstance(batch, Leave):
                assert seat.leaving, "a computation is closed that nobody wants closed"
                assert house.settled, "a node without a link was told something"
                assert not seat.jobs, "a node closes a computation that it has jobs of"
                assert not seat.told, "a computation is closed twice"
                seat.told = True
                continue
            assert not seat.leaving, "jobs were sent to where their computation is closed"
            assert house.settled, "a node without a link was sent jobs"
            assert not house.drained, "a node that is drained was sent jobs"
            assert seat.ready, "jobs were sent before their computation"
            assert not seat.refused, "a node that cannot run it was sent jobs"
            assert not seat.full, "a node that has no room was sent jobs"
            assert seat.limit, "a node that may run none was sent jobs"
            assert batch.jobs
            sent.add(batch.node_id)
            self.starts_of_wide += any(job in self.widths for job in batch.jobs)
            for job in batch.jobs:
                if job not in self.pins:
                    lane = (batch.cluster_id, self.widths.get(job, 1))
                    order.setdefault(lane, []).append(self.priorities.get(job, 0))
                assert self.where[job] is QUEUED, "a job is in two places"
                self.where[job] = batch.node_id
                if job in self.pins:
                    assert self.pins[job] == batch.node_id, "a pinned job went elsewhere"
                    seat.pinned -= 1
                else:
                    self.groups[batch.cluster_id].queued -= 1
            seat.jobs.update(dict.fromkeys(batch.jobs))
            self.touch(house)
        assert not self.core.is_dirty
        for name, reservation in kept.items():
            self.reservations += 1
            if name in self.houses and nodes[name].reserved is reservation:
                assert name not in sent, "a job slipped past one that a node is reserved for"
        if self.gated:
            self.check_gates()
            for (number, width), priorities in order.items():
                left = self.core.clusters[number].lanes[width].queued
                most = max((self.priorities.get(job, 0) for job in left), default=-9)
                assert priorities == sorted(priorities, reverse=True), "priorities are mixed up"
                assert priorities[-1] >= most, "a job with a higher priority waits"
        if self.wide or self.gated:
            self.check_rooms()
            return
        assert not self.bad_pins, "a slot idles while a job that is pinned there waits"
        for number, group in self.groups.items():
            core_queued = queued_of(self.core.clusters[number])
            assert core_queued == group.queued, "a job is lost"
            assert not (group.queued and group.idle_seats), "a slot idles while a job waits"

    def check_rooms(self) -> None:
        """No job waits that fits somewhere; costs O(nodes), so only for small worlds."""
        if len(self.names) > SMALL:
            return
        for name, house in self.houses.items():
            if not house.settled or house.drained or self.core.nodes[name].reserved is not None:
                continue
            busy = sum(min(self.need(house, s), s.limit, house.slots) for s in house.seats.values())
            for number, seat in house.seats.items():
                cap = min(seat.limit, house.slots)
                room = min(house.slots - busy, cap - self.need(house, seat))
                if room <= 0 or not seat.ready or seat.refused or seat.full:
                    continue
                cluster = self.core.clusters[number]
                if cluster.admitted and not cluster.owner:
                    assert not seat.pinned, "a slot idles while a job that is pinned there waits"
                for lane in self.core.clusters[number].lanes.values():
                    possible = lane.queued and lane.width <= min(seat.limit, house.capacity)
                    fits = room >= min(lane.width, house.slots)
                    fits = fits and self.may_start(cluster, lane.width)
                    assert not (possible and fits), "slots idle while a job waits that fits"

    def may_start(self, cluster: Cluster, width: int) -> bool:
        """Whether no gate keeps a job; with wide jobs the core alone knows of limits."""
        if not cluster.owner:
            return cluster.admitted
        return cluster.admitted and not self.wide and self.slots_of(cluster.owner) < LIMIT

    def slots_of(self, owner: str) -> int:
        """Slots that the jobs of an owner on nodes need."""
        mine = {number for number, c in self.core.clusters.items() if c.owner == owner}
        return sum(
            self.widths.get(job, 1)
            for house in self.houses.values()
            for number in mine.intersection(house.seats)
            for job in house.seats[number].jobs
        )

    def check_gates(self) -> None:
        """Nobody has more than a user may, and who runs exclusively runs alone."""
        for owner in ("ann", "ben"):
            slots = self.slots_of(owner)
            self.held += slots == LIMIT
            assert slots <= LIMIT, "a user has more slots than the limit"
        busy = {n for h in self.houses.values() for n, seat in h.seats.items() if seat.jobs}
        if any(self.core.clusters[number].exclusive for number in busy):
            assert len(busy) == 1, "a cluster runs beside one that runs exclusively"
            self.alone += 1

    def need(self, house: House, seat: Seat) -> int:
        """Slots that the jobs there need."""
        if not self.wide:
            return len(seat.jobs)
        return sum(min(self.widths.get(job, 1), house.slots) for job in seat.jobs)

    def take_giving_up(self, action: GiveUp, lost: House | None) -> None:
        for job in action.jobs:
            if self.where[job] is QUEUED:
                assert action.status == Status.Cancelled
                if job not in self.pins:  # also one that was pinned in vain
                    self.groups[action.cluster_id].queued -= 1
                elif (
                    lost is not None or self.houses[self.pins[job]].seats[action.cluster_id].refused
                ):
                    house = lost or self.houses[self.pins[job]]
                    house.seats[action.cluster_id].pinned -= 1
                    self.touch(house)
            elif action.status == Status.Terminated:
                seat = self.houses[self.where[job]].seats[action.cluster_id]
                assert seat.stops, "a job is stopped that should end by itself"
                again = self.groups[action.cluster_id].reentrant and job not in self.cancelling
                assert not again, "it could run again"
                self.leave_node(job, lost)
            elif action.status == Status.Cancelled:
                assert job in self.cancelling, "a job is cancelled that nobody cancelled"
                self.leave_node(job, lost)
            else:
                assert lost is not None, "a job was given up though its node is there"
                assert action.status == Status.Abandoned
                reentrant = self.groups[action.cluster_id].reentrant and job not in self.cancelling
                assert job in self.pins or not reentrant, "a reentrant job was given up"
                self.leave_node(job, lost)
            self.end(job)

    def take_recall(self, recall: Recall) -> None:
        self.recalls += 1
        self.houses[recall.node_id].seats[recall.cluster_id].recalled.append(recall.jobs)

    def leave_node(self, job: int, lost: House | None) -> None:
        name = self.where[job]
        house = lost or self.houses[name]
        del house.seats[self.cluster_of[job]].jobs[job]
        self.touch(house)

    def end(self, job: int) -> None:
        assert self.where[job] is not FINAL, "a job is final twice"
        self.where[job] = FINAL
        self.cancelling.discard(job)
        self.finals += 1

    def touch(self, house: House) -> None:
        """Bring the counts of idle seats up to date; costs O(clusters on that node)."""
        seats = house.seats
        busy = sum(min(self.need(house, s), s.limit, house.slots) for s in seats.values())
        for cluster, seat in seats.items():
            room = min(house.slots - busy, min(seat.limit, house.slots) - self.need(house, seat))
            usable = seat.ready and not seat.refused and not seat.full and house.settled
            idles = room > 0 and usable and not house.drained
            if idles != seat.idles:
                seat.idles = idles
                self.groups[cluster].idle_seats += 1 if idles else -1
            if idles and seat.pinned:
                self.bad_pins.add((id(house), cluster))
            else:
                self.bad_pins.discard((id(house), cluster))

    def check_all(self) -> None:
        """Compare the core with the model in everything; costs O(jobs)."""
        self.core.check_invariants()
        for house in self.houses.values():
            for seat in house.seats.values():
                due = seat.leaving and not seat.jobs and house.settled
                assert seat.told or not due, "a computation is not closed that could be"
        for number, cluster in self.core.clusters.items():
            for job in (job for lane in cluster.lanes.values() for job in lane.queued):
                assert self.where[job] is QUEUED
                assert self.cluster_of[job] == number
            for job, allocation in cluster.placed.items():
                assert self.where[job] == allocation.node.node_id
        queued = sum(where is QUEUED for where in self.where.values())
        known = sum(map(queued_of, self.core.clusters.values()))
        known += sum(a.pinned_waiting for n in self.core.nodes.values()
                     for a in n.allocations.values())  # fmt: skip
        assert queued == known, "a job is lost"
        assert self.finals == sum(where is FINAL for where in self.where.values())

    # -- a random life

    def a_width(self) -> int:
        return self.random.choice((0, 0, 2, 3, 5)) if self.wide else 0

    def step(self) -> None:
        """Do something; every kind of event comes up, those of daily life most often."""
        rng, name = self.random, self.random.choice(self.names)
        clusters = list(self.groups)
        cluster = rng.choice(clusters)
        chance = rng.random()
        self.now += rng.random() * 0.02
        if name not in self.houses:
            slots = rng.randint(1, 4)
            limits = {c: rng.choice((slots, slots, slots, 1, 0, None)) for c in clusters}
            self.join(name, slots, limits)
            for c in clusters:
                if limits[c] is not None and rng.random() < 0.9:
                    self.ready(name, c)
        elif self.drains and rng.random() < 0.05:
            self.drain(name, rng.random() < 0.5)
        elif chance < 0.22:
            many = self.groups[cluster].queued > len(self.names)
            self.submit(cluster, 1 if many else rng.choice((1, 1, 5, 60)), self.a_width())
        elif chance < 0.25:
            self.pin(cluster, name, rng.choice((1, 3)), self.a_width())
        elif chance < 0.80:
            count = rng.choice((1, 2, 60))
            self.finish(name, cluster, count, rng.choice((1e-6, 1e-3, 1e-2, 1.0)))
        elif chance < 0.84:
            self.wait(rng.random())
        elif chance < 0.90:
            self.answer(name, cluster, rng.choice((0.0, 0.5, 1.0)))
        elif chance < 0.92:
            self.share(name, rng.randint(0, 6))
        elif chance < 0.94:
            if self.houses[name].settled:
                self.silent(name)
            else:
                self.settled(name, rng.choice((0.0, 0.7, 1.0)))
        elif chance < 0.95:
            self.limit(name, cluster, rng.randint(0, 4))
        elif chance < 0.96:
            self.left(name, cluster)
            self.ready(name, cluster)
        elif chance < 0.963:
            self.refuse(name, cluster)
        elif chance < 0.965:
            self.leave(name, cluster, rng.random() < 0.5, rng.random() < 0.5)
            self.left(rng.choice(list(self.houses)), cluster)
        elif chance < 0.97:
            self.give_back(name, cluster, rng.randint(1, 5))
        elif chance < 0.973:
            self.full(name, cluster, rng.randint(0, 3))
        elif chance < 0.98:
            self.lose(name)
        elif chance < 0.983 and len(self.names) < 100:
            self.close_cluster(cluster)
            self.open_cluster()
        elif self.where:
            self.cancel(self.random.randrange(max(0, len(self.where) - 5000), len(self.where)))


def queued_of(cluster: Cluster) -> int:
    return sum(len(lane.queued) for lane in cluster.lanes.values())
