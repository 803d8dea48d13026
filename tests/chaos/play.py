"""Plays schedules on towns: one run after the other in each, several towns side by side."""

import contextlib
import json
import shutil
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from chaos import checks, story
from chaos.chaos_jobs import append
from chaos.faults import Undo, inflict, name_of
from chaos.forks import Fork
from chaos.plan import TOWN_SEEDS, Schedule, as_table
from chaos.schedule import schedule_of, town_of
from chaos.town import Sources, Town

import dispy

CLIENT_SECONDS = 120.0  # that a client may take in all; some 4 are usual


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the run of a seed went."""

    seed: int
    complaints: list[str]
    place: Path  # of its logs
    seconds: float


def play(seed: int, town: Town) -> Outcome:
    """Run one schedule on a town of its kind; leaves the town ready for the next."""
    schedule, begun = schedule_of(seed), time.monotonic()
    assert schedule.town == town.plan, "this seed needs another town"
    place = town.place / f"seed-{seed}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    (place / "schedule.json").write_text(json.dumps(as_table(schedule), indent=1))
    town.start_nodes()
    logs = {service: service.log_size for service in [*town.nodes, town.scheduler]}
    if schedule.scheduler is not None:
        town.scheduler.begin(schedule.scheduler)
    client = town.run_client(place)
    _inflict_all(schedule, town, client, place / "faults.log")
    if schedule.scheduler is not None:
        town.scheduler.see_running()
    (place / "calm").touch()
    status = _ended(client, CLIENT_SECONDS)
    town.start_nodes()  # those that have been killed
    recovered = None
    if schedule.scheduler is not None:
        for node in town.nodes:  # which the scheduler frees of what its clients leave behind
            node.when_quiet(partial(node.left, connections=False))
        town.scheduler.end()
    elif schedule.kills_client and not hasattr(dispy, "recover_jobs"):
        for node in town.nodes:
            node.end()  # what a killed client was owed would stay for long
            node.start()
    elif schedule.kills_client:
        recovered = _recover(schedule, town, place)
    left = [f"{node.name}: {it}" for node in town.nodes for it in node.when_quiet(node.left)]
    for service in logs:
        left += service.complaints
        service.complaints.clear()
    if left:
        for node in town.nodes:
            node.kill()  # that the next run meets none of it
        town.scheduler.forget()
    outputs = {service.name: service.said_since(before) for service, before in logs.items()}
    for name, output in outputs.items():
        (place / f"{name}.out").write_text(output)
    with contextlib.suppress(OSError):
        outputs["client"] = (place / "client.out").read_text()
    told = story.read(
        schedule, place, client_status=status, recovery_status=recovered, outputs=outputs, left=left
    )
    return Outcome(seed, checks.broken(told), place, time.monotonic() - begun)


def _recover(schedule: Schedule, town: Town, place: Path) -> int:
    """Get what a killed client was owed; return the exit status of the program that does it.

    It may be killed once, and is then begun anew.
    """
    seconds = schedule.recovery_ends_after
    if seconds is not None:
        _ended(town.run_client(place, recovers=True), seconds)
    client = town.run_client(place, recovers=True)
    _ended(client, CLIENT_SECONDS)
    return client.wait()


def _ended(client: Fork, within: float) -> int | None:
    """Return its exit status; None: it had to be killed after so many seconds."""
    try:
        return client.wait(within)
    except subprocess.TimeoutExpired:
        client.kill()
        client.wait()
        return None


def _inflict_all(schedule: Schedule, town: Town, client: Fork, log: Path) -> None:
    """Do and undo each fault in its time; returns when all are over."""
    begun = time.monotonic()
    to_do: list[tuple[float, int, str, Callable[[], Undo | None]]] = []
    for number, fault in enumerate(schedule.faults):

        def do(number: int = number) -> None:
            fault = schedule.faults[number]
            undo = inflict(fault, town, client)
            to_do.append((fault.at + fault.seconds, number, "end of ", undo))

        to_do.append((fault.at, number, "", do))
    while to_do:
        to_do.sort(key=lambda each: each[:2])
        at, number, what, deed = to_do.pop(0)
        time.sleep(max(0.0, begun + at - time.monotonic()))
        fault = schedule.faults[number]
        append(log, what + name_of(fault, town))
        deed()


def play_all(
    seeds: Sequence[int], place: Path, tell: Callable[[Outcome], bool], towns: int = 3
) -> None:
    """Run seeds, block by block, each block on a town of its own, `towns` at once.

    tell: called with each outcome, in any of the threads; False: no more runs are begun.
    """
    blocks: dict[int, list[int]] = {}
    for seed in seeds:
        blocks.setdefault((seed - 1) // TOWN_SEEDS, []).append(seed)
    play_blocks(iter(blocks.values()), place, tell, towns)


def play_blocks(
    blocks: Iterable[list[int]], place: Path, tell: Callable[[Outcome], bool], towns: int
) -> None:
    """The same for blocks of seeds, each of one town, as many as there are."""
    lock, waiting, go_on = threading.Lock(), iter(blocks), threading.Event()
    go_on.set()

    def work() -> None:
        while go_on.is_set():
            with lock:
                block = next(waiting, None)
            if block is None:
                return
            if not _play_block(block, place, sources, tell, go_on):
                go_on.clear()

    sources = Sources()
    threads = [threading.Thread(target=work) for _ in range(towns)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sources.end()


def _play_block(
    block: list[int],
    place: Path,
    sources: Sources,
    tell: Callable[[Outcome], bool],
    go_on: threading.Event,
) -> bool:
    """Run the seeds of a town; False: no more."""
    if not block:
        return go_on.is_set()  # no seed of it is of the kind that was asked for
    where = place / f"town-{block[0]}"
    shutil.rmtree(where, ignore_errors=True)
    told: dict[int, bool] = {}  # seed -> whether it failed

    def note(outcome: Outcome) -> bool:
        told[outcome.seed] = bool(outcome.complaints)
        return tell(outcome)

    try:
        going = _play_on(Town(town_of(block[0]), where, sources), block, note, go_on)
        if not any(told.values()):
            shutil.rmtree(where)
        return going
    except Exception:
        failure = f"the harness has failed: {traceback.format_exc()}"
        return all(
            [tell(Outcome(seed, [failure], where, 0.0)) for seed in block if seed not in told]
        )


def _play_on(
    town: Town, block: list[int], tell: Callable[[Outcome], bool], go_on: threading.Event
) -> bool:
    outcome, going = None, True
    try:
        for seed in block:
            if outcome is not None:
                going = tell(outcome)
                if not outcome.complaints:
                    shutil.rmtree(outcome.place)
            outcome = None
            if not (going and go_on.is_set()):
                return False
            outcome = play(seed, town)
    finally:
        complaints = town.end()
    if outcome is not None:
        outcome.complaints.extend(f"after the last run: {complaint}" for complaint in complaints)
        going = tell(outcome)
        if not outcome.complaints:
            shutil.rmtree(outcome.place)
    return going
