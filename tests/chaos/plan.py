"""What may happen in one run, as plain data: towns, clusters and their jobs, and kinds of faults.

A *town* is a client's machine, a few nodes and one for a shared scheduler, which runs of one block
of seeds share; a *schedule* is one client's program (clusters and their jobs) and the faults that
meet it; in some, its clusters are those of a `dispy scheduler`. Times are seconds since the
client's start. Nothing here acts: `town` makes it, `program` plays the client, `faults` the rest,
and `checks` compares what came of it with this plan.
"""

from dataclasses import asdict, dataclass
from random import Random
from typing import Any

TOWN_SEEDS = 10  # that share one town: seeds 1 to 10 the first, and so on
BUSY_SECONDS = 2.5  # in which jobs are submitted and faults begin
PULSE_SECONDS = 0.3  # between signs of life: a node is away after five, and lost after ten
SCHEDULER = -1  # the place of a fault that befalls the shared scheduler
PROBE = "probe"  # begins the tokens of jobs that only show that a node is there
ROW = "row"  # is in the tokens of jobs that are submitted in a row, for one processor
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
    """One JobCluster or SharedJobCluster; those of one `line` are open one after the other."""

    name: str
    line: int
    reentrant: bool
    isolation: str
    retries: int | None
    jobs: tuple[Job, ...]
    terminate: float | None = None  # seconds after its last submit when it is closed with force


@dataclass(frozen=True, slots=True)
class Scheduler:
    """The `dispy scheduler` of a run."""

    policy: str
    memory: int  # bytes of arguments and results beside its journal


@dataclass(frozen=True, slots=True)
class Fault:
    """Something bad. `pick`, from 0 to 1, chooses among the processes that are there then."""

    kind: str
    at: float
    node: int | None  # None: it befalls the client; SCHEDULER: the shared scheduler
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
    scheduler: Scheduler | None = None  # None: the client's own

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


def as_table(schedule: Schedule) -> dict[str, Any]:
    """Return it as what JSON can carry."""
    return asdict(schedule)


def cluster_from(table: dict[str, Any]) -> Cluster:
    """Return a cluster from its part of `as_table`."""
    return Cluster(**{**table, "jobs": tuple(Job(**job) for job in table["jobs"])})


def one_of(random: Random, kinds: dict[str, int]) -> str:
    """Draw a kind."""
    return random.choices(list(kinds), list(kinds.values()))[0]


def lasting(random: Random, kind: str) -> float:
    """Draw for how long a fault of this kind lasts."""
    if kind in AT_ONCE:
        return 0.0
    return random.uniform(*(LONG if random.random() < LONG_ONES else SHORT))
