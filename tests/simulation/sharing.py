"""Nodes that take time to run jobs, and a scheduling core that shares them among clusters.

Time is simulated: a job occupies its slots for its duration, in the order in which its node got it;
whatever is said arrives DELAY later. What each cluster occupies is recorded, and `slot_seconds`
says how much it was in a window.
"""

import heapq
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from dispy.scheduling.actions import Action, GiveUp, Recall, Requeued, RunBatch
from dispy.scheduling.core import Scheduling
from dispy.scheduling.policies import Policy
from dispy.scheduling.records import Cluster, Node

DELAY = 0.0005  # seconds, one way


@dataclass
class Machine:
    """A node: who runs there, and who waits, in the order of arrival."""

    slots: int
    free: int
    waiting: deque[tuple[int, int]] = field(default_factory=deque)  # (cluster, job)
    running: dict[int, tuple[int, int, float]] = field(default_factory=dict)  # job: cluster, w, t


@dataclass
class Occupied:
    """Slots that a cluster occupies, over time."""

    slots: int = 0
    times: list[float] = field(default_factory=lambda: [0.0])
    levels: list[int] = field(default_factory=lambda: [0])
    sums: list[float] = field(default_factory=lambda: [0.0])  # slot-seconds before each time

    def change(self, slots: int, now: float) -> None:
        self.sums.append(self.sums[-1] + self.levels[-1] * (now - self.times[-1]))
        self.times.append(now)
        self.slots += slots
        self.levels.append(self.slots)

    def until(self, now: float) -> float:
        at = bisect_right(self.times, now) - 1
        return self.sums[at] + self.levels[at] * (now - self.times[at])


class Shared:
    """A core with its clusters and nodes; `run` lets time pass."""

    def __init__(self, policy: Policy, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.core = Scheduling(policy)
        self.now = 0.0
        self.machines: dict[str, Machine] = {}
        self.occupied: dict[int, Occupied] = {}
        self.durations: dict[int, Callable[[], float]] = {}
        self.widths: dict[int, int] = {}
        self.ended: dict[int, float] = {}  # job: when its result came
        self.done: dict[int, int] = {}  # cluster: how many results
        self.check: Callable[[], None] | None = None  # after each placement
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers, self._jobs = count(), count()

    # -- what a test does

    def join(self, name: str, slots: int) -> None:
        self.machines[name] = Machine(slots, slots)
        self.core.node_joined(Node(name, name, slots))
        for number in self.core.clusters:
            self._allocate(name, number)

    def lose(self, name: str) -> None:
        for cluster, width, _ in self.machines.pop(name).running.values():
            self.occupied[cluster].change(-width, self.now)
        self._carry_out(self.core.node_lost(name, "it was lost", self.now))

    def open(self, cluster: Cluster, seconds: Callable[[], float], jobs: int) -> int:
        """Take in a cluster with jobs; returns the number of the last."""
        cluster.reentrant = True
        self.core.cluster_opened(cluster)
        number = cluster.cluster_id
        self.occupied[number], self.durations[number] = Occupied(), seconds
        self.done[number] = 0
        for name in self.machines:
            self._allocate(name, number)
        return self.submit(number, jobs)

    def submit(self, cluster: int, jobs: int, width: int | None = None) -> int:
        numbers = [next(self._jobs) for _ in range(jobs)]
        widths = {} if width is None else dict.fromkeys(numbers, width)
        self.widths.update(widths)
        self.core.jobs_submitted(cluster, numbers, widths)
        self._place()
        return numbers[-1] if numbers else -1

    def close(self, cluster: int) -> None:
        for machine in self.machines.values():
            for job in [j for j, (c, _, _) in machine.running.items() if c == cluster]:
                self._stop(machine, job)
            machine.waiting = deque(each for each in machine.waiting if each[0] != cluster)
            self._begin(machine)
        self.core.cluster_closed(cluster)
        self._place()

    def run(self, until: float, stop: Callable[[], bool] = lambda: False) -> None:
        while self._events and self._events[0][0] <= until and not stop():
            self.now, _, event = heapq.heappop(self._events)
            event()
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self._place()
        if not stop():
            self.now = until

    def slot_seconds(self, cluster: int, start: float, end: float) -> float:
        occupied = self.occupied[cluster]
        return occupied.until(end) - occupied.until(start)

    # -- how it goes on

    def _allocate(self, name: str, cluster: int) -> None:
        self.core.cluster_allocated(name, cluster, self.machines[name].slots)
        self.core.cluster_ready_on(name, cluster)

    def _later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), event))

    def _place(self) -> None:
        self._carry_out(self.core.place(self.now))
        self._carry_out(self.core.time_passed(self.now))
        if self.check is not None:
            self.check()

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            assert not isinstance(action, GiveUp), action
            if isinstance(action, RunBatch):
                self._later(DELAY, lambda action=action: self._arrive(action))  # type: ignore[misc]
            elif isinstance(action, Recall):
                self._later(DELAY, lambda action=action: self._give_back(action))  # type: ignore[misc]
            else:
                assert isinstance(action, Requeued), action

    def _arrive(self, batch: RunBatch) -> None:
        machine = self.machines.get(batch.node_id)
        if machine is not None and batch.cluster_id in self.core.clusters:
            machine.waiting.extend((batch.cluster_id, job) for job in batch.jobs)
            self._begin(machine)

    def _begin(self, machine: Machine) -> None:
        while machine.waiting:
            cluster, job = machine.waiting[0]
            width = min(self.width_of(cluster, job), machine.slots)
            if width > machine.free:
                return  # what is free is kept for it
            machine.waiting.popleft()
            machine.free -= width
            machine.running[job] = (cluster, width, self.now)
            self.occupied[cluster].change(width, self.now)
            seconds = self.durations[cluster]()
            self._later(seconds, lambda job=job: self._end(machine, job))  # type: ignore[misc]

    def width_of(self, cluster: int, job: int) -> int:
        return self.widths.get(job, self.core.clusters[cluster].width)

    def _stop(self, machine: Machine, job: int) -> tuple[int, float]:
        cluster, width, since = machine.running.pop(job)
        machine.free += width
        self.occupied[cluster].change(-width, self.now)
        return cluster, self.now - since

    def _end(self, machine: Machine, job: int) -> None:
        name = next((n for n, known in self.machines.items() if known is machine), None)
        if name is None or job not in machine.running:
            return  # the node was lost, or the cluster closed
        cluster, seconds = self._stop(machine, job)
        self._begin(machine)
        self._later(DELAY, lambda: self._result(name, cluster, job, seconds))

    def _result(self, name: str, cluster: int, job: int, seconds: float) -> None:
        if self.core.jobs_finished(name, cluster, [job], seconds, self.now):
            self.ended[job] = self.now
            self.done[cluster] += 1

    def _give_back(self, recall: Recall) -> None:
        machine = self.machines.get(recall.node_id)
        if machine is None or recall.cluster_id not in self.core.clusters:
            return
        asked = set(recall.jobs)
        back = [job for _, job in machine.waiting if job in asked]
        machine.waiting = deque(each for each in machine.waiting if each[1] not in asked)
        self._later(DELAY, lambda: self._take_back(recall, back))

    def _take_back(self, recall: Recall, jobs: list[int]) -> None:
        args = (recall.node_id, recall.cluster_id, jobs, None, self.now)
        self._carry_out(self.core.jobs_returned(*args))
