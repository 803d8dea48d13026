"""The work of `dispy demo`: the same files through a cluster, and through one process.

Files travel as arguments, so that it works on nodes that have no copy of them.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from time import perf_counter, process_time
from typing import NamedTuple

from dispy import DispyJob, JobCluster
from dispy.cli.jobs import digest_and_count

FILE_LIMIT = 64 * 1024 * 1024  # bytes; a file travels whole, and this program holds it meanwhile
AHEAD_BYTES = 128 * 1024 * 1024  # of content that is on its way at a time
AHEAD_JOBS = 20_000  # likewise
LOOK_SECONDS = 0.1  # between looks at how far the work is
NOT_THE_LIBRARY = {"site-packages", "dist-packages", "__pycache__"}

Tell = Callable[[int], None]  # called now and then with the number of files done


class Counted(NamedTuple):
    """What `digest_and_count` returns."""

    size: int  # bytes
    lines: int
    words: int
    different_words: int
    most_frequent: str
    digest: str  # BLAKE2b, in hexadecimal


@dataclass
class Run:
    """What became of the files, the seconds that all of them took, and the processor's share."""

    results: dict[Path, Counted] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)
    seconds: float = 0.0
    cpu_seconds: float = 0.0  # of this process alone


def find_files(directory: Path, suffix: str = "") -> tuple[list[Path], dict[Path, str]]:
    """Return the regular files below a directory, in order, and why others cannot take part.

    Reads each once, so that whoever reads it later finds it in the system's memory. Without
    the directories of installed packages and compiled files where a `suffix` is given.
    """
    files: list[Path] = []
    left_out: dict[Path, str] = {}

    def note(error: OSError) -> None:
        left_out[Path(error.filename)] = error.strerror or str(error)

    for place, directories, names in os.walk(directory, onerror=note):
        directories.sort()
        if suffix:
            directories[:] = [name for name in directories if name not in NOT_THE_LIBRARY]
        for path in (Path(place, name) for name in sorted(names) if name.endswith(suffix)):
            try:
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):
                    continue
                if status.st_size > FILE_LIMIT:
                    left_out[path] = f"it is larger than {FILE_LIMIT >> 20} MiB"
                    continue
                path.read_bytes()
            except OSError as error:
                left_out[path] = error.strerror or str(error)
            else:
                files.append(path)
    return files, left_out


def digest_here(files: Sequence[Path], tell: Tell) -> Run:
    """Digest files one after the other, in this very process."""
    run = Run()
    begin, cpu = perf_counter(), process_time()
    for path in files:
        try:
            run.results[path] = Counted(*digest_and_count(path.read_bytes()))
        except OSError as error:
            run.failed[path] = error.strerror or str(error)
        tell(len(run.results))
    run.seconds, run.cpu_seconds = perf_counter() - begin, process_time() - cpu
    return run


class DigestCluster:
    """A cluster whose jobs digest one file each; a context manager, as every cluster is."""

    def __init__(self, nodes: Sequence[str] | None, loglevel: int | None) -> None:
        self._done: SimpleQueue[DispyJob] = SimpleQueue()
        self.cluster = JobCluster(digest_and_count, nodes, callback=self._take, loglevel=loglevel)

    def __enter__(self) -> "DigestCluster":
        return self

    def __exit__(self, *how: object) -> None:
        self.cluster.__exit__(*how)

    def _take(self, job: DispyJob) -> None:
        """The cluster's callback."""
        self._done.put(job)

    def wait_until_ready(self, tell: Callable[[], None]) -> float:
        """Run one job, which waits for nodes and workers; return the seconds that it took."""
        begin = perf_counter()
        job = self.cluster.submit(b"")
        while not job.wait(LOOK_SECONDS):
            tell()
        self._done.get()
        return perf_counter() - begin

    def digest(self, files: Sequence[Path], tell: Tell) -> Run:
        """Digest files, each by a job; those on their way are bounded in number and size."""
        run = Run()
        bytes_ahead = jobs_ahead = 0
        begin = perf_counter()
        for path in files:
            try:
                content = path.read_bytes()
            except OSError as error:
                run.failed[path] = error.strerror or str(error)
                continue
            job = self.cluster.submit(content)
            job.id = path
            bytes_ahead += len(content)
            jobs_ahead += 1
            crowded = bytes_ahead > AHEAD_BYTES or jobs_ahead > AHEAD_JOBS
            for done in self._arrived(wait=crowded):
                bytes_ahead -= len(done.args[0])
                jobs_ahead -= 1
                _note(done, run)
            tell(len(run.results))
        while jobs_ahead:
            for done in self._arrived(wait=True):
                jobs_ahead -= 1
                _note(done, run)
            tell(len(run.results))
        run.seconds = perf_counter() - begin
        return run

    def _arrived(self, wait: bool) -> Iterator[DispyJob]:
        """Yield the jobs that have ended; `wait`: for one, but not for long."""
        with suppress(Empty):
            if wait:
                yield self._done.get(timeout=LOOK_SECONDS)
            while True:
                yield self._done.get_nowait()


def _note(job: DispyJob, run: Run) -> None:
    if job.status == DispyJob.Finished:
        run.results[job.id] = Counted(*job.result)
    else:
        last = (job.exception or "").strip().splitlines()[-1:]
        run.failed[job.id] = f"{job.status.name}: {''.join(last)}"
