"""See dispy work: digests and word counts of many files, on all processors.

Usage:
  dispy demo [--nodes=<hosts>] [--largest=<n>] [--quiet] [<directory>]
  dispy demo (-h | --help)

Options:
  --nodes=<hosts>  the nodes to use: names, addresses or patterns, with commas between them;
                   without it any that answer, and where none does a node of its own
  --largest=<n>    how many of the largest files to list [default: 10]
  -q, --quiet      no progress, only the outcome
  -h, --help       print this text

Every file in the directory becomes a job: its content goes to a node, the BLAKE2b digest, the
lines and the words come back. Without a directory these are the source files of Python's standard
library. Then one process does the same with the same files, so that the speed-up is measured
and not promised. All files were read once before, for both.
"""

import logging
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from docopt import docopt

from dispy import DispyNode
from dispy.cli.digests import DigestCluster, Run, digest_here, find_files
from dispy.cli.progress import Progress, bold, shortened, table
from dispy.model.errors import DispyError
from dispy.system.interpreter import is_frozen

NAME_WIDTH, WORD_WIDTH, DIGEST_WIDTH = 26, 8, 12  # characters; the table fits on 80 columns
BUSY_SHARE = 0.85  # of a processor, which one process has for itself where nothing else runs
NAMED = 5  # files that could not be read: so many are named, the others counted


def main(arguments: Sequence[str]) -> int:
    """Run the demonstration; 0, or 1 when a file failed or the two ways do not agree."""
    options = docopt(__doc__, argv=list(arguments))
    largest = _whole(options["--largest"])
    nodes = options["--nodes"].split(",") if options["--nodes"] else None
    quiet = options["--quiet"]
    progress = Progress(quiet)
    directory, suffix = _where(options["<directory>"])
    progress.show(f"reading {directory}")
    files, left_out = find_files(directory, suffix)
    progress.clear()
    if not files:
        _print_failures(left_out, "could not be read")
        raise DispyError(f"{directory}: there is no file in it to work on; name another directory")
    with DigestCluster(nodes, logging.WARNING if quiet else None) as digesting:
        ready = digesting.wait_until_ready(lambda: progress.show("waiting for a node"))
        spread = digesting.digest(files, lambda done: _tell(progress, done, len(files), "jobs"))
        used = [node for node in digesting.cluster.status().nodes if node.jobs_done]
    alone = digest_here(files, lambda done: _tell(progress, done, len(files), "one process"))
    progress.clear()
    different = sorted(
        path for path in spread.results.keys() & alone.results.keys()
        if spread.results[path] != alone.results[path]
    )  # fmt: skip
    _print_files(directory, spread, largest)
    _print_nodes(used)
    _print_failures(left_out, "could not be read")
    _print_failures(spread.failed, "failed")
    _print_failures(dict.fromkeys(different, "not the same in one process"), "changed meanwhile")
    _print_speed(spread, alone, ready, sum(node.cpus for node in used))
    return 1 if spread.failed or different else 0


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise DispyError(f"--largest: {text!r} is not a whole number")
    return int(text)


def _where(named: str | None) -> tuple[Path, str]:
    """Return the directory to work on, and how the names of its files end."""
    if named is not None:
        directory = Path(named)
        if not directory.is_dir():
            what = "is a file, not a directory" if directory.exists() else "there is no such thing"
            raise DispyError(f"{directory}: {what}; name a directory with files to work on")
        return directory, ""
    library = Path(sysconfig.get_path("stdlib"))
    if is_frozen() or not (library / "os.py").is_file():
        raise DispyError(
            "there is no source of Python's standard library beside this executable: name a "
            "directory with files to work on, `dispy demo DIRECTORY`"
        )
    return library, ".py"


def _tell(progress: Progress, done: int, count: int, who: str) -> None:
    filled = 30 * done // count
    progress.show(f"{who:<11} [{'#' * filled}{'.' * (30 - filled)}] {done:,} of {count:,} files")


def _print_files(directory: Path, run: Run, largest: int) -> None:
    counted = sorted(run.results.items(), key=lambda item: (-item[1].size, item[0]))
    sizes = f"{sum(found.size for _, found in counted) / 1e6:,.1f} MB"
    words = f"{sum(found.words for _, found in counted):,} words"
    print(f"{len(counted):,} files, {sizes}, {words} in {directory}\n")
    rows = [
        (
            shortened(str(path.relative_to(directory)), NAME_WIDTH),
            *(f"{n:,}" for n in (found.size, found.lines, found.words, found.different_words)),
            found.most_frequent[:WORD_WIDTH],
            found.digest[:DIGEST_WIDTH],
        )
        for path, found in counted[:largest]
    ]
    header = ("largest files", "bytes", "lines", "words", "distinct", "mostly", "BLAKE2b")
    if rows:
        print("\n".join(table(header, rows, left=(0, 5, 6))), end="\n\n")


def _print_nodes(nodes: Sequence[DispyNode]) -> None:
    rows = [
        (
            shortened(f"{node.name} ({node.ip_addr})", 2 * NAME_WIDTH),
            str(node.cpus),
            f"{node.jobs_done:,}",
            f"{node.cpu_time:.2f}",
        )
        for node in nodes
    ]  # fmt: skip
    header = ("nodes", "processors", "jobs", "seconds of work")
    print("\n".join(table(header, rows, left=(0,))), end="\n\n")


def _print_failures(failures: dict[Path, str], what: str) -> None:
    if not failures:
        return
    print(f"{len(failures):,} {'file' if len(failures) == 1 else 'files'} {what}:")
    for path in sorted(failures)[:NAMED]:
        print(f"  {path}: {failures[path]}")
    if len(failures) > NAMED:
        print(f"  and {len(failures) - NAMED:,} more")
    print()


def _print_speed(spread: Run, alone: Run, ready: float, processors: int) -> None:
    jobs = len(spread.results) + len(spread.failed)
    print(f"node and workers ready  {ready:8.2f} s")
    print(f"all files, as jobs      {spread.seconds:8.2f} s   {jobs / spread.seconds:,.0f} jobs/s")
    print(f"all files, one process  {alone.seconds:8.2f} s")
    times = alone.seconds / spread.seconds
    whole = alone.seconds / (spread.seconds + ready)
    print(
        bold(f"speed-up                {times:8.2f}") + f"     on {processors} processors; "
        f"{whole:.2f} counting the start"
    )
    share = alone.cpu_seconds / alone.seconds
    if share < BUSY_SHARE:
        print(
            f"Other programs kept this machine busy: one process got {share:.0%} of a "
            f"processor.\nThe speed-up says little then; try again when it is idle."
        )
    elif times < 1:
        print("Too little work for sending it to pay: try more files, or larger ones.")
