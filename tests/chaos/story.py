"""What came of a run: read from its logs, job by job, and told again in order of time."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.plan import PROBE, Cluster, Job, Schedule

_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}")


@dataclass(slots=True)
class Run:
    """One execution of a job, by its own word."""

    began: float
    attempt: int
    node: str
    pid: int
    ended: float | None = None


@dataclass(slots=True)
class Final:
    """How a job stood when its cluster was closed."""

    status: str
    judged: str  # `run N`, or what is wrong with its result
    finish: str
    words: str  # the end of its exception
    node: str


@dataclass(slots=True)
class Fate:
    """All that the logs say of one job. Times are seconds of the clock that never jumps."""

    job: Job
    cluster: Cluster
    runs: list[Run] = field(default_factory=list)
    submitted: list[float] = field(default_factory=list)
    was_refused: bool = False  # its node was not there when it was submitted
    cancels: list[int] = field(default_factory=list)  # what `cancel` has returned
    interim: list[tuple[float, int, int]] = field(default_factory=list)  # time, run, number
    told: list[tuple[float, str, str]] = field(default_factory=list)  # time, status, judged
    statuses: list[str] = field(default_factory=list)  # what `cluster_status` was told
    finals: list[Final] = field(default_factory=list)
    number: int | None = None  # by which nodes know it
    recovered: list[Final] = field(default_factory=list)


@dataclass(slots=True)
class Story:
    """One run, as its logs tell it."""

    schedule: Schedule
    client_status: int | None  # None: it did not end
    recovery_status: int | None  # of the program that recovered; None: there was none
    outputs: dict[str, str]  # of the client and of each node, by name
    left: list[str]  # what was still there when all should have been over
    fates: dict[str, Fate] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)  # lines of jobs that are not in the schedule
    closed: dict[str, tuple[Any, dict[str, int]]] = field(default_factory=dict)
    probes: dict[str, int] = field(default_factory=dict)  # that began, by cluster
    faults: list[tuple[float, str]] = field(default_factory=list)  # time, what was done
    recoveries: int = 0  # that were begun
    recovery: str = ""  # how it ended, by its own word
    numbers: dict[int, Fate] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)  # what else the client complained of


def read(schedule: Schedule, place: Path, **rest: Any) -> Story:
    """Read the logs of a run below `place`; `rest`: what else a Story has."""
    story = Story(schedule, **rest)
    for cluster in schedule.clusters:
        for job in cluster.jobs:
            story.fates[job.token] = Fate(job, cluster)
    for line in _lines(place / "executions.log"):
        _execution(story, line)
    for line in _lines(place / "faults.log"):
        at, _, what = line.partition(" ")
        story.faults.append((float(at), what))
    for line in _lines(place / "client.log"):
        _client(story, json.loads(line))
    return story


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _execution(story: Story, line: str) -> None:
    at, what, token, attempt, *more = line.split()
    fate = story.fates.get(token)
    if token.startswith(f"{PROBE}-"):
        name = token.split("-")[1]
        story.probes[name] = story.probes.get(name, 0) + (what == "begin")
    elif fate is None:
        story.strays.append(line)
    elif what == "begin":
        fate.runs.append(Run(float(at), int(attempt), more[0], int(more[1])))
    else:
        run = next((r for r in reversed(fate.runs) if r.attempt == int(attempt)), None)
        if run is None or run.ended is not None:
            story.strays.append(line)
        else:
            run.ended = float(at)


def _client(story: Story, line: list[Any]) -> None:
    at, what, *words, more = line
    fate = story.fates.get(words[0]) if words else None
    if what == "closed":
        story.closed[words[0]] = words[1], more["done"]
    elif what in ("waits", "missing", "failed"):
        story.others.append(f"{what} {words}")
    elif what in ("opened", "node", "ended"):
        pass
    elif what == "recovering":
        story.recoveries += 1
    elif what == "recovery":
        story.recovery = words[0]
    elif what == "recovered":
        number, status, token, judged = words
        fate = story.fates.get(token) or story.numbers.get(number)
        if fate is not None:
            fate.recovered.append(Final(status, judged, "", more["words"], ""))
    elif fate is None:
        story.strays.append(str(line))
    elif what == "number":
        fate.number = words[1]
        story.numbers[words[1]] = fate
    elif what == "submit":
        fate.submitted.append(at)
    elif what == "refused":
        fate.submitted.pop()
        fate.was_refused = True
    elif what == "cancel":
        fate.cancels.append(words[1])
    elif what == "interim":
        fate.interim.append((at, words[1], words[2]))
    elif what == "told":
        fate.told.append((at, words[1], words[2]))
    elif what == "status":
        fate.statuses.append(words[1])
    elif what == "final":
        fate.finals.append(Final(words[1], words[2], more["finish"], more["words"], more["node"]))


def tell(place: Path) -> Iterator[str]:
    """Yield all lines of all logs of a run in order of time, in seconds from its first one."""
    told: list[tuple[float, str]] = []
    for path in sorted(place.glob("*.log")):
        for line in _lines(path):
            if path.name == "client.log":
                at, *words, more = json.loads(line)
                told.append((at, " ".join(map(str, words)) + (f" {more}" if more else "")))
            else:
                first, _, rest = line.partition(" ")
                told.append((float(first), rest))
            told[-1] = told[-1][0], f"{path.stem:10} {told[-1][1]}"
    ahead = time.time() - time.monotonic()
    for path in sorted(place.glob("*.out")):
        at = 0.0
        for line in _lines(path):
            if _STAMP.match(line):
                stamp, milliseconds = line[:23].split(",")
                seconds = time.mktime(time.strptime(stamp, "%Y-%m-%d %H:%M:%S"))
                at = seconds + int(milliseconds) / 1000 - ahead
                line = line[24:]
            told.append((at, f"{path.stem:10} {line}"))
    told.sort(key=lambda each: each[0])
    begun = next((at for at, _ in told if at > 0), 0.0)
    for at, line in told:
        yield f"{at - begun:9.4f} {line}"
