"""What happens in one run (`plan`): a pure function of its seed."""

from dataclasses import replace
from random import Random

from chaos.plan import (
    BUSY_SECONDS,
    CLIENT_FAULTS,
    DEATHS,
    IDLE_SECONDS,
    LINGERS_BEFORE,
    LONG,
    LOSES_NODES,
    NET_FAULTS,
    NODE_FAULTS,
    OPENING_SECONDS,
    SURE_LOSSES,
    TOWN_SEEDS,
    Cluster,
    Fault,
    Job,
    Schedule,
    Town,
    lasting,
    one_of,
)
from chaos.sharing import is_shared, share


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
    if is_shared(seed):
        return share(Schedule(seed, town, tuple(clusters), tuple(faults)))
    if not any(fault.node is None for fault in faults):
        clusters[0] = _with_lingering(clusters[0], faults)
    ends_after = random.uniform(0.0, 0.5) if random.random() < 0.5 else None
    return Schedule(seed, town, tuple(clusters), tuple(faults), ends_after)


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
        kind = one_of(random, kinds)
        deaths += kind in DEATHS
        node = random.randrange(len(town.cpus))
        delayed = any(fault.kind == kind == "delay" and fault.node == node for fault in faults)
        if delayed or (kind in DEATHS and deaths > 1):
            continue
        node = {"jump": town.clock, "full disk": town.disk}.get(kind, node)
        first, last = (0.0, OPENING_SECONDS) if "server" in kind else (0.2, BUSY_SECONDS)
        at, seconds = random.uniform(first, last), lasting(random, kind)
        if node != spared[0] or at > spared[1]:
            faults.append(Fault(kind, at, node, seconds, random.random()))
    if special == "idle":
        quiet = max([BUSY_SECONDS, *(fault.at + fault.seconds for fault in faults)])
        faults.append(Fault("kill client", quiet + IDLE_SECONDS, None))
    elif random.random() < 0.12:
        kind = one_of(random, CLIENT_FAULTS)
        at, seconds = random.uniform(0.3, BUSY_SECONDS), lasting(random, kind)
        faults.append(Fault(kind, at, None, seconds))
    return sorted(faults, key=lambda fault: fault.at)
