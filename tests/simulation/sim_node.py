"""A node's service without processes: workers are entries of the agenda."""

from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

from network import Link

from dispy.execution.core import Execution
from dispy.execution.ledger import Ledger
from dispy.execution.records import Feed, Report, StartWorker, Stop, TellCrowded, TellShare
from dispy.model.statuses import Status

if TYPE_CHECKING:
    from world import World

Key = tuple[str, int]

BEAT = 0.1  # seconds between the nodes' looks at the time, and acknowledgements
LOADING = 0.3  # seconds that a nursery takes at most
VALUES = (0, 0, 2, 0, 1)  # that a job sends before its end, by its number


class SimNode:
    """Does with the real core and the real ledger what `dispy.node` does.

    While it is frozen nothing happens on it; what arrives waits in its kernel.
    """

    def __init__(self, world: "World", name: str, slots: int) -> None:
        self.world, self.name, self.slots, self.alive = world, name, slots, True
        self.node_id = f"{name}#{next(world.incarnations)}"
        self.core = Execution(slots)
        self.ledgers: dict[str, Ledger[tuple[Any, ...]]] = defaultdict(Ledger)
        self.links: dict[str, Link] = {}
        self.speed = 1.0
        self.running: dict[int, tuple[int, ...]] = {}  # worker -> packets it has
        self.attempts: dict[tuple[str, int], int] = {}  # what jobs are told, by owner and job
        self.sick = False  # whatever runs here fails at once
        self.full = False  # no more jobs find room
        self.turned_away: set[Key] = set()
        self.frozen = False
        self._kept: list[Callable[[], None]] = []  # what waits while it is frozen
        self.beat()

    # -- time

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self.world.network.later(seconds, lambda: self.do(what))

    def do(self, what: Callable[[], None]) -> None:
        if self.frozen:
            self._kept.append(what)
        elif self.alive:
            what()

    def freeze(self) -> None:
        self.frozen = True

    def resume(self) -> None:
        self.frozen = False
        kept, self._kept = self._kept, []
        for what in kept:
            self.do(what)

    def beat(self) -> None:
        self.perform(self.core.time_passed(self.world.now))
        self.later(BEAT, self.beat)

    def crash(self) -> None:
        self.alive = self.frozen = False
        for link in self.links.values():
            link.alive = False

    # -- owners

    def connected(self, owner: str, link: Link) -> None:
        self.links[owner] = link
        link.receive["node"] = lambda where, *message: self.do(
            lambda: self.hear(owner, where, *message)
        )
        for batch in self.ledgers[owner].owed():
            link.send("owner", *batch)
        self.core.owner_connected(owner)
        held = self.core.held(owner)
        link.send("owner", "HELD", [j for jobs in held.values() for j in jobs], list(held))
        for key in held:
            self.tell_ready(key)
        self.tell(owner, "SHARE", self.core.share_of(owner), len(self.links))

    def tell(self, owner: str, *message: Any) -> None:
        link = self.links.get(owner)
        if link is not None:
            link.send("owner", *message)

    def tell_ready(self, key: Key) -> None:
        if self.core.computations[key].ready:
            self.tell(key[0], "READY", key[1], None)

    def owe(
        self, key: Key, jobs: list[int], status: Status, seconds: float, died: bool = False
    ) -> None:
        self.owe_batch(key, "RESULTS", jobs, status, seconds, died)
        if self.world.chance(0.05):
            self.repeat(key[0])

    def owe_value(self, key: Key, job: int) -> None:
        """A job sends a value before its end."""
        value = next(self.world.values)
        self.world.histories[key[0]].sent[job].append(value)
        self.owe_batch(key, "PROVISIONAL", job, value)

    def owe_batch(self, key: Key, kind: str, *body: Any) -> None:
        ledger = self.ledgers[key[0]]
        number = ledger.next_number()
        batch = (kind, number, key[1], *body)
        ledger.owe(number, batch)
        self.tell(key[0], *batch)

    def repeat(self, owner: str) -> None:
        """Send again what is owed last, as over a link that has just been made."""
        owed = list(self.ledgers[owner].owed())
        if owed:
            self.tell(owner, *owed[-1])

    def hear(self, owner: str, link: Link, kind: str, *body: Any) -> None:
        if self.links.get(owner) is not link:
            return
        core, key = self.core, (owner, body[0])
        if kind == "OPEN":
            self.open(key)
        elif kind == "LIMIT":
            self.perform(core.computation_limited(key, body[1]))
        elif kind == "RUN":
            self.run(key, *body[1:])
        elif kind == "RECALL":
            self.tell(owner, "RETURNED", key[1], core.jobs_recalled(key, body[1]), None)
        elif kind == "CANCEL":
            self.cancel(key, body[1])
        elif kind == "DROP":
            self.perform(core.jobs_dropped(owner, body[0])[1])
        elif kind == "CLOSE":
            self.turned_away.discard(key)
            self.perform(core.computation_closed(key))
        else:
            assert kind == "ACKNOWLEDGE"
            for what, _, cluster, jobs, *_ in self.ledgers[owner].acknowledged(body[0]):
                if what == "RESULTS":
                    self.world.acknowledged(owner, cluster, jobs)
        self.world.check(core)

    # -- computations

    def open(self, key: Key) -> None:
        if key in self.core.computations:
            self.tell_ready(key)
            return
        self.core.computation_opened(key, self.world.usual_width(key[1]))
        self.later(self.world.random.random() * LOADING, lambda: self.loaded(key))

    def loaded(self, key: Key) -> None:
        if key not in self.core.computations:
            return
        if self.world.chance(0.05):
            self.fail(key)
            return
        self.tell(key[0], "READY", key[1], None)
        self.perform(self.core.computation_ready(key))

    def fail(self, key: Key) -> None:
        """The nursery has ended, or could not load it."""
        workers = self.core.computations[key].workers.values()
        ran = [worker.jobs[0] for worker in workers if worker.jobs]
        self.note_deaths(key[0], ran)
        given, actions = self.core.computation_failed(key, "its nursery ended")
        self.perform(actions)
        if given:
            self.tell(key[0], "RETURNED", key[1], given, "its nursery ended")
        self.tell(key[0], "READY", key[1], "its nursery ended")

    # -- jobs

    def run(self, key: Key, jobs: list[int], attempts: list[int]) -> None:
        if key not in self.core.computations:
            self.tell(key[0], "RETURNED", key[1], jobs, "it is not here")
            return
        if self.world.chance(0.02):
            self.full = True
            self.later(0.5, self.make_room)
        if self.full:
            self.turned_away.add(key)
            self.tell(key[0], "FULL", key[1], jobs, "no room")
            return
        self.attempts.update({(key[0], job): n for job, n in zip(jobs, attempts, strict=True)})
        widths = self.world.widths_of(key[1], jobs)
        lacking = [job for job in jobs if self.world.chance(0.05)]
        self.perform(self.core.jobs_received(key, jobs, self.world.now, lacking, widths))
        if lacking:
            self.later(self.world.random.random() * 0.3, lambda: self.has_come(key, lacking))
        if self.world.chance(0.02):
            self.perform(self.core.jobs_received(key, jobs[:1], self.world.now, widths=widths))

    def make_room(self) -> None:
        self.full = False
        told, self.turned_away = self.turned_away, set()
        for owner, cluster in sorted(told):
            self.tell(owner, "FULL", cluster, [], "")

    def has_come(self, key: Key, jobs: list[int]) -> None:
        """What these jobs need is here."""
        self.perform(self.core.jobs_unblocked(key, jobs))
        self.world.check(self.core)

    def cancel(self, key: Key, job: int) -> None:
        for action in self.core.cancel(key, job):
            if isinstance(action, Report):
                self.owe(key, list(action.jobs), Status.Cancelled, 0.0)
            elif isinstance(action, Stop):
                self.cancel_running(action.worker_id, job)

    def cancel_running(self, worker_id: int, job: int) -> None:
        """Stop a worker, once it has begun the job: before, a real node has it taken back."""
        worker = self.core.workers[worker_id]
        if worker.jobs[0] == job:
            self.worker_ends(worker_id, cancelled=True)
        elif worker_id in self.running:
            self.running[worker_id] = self.running[worker_id][:1]
            self.perform(self.core.jobs_given_back(worker_id, list(islice(worker.jobs, 1, None))))
            if job in self.core.computations[worker.key].jobs:
                self.cancel(worker.key, job)

    def perform(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, Feed):
                self.feed(action.worker_id, action.jobs)
            elif isinstance(action, Report):
                status = Status.Cancelled if action.cancelled else Status.Terminated
                self.owe(action.key, list(action.jobs), status, 0.0, action.died)
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

    # -- workers

    def feed(self, worker_id: int, jobs: tuple[int, ...]) -> None:
        begins = worker_id not in self.running
        self.running[worker_id] = (*self.running.get(worker_id, ()), *jobs)
        if begins:
            self.begin(worker_id)

    def begin(self, worker_id: int) -> None:
        """The worker begins its next job."""
        job = self.running[worker_id][0]
        owner = self.core.workers[worker_id].key[0]
        history = self.world.histories[owner]
        history.start(job, self.name, self.attempts[owner, job])
        filled = sum(self.core.workers[w].width for w in self.running)
        assert filled <= self.slots, f"jobs fill {filled} slots of {self.name}"
        what = history.submitted[job]
        if what.kind == "endless" and not self.sick:
            return
        seconds = self.world.seconds_of(what.cluster, job) * self.speed
        if what.kind == "fails" or self.sick:
            seconds = 0.001
        self.later(seconds, lambda: self.job_ends(worker_id, job, seconds))

    def job_ends(self, worker_id: int, job: int, seconds: float) -> None:
        if self.running.get(worker_id, ())[:1] != (job,):
            return  # the worker died before
        key = self.core.workers[worker_id].key
        kind = self.world.histories[key[0]].submitted[job].kind
        if kind == "kills" or self.world.chance(0.004):
            self.worker_ends(worker_id, cancelled=False)
            return
        for _ in range(VALUES[job % len(VALUES)]):
            self.owe_value(key, job)
        failed = self.sick or kind != "works"  # an endless one began while the node was sick
        if failed:
            self.world.histories[key[0]].failed.add(job)
        self.owe(key, [job], Status.Terminated if failed else Status.Finished, seconds)
        rest = self.running[worker_id] = self.running[worker_id][1:]
        if not rest:
            del self.running[worker_id]
        self.perform(self.core.jobs_done(worker_id, [job], seconds, self.world.now))
        if rest and worker_id in self.running:
            self.go_on(worker_id)

    def go_on(self, worker_id: int) -> None:
        """Begin what a worker has been fed besides; now and then it is poked and gives it back."""
        if not self.world.chance(0.1):
            self.begin(worker_id)
            return
        self.running[worker_id] = self.running[worker_id][:1]
        back = list(islice(self.core.workers[worker_id].jobs, 1, None))
        self.begin(worker_id)
        self.perform(self.core.jobs_given_back(worker_id, back))

    def worker_ends(self, worker_id: int, cancelled: bool) -> None:
        worker = self.core.workers[worker_id]
        if not cancelled:
            self.note_deaths(worker.key[0], list(worker.jobs)[:1])
        self.running.pop(worker_id, None)
        self.perform(self.core.worker_died(worker_id, 0, True, "killed", cancelled))

    def note_deaths(self, owner: str, jobs: list[int]) -> None:
        for job in jobs:
            self.world.histories[owner].die(job)
