"""What thousands of nodes cost one `dispy scheduler`: `python -m tests.bench.many_nodes`.

Usage:
  many_nodes [--nodes=<n>] [--only=<rows>] [--tls] [--seconds=<s>] [--jobs=<n>] [--clients=<n>]
             [--queued=<n>] [--processes=<n>] [--host=<address>] [--first=<n>]

Options:
  --nodes=<n>      how many there are [default: 10000]
  --only=<rows>    only these rows, with commas between them
  --tls            with a secret: all links are encrypted
  --seconds=<s>    for which idle nodes are watched [default: 15]
  --jobs=<n>       that one client submits [default: 400000]
  --clients=<n>    programs at once [default: 1000]
  --queued=<n>     jobs that wait, with 1 KB of arguments each [default: 100000]
  --processes=<n>  that simulate nodes [default: 2]
  --host=<address>  of the scheduler [default: 127.9.0.1]
  --first=<n>      the number of the first node, which says at what addresses they are [default: 0]

A true scheduler, nodes that are simulated as far as they run jobs (`simulated_nodes`), and programs
that have no user (`simulated_clients`). Prints each figure with its limit beside it, and ends with
status 1 where one is missed. Memory is private (USS) and grown; processor time is that of the
scheduler alone. Run it where nothing else runs, and where nothing listens on the loopback network
(`unshare -n` gives one).
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from docopt import docopt

from dispy.cli.progress import Progress, table
from tests.bench.simulated import Nodes, RunningScheduler, Simulated

CONNECT_SECONDS = 100.0  # that all nodes may take
QUIET_SECONDS = 3.0  # after they are there, before they are measured
PLAIN_BYTES, TLS_BYTES = 60 * 1024, 110 * 1024  # of the scheduler, for an idle node
IDLE_PERCENT = 10.0  # of one processor
JOBS_A_SECOND, PROCESSORS = 40_000.0, 2
QUEUED_BYTES = 2500.0  # for a queued job with 1 KB of arguments
FLAT_JOBS = 4000  # that measure it
CROWD_JOBS = 100  # of each of many programs
FLAT = 1.2  # times the processor time of a job with few nodes, or few jobs in the queue


class Measurements:
    """Each row is a method that returns lines: what, figure, unit, limit, whether it is kept."""

    def __init__(self, options: dict[str, Any], progress: Progress) -> None:
        self._options, self._progress = options, progress
        self._environment: dict[str, str] = {}
        self._tls = bool(options["--tls"])
        self.lines: list[tuple[str, ...]] = []
        self.missed = False

    def number(self, option: str) -> int:
        """Return an option's number."""
        return int(self._options[f"--{option}"])

    @contextmanager
    def secret(self) -> Iterator[None]:
        """Have all links encrypted, where that was asked for."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "secret"
            path.touch(0o600)
            path.write_text(os.urandom(32).hex())
            self._environment = {"DISPY_SECRET_FILE": str(path) if self._tls else "none"}
            yield

    def add(
        self, what: str, value: float, unit: str, limit: float | None, least: bool = False
    ) -> None:
        """Take a figure and its limit: the most that it may be, or the least; None: no."""
        kept = limit is None or (value >= limit if least else value <= limit)
        self.missed = self.missed or not kept
        digits = 0 if value >= 1000 else (1 if value >= 10 else 2)
        told = "" if limit is None else f"{'at least' if least else 'at most'} {limit:,g}"
        self.lines.append((what, f"{value:,.{digits}f}", unit, told, "" if kept else "MISSED"))

    @contextmanager
    def connected(self, count: int) -> Iterator[tuple[RunningScheduler, Nodes, float]]:
        """Give a scheduler with so many nodes, and the seconds until all were there."""
        with ExitStack() as stack:
            processes = min(count, self.number("processes"))
            nodes = Nodes(stack, count, processes, self.number("first"), **self._environment)
            scheduler = self.scheduler(stack, nodes.names)
            while (settled := nodes.tell("settled")) < count:
                took = time.monotonic() - scheduler.began
                self._progress.show(f"{settled} of {count} nodes are connected")
                if took > CONNECT_SECONDS:
                    raise RuntimeError(f"{settled} of {count} nodes are connected in {took:.0f} s")
                time.sleep(0.05)
            yield scheduler, nodes, time.monotonic() - scheduler.began

    def clients(self, stack: ExitStack, *arguments: str) -> Simulated:
        """Start programs."""
        host = self._options["--host"]
        return Simulated(stack, "simulated_clients", host, *arguments, **self._environment)

    def scheduler(self, stack: ExitStack, nodes: str) -> RunningScheduler:
        """Start a scheduler."""
        return RunningScheduler(stack, nodes, self._options["--host"], **self._environment)

    # -- the rows

    def idle(self) -> None:
        """Nodes that are connected, and have nothing to do."""
        count = self.number("nodes")
        with ExitStack() as stack:
            alone = self.scheduler(stack, "127.255.0.1")
            time.sleep(QUIET_SECONDS)
            before = alone.private_bytes
        with self.connected(count) as (scheduler, _, took):
            self.add(f"until {count:,} nodes are connected", took, "s", None)
            self.add("... of a processor", scheduler.processor_seconds, "s", None)
            time.sleep(QUIET_SECONDS)
            each = (scheduler.private_bytes - before) / count
            limit = TLS_BYTES if self._tls else PLAIN_BYTES
            self.add("memory of an idle node", each / 1024, "KB", limit / 1024)
            self._progress.show("idle")
            seconds, began = self.number("seconds"), scheduler.processor_seconds
            time.sleep(seconds)
            percent = 100 * (scheduler.processor_seconds - began) / seconds
            self.add(f"{count:,} idle nodes", percent, "% of a processor", IDLE_PERCENT)

    def jobs(self) -> None:
        """One program's short jobs, on all nodes."""
        count, jobs = self.number("nodes"), self.number("jobs")
        with self.connected(count) as (scheduler, nodes, _), ExitStack() as stack:
            client = self.clients(stack, f"--nodes={count}", f"--jobs={jobs}", f"--ahead={jobs}")
            client.ask("connect")
            took = client.ask("open")["seconds"]
            self.add(f"a cluster's setup on {count:,} nodes", took, "s", None)
            client.ask("run")  # not counted: how long they take is learnt in it
            all_processes = (scheduler, nodes, client)
            before, batches = scheduler.processor_seconds, nodes.tell("batches")
            before_all = sum(each.processor_seconds for each in all_processes)
            rate = jobs / client.ask("run")["seconds"]
            spent_by_all = sum(each.processor_seconds for each in all_processes) - before_all
            self.add(f"short jobs on {count:,} nodes", rate, "jobs/s", JOBS_A_SECOND, least=True)
            spent = (scheduler.processor_seconds - before) / jobs
            self.add("... of a processor for each", spent * 1e6, "us", None)
            # What two processors have for each at that rate: holds where others use them too.
            limit = PROCESSORS / JOBS_A_SECOND * 1e6
            self.add("... of all processes together", spent_by_all / jobs * 1e6, "us", limit)
            self.add("... in one message", jobs / (nodes.tell("batches") - batches), "jobs", None)
            ran = nodes.tell("jobs_run")
            assert ran == 2 * jobs, f"{ran} jobs have run instead of {2 * jobs}"

    def flat(self) -> None:
        """What a job costs the scheduler with few nodes and with all, few jobs queued and many."""
        most, queued = self.number("nodes"), 10 * self.number("queued")
        with self.connected(10) as (scheduler, _, _), ExitStack() as stack:
            few = self._cost_of_a_job(scheduler, stack, 10)
            self.add("a job alone in its message, 10 nodes", few, "us", None)
            self._progress.show(f"{queued} jobs are queued")
            waiting = self.clients(stack, "--hold", f"--jobs={queued}")
            for step in ("connect", "open", "run"):
                waiting.ask(step)
            cost = self._cost_of_a_job(scheduler, stack, 10)
            self.add(f"... and {queued:,} jobs queued", cost, "us", few * FLAT)
        with self.connected(most) as (scheduler, _, _), ExitStack() as stack:
            cost = self._cost_of_a_job(scheduler, stack, most)
            self.add(f"... {most:,} nodes", cost, "us", few * FLAT)

    def _cost_of_a_job(self, scheduler: RunningScheduler, stack: ExitStack, count: int) -> float:
        """Return microseconds of the scheduler's processor time, with so many nodes in use."""
        # Ten jobs are on their way at any time, each of them in a message of its own.
        arguments = [f"--nodes={count}", f"--jobs={FLAT_JOBS}", "--ahead=10", "--alone"]
        client = self.clients(stack, *arguments)
        for step in ("connect", "open", "run"):
            self._progress.show(f"{count} nodes: {step}")
            client.ask(step)
        idle = self._idle_cost(scheduler)
        costs = []
        for _ in range(2):
            before, began = scheduler.processor_seconds, time.monotonic()
            client.ask("run")
            spent = scheduler.processor_seconds - before
            costs.append(spent - idle * (time.monotonic() - began))
        client.ask("close")
        return min(costs) / FLAT_JOBS * 1e6

    def _idle_cost(self, scheduler: RunningScheduler) -> float:
        """Return what it takes of a processor while no job is there."""
        before = scheduler.processor_seconds
        time.sleep(2 * QUIET_SECONDS)
        return (scheduler.processor_seconds - before) / (2 * QUIET_SECONDS)

    def crowd(self) -> None:
        """Many programs at once, each with a cluster on nodes that the scheduler chooses."""
        count, clients = self.number("nodes"), self.number("clients")
        with self.connected(count) as (scheduler, nodes, _), ExitStack() as stack:
            before = scheduler.private_bytes
            crowd = self.clients(stack, f"--clients={clients}", "--rules", f"--jobs={CROWD_JOBS}")
            for step, what in (
                ("connect", f"{clients:,} programs connect"),
                ("open", "... open a cluster each"),
                ("run", f"... run {CROWD_JOBS} jobs each"),
            ):
                self._progress.show(what)
                began = scheduler.processor_seconds
                took = crowd.ask(step)["seconds"]
                self.add(what, took, "s", None)
                self.add("... of a processor", scheduler.processor_seconds - began, "s", None)
            grown = (scheduler.private_bytes - before) / clients / 1024
            self.add("memory of each program", grown, "KB", None)
            ran = nodes.tell("jobs_run")
            assert ran == clients * CROWD_JOBS, f"{ran} jobs have run"

    def queue(self) -> None:
        """Jobs that wait, with arguments of 1 KB."""
        queued = self.number("queued")
        with self.connected(1) as (scheduler, _, _), ExitStack() as stack:
            client = self.clients(stack, "--hold", f"--jobs={queued}", "--bytes=1000")
            for step in ("connect", "open"):
                client.ask(step)
            before, began = scheduler.private_bytes, scheduler.processor_seconds
            took = client.ask("run")["seconds"]
            self.add(f"{queued:,} jobs with 1 KB are taken and written down", took, "s", None)
            spent = (scheduler.processor_seconds - began) / queued
            self.add("... of a processor for each", spent * 1e6, "us", None)
            time.sleep(QUIET_SECONDS)
            each = (scheduler.private_bytes - before) / queued
            self.add("memory of a queued job with 1 KB", each, "bytes", QUEUED_BYTES)

    def all(self) -> dict[str, Callable[[], None]]:
        """Return the rows by their keys."""
        return {
            "idle": self.idle, "jobs": self.jobs, "flat": self.flat, "crowd": self.crowd,
            "queue": self.queue,
        }  # fmt: skip


def main() -> None:
    options = docopt(__doc__)
    progress = Progress()
    measurements = Measurements(options, progress)
    rows = measurements.all()
    with measurements.secret():
        for key in (options["--only"] or ",".join(rows)).split(","):
            rows[key]()
    progress.clear()
    header = ("what", "figure", "unit", "limit", "")
    print("\n".join(table(header, measurements.lines, left=(0, 2, 3, 4))))
    sys.exit(1 if measurements.missed else 0)


if __name__ == "__main__":
    main()
