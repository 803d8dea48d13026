"""What the journal of a shared scheduler costs a job: `python -m tests.bench.journal`.

Usage:
  journal [--jobs=<n>] [--batches=<sizes>] [--directory=<path>] [--power]

Options:
  --jobs=<n>          how many for each size of batch [default: 1000000]
  --batches=<sizes>   jobs that are submitted, given and finished together [default: 1,100,4096]
  --directory=<path>  where the journal is made, and removed; else where temporary files are
  --power             have each commit outlive the machine's death

Each job has 1 KB of arguments; it is submitted, given to a node, finished, and its result is taken,
each with a commit. At most 64 batches are on their way at once. With batches of one job there are
100 times fewer jobs. "all queued" is the journal with every job in it that waits, then loaded;
processor time is that of all threads.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from docopt import docopt
from gevent.lock import BoundedSemaphore

from dispy.cli.figures import table
from dispy.scheduler.journal import SqliteJournal
from dispy.scheduler.journal_entries import Finals, Given, Heard, Submitted, Taken

PAYLOAD = os.urandom(1000)
RESULT = b"\x80\x05K\x01."
ON_THE_WAY = 64


def opened(directory: str, power: bool) -> SqliteJournal:
    """Return a journal that fails loudly."""

    def failed(why: str) -> None:
        sys.exit(f"the journal failed: {why}")

    return SqliteJournal(directory, failed, outlive_power=power)


def size_of(directory: str) -> float:
    """Return the megabytes of all files."""
    return sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file()) / 1e6


class Life:
    """Takes batches of jobs through their lives, each step after the commit of the one before."""

    def __init__(self, journal: SqliteJournal, jobs: int, size: int) -> None:
        self._journal, self._size, self._count = journal, size, max(1, jobs // size)
        self._room = BoundedSemaphore(ON_THE_WAY)
        self._told = 0

    def run(self) -> None:
        """Return when the last batch is taken."""
        for batch in range(1, self._count + 1):
            self._room.acquire()
            self._submit(batch)
        for _ in range(ON_THE_WAY):
            self._room.acquire()

    def submit_all(self) -> None:
        """Only submit them; return when they are committed."""
        for batch in range(1, self._count + 1):
            self._room.acquire()
            self._submit(batch, self._room.release)
        for _ in range(ON_THE_WAY):
            self._room.acquire()

    def _submit(self, batch: int, then: Callable[[], None] | None = None) -> None:
        first = (1 << 40) + batch * self._size
        jobs = list(range(first, first + self._size))
        self._journal.record(Heard(1, batch))
        self._journal.record(Submitted(batch, 1, jobs, [PAYLOAD] * self._size))
        self._journal.commit(then or (lambda: self._give(jobs)))

    def _give(self, jobs: list[int]) -> None:
        self._journal.record(Given("node", jobs))
        self._journal.commit(lambda: self._finish(jobs))

    def _finish(self, jobs: list[int]) -> None:
        self._told += 1
        told, times = self._told, [1.7e9] * self._size
        columns = [times, times, [RESULT] * self._size, []]
        self._journal.record(Finals(1, told, 1, jobs, columns))
        self._journal.commit(lambda: self._taken(told))

    def _taken(self, told: int) -> None:
        self._journal.record(Taken(1, told))
        self._journal.commit(self._room.release)


def measured(action: Callable[[], object]) -> tuple[float, float]:
    """Return wall and processor seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    action()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Measure one size after the other and print the table."""
    options = docopt(__doc__)
    lines = []
    for size in map(int, options["--batches"].split(",")):
        jobs = int(options["--jobs"]) // (100 if size == 1 else 1)
        jobs = max(1, jobs // size) * size
        for title, action in ("to the end", Life.run), ("all queued", Life.submit_all):
            with tempfile.TemporaryDirectory(dir=options["--directory"]) as directory:
                with closing(opened(directory, options["--power"])) as journal:
                    journal.load()
                    life = Life(journal, jobs, size)
                    wall, processor = measured(lambda: action(life))  # noqa: B023
                    largest = size_of(directory)
                    while journal._writing is not None:
                        journal._writing.join()
                    left = size_of(directory)
                with closing(opened(directory, options["--power"])) as journal:
                    loading, _ = measured(journal.load)
            lines.append((
                str(size), title, f"{jobs:,}", f"{jobs / wall:,.0f}",
                f"{processor / jobs * 1e6:.2f}", f"{largest:,.0f}", f"{left:,.0f}",
                f"{loading:.2f}",
            ))  # fmt: skip
    header = ("batch", "", "jobs", "jobs/s", "us/job", "MB", "MB after", "load, s")
    print("\n".join(table(header, lines, left=(1,))))


if __name__ == "__main__":
    main()
