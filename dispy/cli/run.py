"""Run a program on the nodes, once for each set of arguments.

Usage:
  dispy run [-a <arguments>]... [--arguments-from=<file>] [-f <file>]... [-n <node>]...
            [--stdin=<file>] [-c] [--stream] [-q | --quiet] [-d | --debug] [--insecure]
            [--secret=<text> | --secret-file=<file>] [--certfile=<file>] [--keyfile=<file>]
            [--cafile=<file>] [--revoked=<file>] [--ip_addr=<address>]
            [--scheduler_node=<host>] <program>
  dispy run (-h | --help)

Options:
  -a <arguments>, --arguments=<arguments>  run it once with these, split as a shell would;
                      may be repeated. Without any the program runs once, without arguments
  --arguments-from=<file>  run it once for each line of a file; `-`: of the standard input
  -f <file>, --depends=<file>  a file or directory that the program needs beside it
  -n <node>, --nodes=<node>  a node to use: name, address or pattern; without any, those that
                      answer, and where none does a node of its own
  --stdin=<file>      what each run reads from its standard input; without it nothing
  -c, --no-cleanup    leave files on the nodes
  --stream            show output while the program runs, each line led by its job and node
  -q, --quiet         print what the program writes and nothing else
  -d, --debug         log more
  --insecure          use nodes of other machines, and of other users of this one, without
                      encryption
  -s <text>, --secret=<text>  a secret that the nodes share; better in a file, where nobody sees it
  --secret-file=<file>  file with the secret, or with several that are valid, one a line; by
                      default ~/.config/dispy/secret, if it is there; none: no secret
  --certfile=<file>   PEM file with the certificate that this side shows, and asks the nodes for
  --keyfile=<file>    PEM file with its private key; by default in the certfile
  --cafile=<file>     PEM file of the authority that has signed the certificates of all; without
                      it both sides have the same certificate
  --revoked=<file>    file with the SHA-256 fingerprints of certificates that count no more
  --ip_addr=<address>  dispy 4's; without effect, because the nodes are dialled from here
  --scheduler_node=<host>  dispy 4's; this version has no shared scheduler yet
  -h, --help          print this text

<program> is a file, or a name that is looked for in PATH; a `.py` file runs with the Python of
the node. What the runs write comes in the order of their arguments: standard output to standard
output, the rest to standard error. The exit status is 0 if all runs had 0, else 1.
"""

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docopt import docopt

from dispy import DispyJob, JobCluster
from dispy.cli.options import warn_of_secret
from dispy.cli.progress import Progress
from dispy.model.errors import DispyError

VARIABLES = {  # of options for which JobCluster has no argument
    "--secret-file": "DISPY_SECRET_FILE",
    "--revoked": "DISPY_REVOKED",
}


def main(arguments: Sequence[str]) -> int:
    """Run the program on nodes; 0, or 1 when a run failed."""
    options = docopt(__doc__, argv=list(arguments))
    if options["--scheduler_node"]:
        raise DispyError("--scheduler_node: this version has no shared scheduler yet")
    calls = _calls(options["--arguments"], options["--arguments-from"])
    stdin = _read(options["--stdin"], "--stdin") if options["--stdin"] else None
    quiet = options["--quiet"]
    if options["--secret"]:
        warn_of_secret()
    for option, variable in VARIABLES.items():
        if options[option]:
            os.environ[variable] = options[option]
    cluster = JobCluster(
        options["<program>"],
        nodes=options["--nodes"] or None,
        depends=options["--depends"],
        cleanup=not options["--no-cleanup"],
        stream=options["--stream"] or None,
        insecure=options["--insecure"] or None,
        secret=options["--secret"] or "",
        keyfile=options["--keyfile"],
        certfile=options["--certfile"],
        cafile=options["--cafile"],
        loglevel=_level(options["--debug"], quiet),
    )
    with cluster:
        extra: dict[str, Any] = {} if stdin is None else {"dispy_job_stdin": stdin}
        jobs = [cluster.submit(*call, **extra) for call in calls]
        progress = Progress(quiet)
        failed = 0
        for at, (call, job) in enumerate(zip(calls, jobs, strict=True)):
            assert job is not None, "texts can be sent"
            while not job.wait(1.0):
                progress.show(f"{at} of {len(jobs)} runs are done")
            progress.clear()
            failed += not _tell(call, job, shown=options["--stream"])
        if not quiet:
            _print_nodes(cluster, len(jobs), failed)
    return 1 if failed else 0


def _level(debug: bool, quiet: bool) -> int | None:
    if debug:
        return logging.DEBUG
    return logging.ERROR if quiet else None


def _calls(given: Sequence[str], file: str | None) -> list[list[str]]:
    """Return the arguments of each run."""
    lines = list(given)
    if file is not None:
        text = _read(file, "--arguments-from").decode(errors="surrogateescape")
        lines += [line for line in text.splitlines() if line.strip()]
    elif not lines:
        return [[]]
    try:
        return [shlex.split(line) for line in lines]
    except ValueError as error:
        raise DispyError(f"arguments: {error}") from None


def _read(path: str, option: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise DispyError(f"{option}: cannot read {path!r}: {error.strerror}") from None


def _tell(call: Sequence[str], job: DispyJob, shown: bool) -> bool:
    """Print what a run has written, and how it ended if that was not well; say if it was."""
    good: bool = job.status == DispyJob.Finished and job.result == 0
    if not shown:
        for stream, text in ((sys.stdout, job.stdout), (sys.stderr, job.stderr)):
            stream.flush()
            stream.buffer.write(text or b"")
            stream.flush()
    if not good:
        what = job.exception or _ended(job.result)
        print(f"dispy run: {shlex.join(call) or 'the run'}: {what}", file=sys.stderr)
    return good


def _ended(status: int) -> str:
    return f"ended by signal {-status}" if status < 0 else f"exit status {status}"


def _print_nodes(cluster: JobCluster, runs: int, failed: int) -> None:
    used = [node for node in cluster.status().nodes if node.jobs_done]
    where = ", ".join(f"{node.name} ({node.jobs_done})" for node in used)
    plural = "" if runs == 1 else "s"
    print(f"dispy run: {runs} run{plural}, {failed} failed; on {where or 'no node'}",
          file=sys.stderr)  # fmt: skip
