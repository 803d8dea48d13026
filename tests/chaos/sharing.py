"""Worlds in which clusters are those of a shared scheduler: what that adds to a schedule."""

from dataclasses import replace
from random import Random

from chaos.plan import (
    BUSY_SECONDS,
    LINGERS_BEFORE,
    LOSES_NODES,
    OPENING_SECONDS,
    ROW,
    SCHEDULER,
    Cluster,
    Fault,
    Job,
    Schedule,
    Scheduler,
    lasting,
    one_of,
)

SHARED = 0.25  # of all seeds
POLICIES = ("fair", "fair", "load", "first", "rounds", "early")
MEMORY = (1 << 30, 1 << 20)  # bytes: room for all; not for several of the large ones
# Faults of the scheduler's process, its links to clients, and all its links.
SCHEDULER_FAULTS = {
    "kill scheduler": 10, "restart scheduler": 2, "stop scheduler": 2, "full journal": 5,
    "reset clients": 3, "cut clients": 2, "lossy clients": 2,
    "cut": 1, "no way in": 1, "no way out": 1, "loss": 1, "delay": 1, "reset": 2,
}  # fmt: skip
KILLS = (1, 1, 1, 2, 3, 4)  # of one fault, each soon after the restart before
SOON = (0.0, 0.4)  # seconds: it may be about to recover, or have just done so
ORDERED = 10  # jobs that run on one processor, so that their order can be seen


def is_shared(seed: int) -> bool:
    """Say whether a seed is played with a shared scheduler."""
    return Random(f"shared {seed}").random() < SHARED


def share(schedule: Schedule) -> Schedule:
    """Return the schedule with a shared scheduler, and what befalls that.

    In half of them nothing loses a node, so that nothing excuses a job that is run again.
    """
    random = Random(f"sharing {schedule.seed}")
    faults = list(schedule.faults)
    if calm := random.random() < 0.5:
        faults = [fault for fault in faults if fault.kind not in LOSES_NODES]
    kinds = {
        kind: often
        for kind, often in SCHEDULER_FAULTS.items()
        if not (calm and kind in LOSES_NODES)
    }
    for _ in range(random.choice([1, 1, 2, 3])):
        faults += _befalls(random, one_of(random, kinds))
    clusters = list(schedule.clusters)
    clusters[0] = _with_watched(random, clusters[0], schedule.town.cpus, faults)
    return replace(
        schedule,
        clusters=tuple(clusters),
        faults=tuple(sorted(faults, key=lambda fault: fault.at)),
        scheduler=Scheduler(random.choice(POLICIES), random.choice(MEMORY)),
    )


def _befalls(random: Random, kind: str) -> list[Fault]:
    at, faults = random.uniform(0.05, BUSY_SECONDS), list[Fault]()
    if kind == "full journal":
        return _fills_and_kills(random, at)
    count = random.choice(KILLS) if kind == "kill scheduler" else 1
    for left in reversed(range(count)):
        seconds = random.uniform(*SOON) if left else lasting(random, kind)
        faults.append(Fault(kind, at, SCHEDULER, seconds, random.random()))
        at += seconds + random.uniform(*SOON)
    return faults


def _fills_and_kills(random: Random, at: float) -> list[Fault]:
    """Nothing can be written down for a while; then, mostly, that is forgotten by a kill."""
    full = Fault("full journal", at, SCHEDULER, lasting(random, "full journal"))
    if random.random() < 0.2:
        return [full]
    killed = at + random.uniform(0.3, 1.0) * full.seconds
    again = at + full.seconds + random.uniform(*SOON)
    return [full, Fault("kill scheduler", killed, SCHEDULER, again - killed)]


def _with_watched(
    random: Random, cluster: Cluster, cpus: tuple[int, ...], faults: list[Fault]
) -> Cluster:
    """Add a job that runs when each fault of the scheduler begins, and jobs in a row."""
    jobs = list(cluster.jobs)
    for number, fault in enumerate(faults):
        if fault.node == SCHEDULER:
            at, seconds = max(0.0, fault.at - LINGERS_BEFORE), random.uniform(0.5, 1.0)
            jobs.append(Job(f"{cluster.name}W{number}", at, seconds))
    if 1 in cpus:
        at = random.uniform(OPENING_SECONDS, BUSY_SECONDS)
        for number in range(ORDERED):
            seconds, node = random.uniform(0.0, 0.1), cpus.index(1)
            jobs.append(Job(f"{cluster.name}{ROW}{number}", at, seconds, node=node))
    return replace(cluster, jobs=tuple(sorted(jobs, key=lambda job: job.at)))
