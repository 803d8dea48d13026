"""What happens in one run: a pure function of its seed.

A *town* is a client's machine and a few nodes, which runs of one block of seeds share; a
*schedule* is one client's program (clusters and their jobs) and the faults that meet it. Times
are seconds since the client's start. Nothing here acts: `town` makes it, `program` plays the
client, `faults` the rest, and `checks` compares what came of it with this plan.
"""

from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

TOWN_SEEDS = 10  # that share one town: seeds 1 to 10 the first, and so on
BUSY_SECONDS = 2.5  # in which jobs are submitted and faults begin
PULSE_SECONDS = 0.3  # between signs of life: a node is away after five, and lost after ten
PROBE = "probe"  # begins the tokens of jobs that only show that a node is there
CRASHES_AT_MOST = 3  # runs of a reentrant cluster's job (docs/client.rst, `retries`)


@dataclass(frozen=True, slots=True)
class Town:
    """What stays while several seeds are run: the nodes."""

    cpus: tuple[int, ...]  # of each node
    secret: bool  # links are encrypted
    clock: int | None = None  # the node whose wall clock can be moved
    disk: int | None = None  # the node whose files lie on a small disk of its own


@dataclass(frozen=True, slots=True)
class Job:
    """One call. `token` names it in all logs."""

    token: str
    at: float
    seconds: float = 0.0  # that it takes
    argument: int = 0  # bytes
    result: int = 0  # bytes
    interim: int = 0  # provisional values
    deed: str = ""  # raise, crash (its process, always), crash once, linger (until released)
    retries: int | None = None  # that its own submit says
    cancel_at: float | None = None
    node: int | None = None  # None: any


@dataclass(frozen=True, slots=True)
class Cluster:
    """One JobCluster; those of one `line` are open one after the other."""

    name: str
    line: int
    reentrant: bool
    isolation: str
    retries: int | None
    jobs: tuple[Job, ...]
    terminate: float | None = None  # seconds after its last submit when it is closed with force


@dataclass(frozen=True, slots=True)
class Fault:
    """Something bad. `pick`, from 0 to 1, chooses among the processes that are there then."""

    kind: str
    at: float
    node: int | None  # None: it befalls the client
    seconds: float = 0.0  # until it is undone
    pick: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """All of one run."""

    seed: int
    town: Town
    clusters: tuple[Cluster, ...]
    faults: tuple[Fault, ...]
    recovery_ends_after: float | None = None  # seconds, when the first recovery is killed too

    @property
    def kills_client(self) -> bool:
        """Whether its client is killed, so that what it was owed is left behind."""
        return any(fault.kind == "kill client" for fault in self.faults)

    def has(self, *kinds: str) -> bool:
        """Say whether any fault is of one of these kinds."""
        return any(fault.kind in kinds for fault in self.faults)


# Kinds of faults with how often they come.
DEATHS = {"kill worker": 4, "kill nursery": 2}
NODE_FAULTS = {
    "kill node": 3, "restart node": 1, "stop node": 3, "stop nursery": 1, "stop worker": 2,
    "kill fork server": 1, "stop fork server": 1, **DEATHS
}  # fmt: skip
NET_FAULTS = {"cut": 3, "no way in": 2, "no way out": 2, "loss": 2, "delay": 3, "reset": 5}
CLIENT_FAULTS = {"stop client": 1, "kill client": 2}
AT_ONCE = (
    "kill worker", "kill nursery", "kill fork server", "kill client", "restart node", "reset",
    "jump",
)  # fmt: skip
SHORT, LONG = (0.2, 1.4), (3.2, 4.0)  # seconds that the others last: less or more than it takes
LONG_ONES = 0.2  # of all; they make a run long
SURE_LOSSES = ("stop node", "cut", "no way in", "no way out")  # of its node, when they are long
OPENING_SECONDS = 0.6  # in which clusters are opened; the only time at which a fork server works
LINGERS_BEFORE = 0.4  # seconds, in which a job begins that is to meet such a fault
IDLE_SECONDS = 1.6  # after which a client has acknowledged all that it has
# Faults after which a node may have been given up by its client, with what ran there.
LOSES_NODES = (
    "kill node", "restart node", "stop node", "cut", "no way in", "no way out", "loss", "delay",
    "reset", "stop client", "full disk",
)  # fmt: skip


def town_of(seed: int) -> Town:
    """Return the town in which a seed is run."""
    random = Random(f"town {(seed - 1) // TOWN_SEEDS}")
    count = random.choice([2, 2, 2, 3])
    cpus = tuple(random.choice([1, 2, 2]) for _ in range(count))
    special = random.randrange(6)
    return Town(
        cpus,
        secret=random.random() < 0.3,
        clock=random.randrange(count) if special == 0 else None,
        disk=random.randrange(count) if special == 1 else None,
    )


def schedule_of(seed: int) -> Schedule:
    """Return what happens in the run of a seed."""
    random = Random(seed)
    town = town_of(seed)
    clusters = _clusters(random, seed)
    faults = _faults(random, town)
    if not any(fault.node is None for fault in faults):
        clusters[0] = _with_lingering(clusters[0], faults)
    ends_after = random.uniform(0.0, 0.5) if random.random() < 0.5 else None
    return Schedule(seed, town, tuple(clusters), tuple(faults), ends_after)


def as_table(schedule: Schedule) -> dict[str, Any]:
    """Return it as what JSON can carry."""
    return asdict(schedule)


def cluster_from(table: dict[str, Any]) -> Cluster:
    """Return a cluster from its part of `as_table`."""
    return Cluster(**{**table, "jobs": tuple(Job(**job) for job in table["jobs"])})


def _clusters(random: Random, seed: int) -> list[Cluster]:
    count = random.choice([1, 1, 2])
    reentrant = random.random() < 0.6
    clusters = [_cluster(random, f"{seed}a", 0, reentrant, 0.0)]
    if count == 2 and random.random() < 0.3:  # opened when the first is closed
        clusters.append(_cluster(random, f"{seed}b", 0, not reentrant, 0.0))
    elif count == 2:
        clusters.append(_cluster(random, f"{seed}b", 1, not reentrant, random.uniform(0, 0.5)))
    return clusters


def _cluster(random: Random, name: str, line: int, reentrant: bool, begin: float) -> Cluster:
    jobs: list[Job] = []
    cancels = random.random() < 0.3
    for _ in range(random.randint(3, 10)):  # bursts, so that packets have several jobs
        at = random.uniform(begin, BUSY_SECONDS)
        longest = random.choice([0.001, 0.01, 0.05])
        for _ in range(random.choice([1, 4, 12, 25])):
            jobs.append(_job(random, f"{name}{len(jobs)}", at, longest, cancels))
    return Cluster(
        name,
        line,
        reentrant,
        isolation=random.choice(["worker", "worker", "job"]),
        retries=random.choice([None, None, None, 0, 1, 2]),
        jobs=tuple(sorted(jobs, key=lambda job: job.at)),
        terminate=random.uniform(0.0, 0.3) if random.random() < 0.1 else None,
    )


def _job(random: Random, token: str, at: float, longest: float, cancels: bool) -> Job:
    """Most jobs are plain and short; a few are each of the other kinds."""
    seconds, kind = random.uniform(0.0, longest), random.randrange(60)
    cancel_at = at + random.uniform(0.0, 0.5) if cancels and random.random() < 0.1 else None
    if kind == 0:
        return Job(token, at, random.uniform(0.3, 0.6), cancel_at=cancel_at)
    if kind == 1:
        return Job(token, at, seconds, random.choice([40_000, 1_500_000]), cancel_at=cancel_at)
    if kind == 2:
        return Job(token, at, seconds, result=random.choice([40_000, 1_500_000]))
    if kind in (3, 4):
        return Job(token, at, seconds + 0.02, interim=random.randint(1, 4), cancel_at=cancel_at)
    if kind == 5:
        return Job(token, at, seconds, deed="raise")
    if kind == 6:
        return Job(token, at, seconds, deed=random.choice(["crash once", "crash"]))
    if kind == 7:
        return Job(token, at, seconds, retries=random.randint(0, 2))
    return Job(token, at, seconds, cancel_at=cancel_at)


def _with_lingering(cluster: Cluster, faults: list[Fault]) -> Cluster:
    """Add a job to a node that will be lost, which would still run when that comes back."""
    if cluster.terminate is not None:
        return cluster
    hurt = set[int | None]()
    for fault in faults:
        lasts = fault.kind in SURE_LOSSES and fault.seconds >= LONG[0]
        if lasts and fault.node not in hurt and fault.at > OPENING_SECONDS:
            at = fault.at - LINGERS_BEFORE
            job = Job(f"{cluster.name}L", at, deed="linger", node=fault.node)
            jobs = sorted([*cluster.jobs, job], key=lambda job: job.at)
            return replace(cluster, jobs=tuple(jobs))
        hurt.add(fault.node)
    return cluster


def _faults(random: Random, town: Town) -> list[Fault]:
    """Draw a few faults. Deaths of workers are few enough for every retry to suffice.

    In some runs a node is sure to be lost, unharmed before, so that a job can linger there. In
    some, nothing keeps acknowledgements from nodes, and the client is killed when it has all.
    """
    special = random.choices(["", "loss", "idle"], [82, 12, 6])[0]
    kinds = {**NODE_FAULTS, **NET_FAULTS}
    if town.clock is not None:
        kinds["jump"] = 8
    if town.disk is not None:
        kinds["full disk"] = 8
    if special == "idle":
        kinds = {kind: often for kind, often in kinds.items() if kind not in LOSES_NODES}
    faults, deaths, spared = list[Fault](), 0, (-1, 0.0)
    if special == "loss":
        spared = random.randrange(len(town.cpus)), random.uniform(0.8, BUSY_SECONDS)
        faults.append(Fault(random.choice(SURE_LOSSES), spared[1], spared[0], LONG[1]))
    for _ in range(random.choice([1, 2, 2, 3, 4])):
        kind = _one_of(random, kinds)
        deaths += kind in DEATHS
        node = random.randrange(len(town.cpus))
        delayed = any(fault.kind == kind == "delay" and fault.node == node for fault in faults)
        if delayed or (kind in DEATHS and deaths > 1):
            continue
        node = {"jump": town.clock, "full disk": town.disk}.get(kind, node)
        first, last = (0.0, OPENING_SECONDS) if "server" in kind else (0.2, BUSY_SECONDS)
        at, seconds = random.uniform(first, last), _lasting(random, kind)
        if node != spared[0] or at > spared[1]:
            faults.append(Fault(kind, at, node, seconds, random.random()))
    if special == "idle":
        quiet = max([BUSY_SECONDS, *(fault.at + fault.seconds for fault in faults)])
        faults.append(Fault("kill client", quiet + IDLE_SECONDS, None))
    elif random.random() < 0.12:
        kind = _one_of(random, CLIENT_FAULTS)
        at, seconds = random.uniform(0.3, BUSY_SECONDS), _lasting(random, kind)
        faults.append(Fault(kind, at, None, seconds))
    return sorted(faults, key=lambda fault: fault.at)


def _one_of(random: Random, kinds: dict[str, int]) -> str:
    return random.choices(list(kinds), list(kinds.values()))[0]


def _lasting(random: Random, kind: str) -> float:
    if kind in AT_ONCE:
        return 0.0
    return random.uniform(*(LONG if random.random() < LONG_ONES else SHORT))
