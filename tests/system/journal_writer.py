"""Writes a journal without end, and says what is committed: `DIRECTORY SEED INSTRUCTIONS`.

What it records follows from the seed alone: unit after unit, each with its number as what slot 1
was heard to say. It goes on where the journal ends, and kills itself after so many instructions
of the database's machine, if that is not 0.
"""

import os
import signal
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import gevent
from gevent.lock import BoundedSemaphore
from unit.journal_model import Model

from dispy.scheduler import journal_entries as entries
from dispy.scheduler import journal_form
from dispy.scheduler.journal import SqliteJournal

ON_THE_WAY = 5  # units at most whose commit is waited for


def units(seed: int) -> Iterator[list[Any]]:
    """Yield lists of entries that belong together, without end."""
    random, model = Random(seed), Model()
    number = told = job = 0
    yield [
        entries.ClientCame(1, "identity", "client", b"key"),
        entries.ClusterOpened(7, 1, "compute", {"reentrant": True}, b"code", {}),
        entries.Heard(1, (number := number + 1)),
    ]
    while True:
        unit: list[Any] = [entries.Heard(1, (number := number + 1))]
        size = random.choice([1, 3, 200])
        jobs = list(range(job, job + size))
        job += size
        bulk = [random.randbytes(random.choice([10, 66_000]))] if random.random() < 0.2 else []
        column = [random.randbytes(100) for _ in jobs[len(bulk) :]] + [1] * len(bulk)
        unit.append(entries.Submitted(number, 7, jobs, column, bulk))
        waiting = [*model.waiting[: random.randrange(300)]]
        if waiting:
            unit.append(entries.Given(random.choice("ab"), waiting))
        given = [each for each in model.given if random.random() < 0.6]
        back, ended = given[: len(given) // 10], given[len(given) // 10 :]
        if back:
            unit.append(entries.Returned(back))
        if ended:
            told += 1
            results = [random.randbytes(20) for _ in ended]
            unit.append(entries.Finals(1, told, 7, ended, [results], bulk))
        if random.random() < 0.3:
            unit.append(entries.Taken(1, told - random.randrange(3)))
        random.shuffle(unit)
        for entry in unit:
            model.take(entry)
        yield unit


def main(directory: str, seed: int, instructions: int) -> None:
    """Write until somebody kills this process."""

    def failed(why: str) -> None:
        print("failed:", why, flush=True)

    journal_form.BESIDE_BYTES = 20_000
    journal = SqliteJournal(directory, failed)
    known = journal.load()
    left = iter(range(instructions))

    def step() -> int:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    if instructions:
        journal._do(lambda: journal._file._database.set_progress_handler(step, 1))
    done = known.heard.get(1, 0)
    room = BoundedSemaphore(ON_THE_WAY)

    def committed(number: int) -> None:
        os.write(1, b"%d\n" % number)
        room.release()

    for number, unit in enumerate(islice(units(seed), done, None), done + 1):
        room.acquire()
        for entry in unit:
            journal.record(entry)
        gevent.sleep(0)  # a unit that is not whole yet, while the one before is written
        journal.commit(lambda number=number: committed(number))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
