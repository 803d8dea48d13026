"""What programs call their jobs, in rows of a journal: each is needed while one job is. Pure."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any


class Labels:
    """Of the rows of one journal."""

    def __init__(self) -> None:
        self._row_of: dict[int, int] = {}  # the last one that names a job
        self._left: dict[int, int] = {}  # of each row, the jobs that it is needed for
        self._found: list[tuple[int, Sequence[list[Any]]]] = []  # until all rows are replayed

    def rows(self) -> Collection[int]:
        """Return the rows that are needed."""
        return self._left.keys()

    def put(self, row: int, jobs: Iterable[int]) -> list[int]:
        """Take in a row that names these jobs; return those that are not needed any more."""
        jobs = set(jobs)
        dead = self.drop(jobs)
        self._row_of.update(dict.fromkeys(jobs, row))
        self._left[row] = len(jobs)
        return dead

    def drop(self, jobs: Iterable[int]) -> list[int]:
        """Forget jobs; return the rows that are not needed any more."""
        dead: list[int] = []
        for job in jobs if self._row_of else ():
            row = self._row_of.pop(job, None)
            if row is not None:
                self._left[row] -= 1
                if not self._left[row]:
                    del self._left[row]
                    dead.append(row)
        return dead

    # -- after a restart

    def found(self, row: int, labels: Sequence[list[Any]]) -> None:
        """Take a row that an earlier process has written."""
        self._found.append((row, labels))

    def recall(self, jobs: Iterable[int]) -> dict[int, bytes]:
        """Return what these jobs are called, which are all that there are."""
        found, self._found = self._found, []
        known: dict[int, bytes] = {}
        if found:
            needing = set(jobs)
            for row, labels in found:
                own = {job: label for job, label in labels if job in needing}
                known.update(own)
                self.put(row, own)
        return known
