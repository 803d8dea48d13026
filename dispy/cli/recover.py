"""Bring back what a program had at nodes when it died.

Usage:
  dispy recover [--timeout=<seconds>] [--terminate-pending] [--output=<directory>]
                [-q | --quiet] [-d | --debug] [--insecure]
                [--secret=<text> | --secret-file=<file>] [--certfile=<file>] [--keyfile=<file>]
                [--cafile=<file>] [--revoked=<file>] [<file>]
  dispy recover (-h | --help)

Options:
  --timeout=<seconds>  after which jobs that have not ended stay at their nodes; recover again
                      to get them
  --terminate-pending  cancel what still runs then; at once where there is no timeout
  --output=<directory>  where results go (default: the recovery file's name and `_results`)
  -q, --quiet         print failed jobs, and what is missing, alone
  -d, --debug         log more
  --insecure          use nodes of other machines, and of other users of this one, without
                      encryption
  -s <text>, --secret=<text>  a secret that the nodes share; better in a file, where nobody sees it
  --secret-file=<file>  file with the secret, or with several that are valid, one a line; by
                      default ~/.config/dispy/secret, if it is there; none: no secret
  --certfile=<file>   PEM file with the certificate that the program had
  --keyfile=<file>    PEM file with its private key; by default in the certfile
  --cafile=<file>     PEM file of the authority that has signed the certificates of all; without
                      it both sides have the same certificate
  --revoked=<file>    file with the SHA-256 fingerprints of certificates that count no more
  -h, --help          print this text

<file> is the recovery file; by default the newest `_dispy_*` of this directory. Each job gets a
directory, named after its number, with stdout.txt and stderr.txt, result.pickle (for
`pickle.load`), result.txt where that is a text, a number or the like, and exception.txt where it
failed. All of that is on the disk before any node forgets it. Files that jobs send come to where
their program ran. Nothing is lost when this is interrupted: start it again.

The exit status is 0 if all is there and no job failed, 1 if not, 2 if nothing could be recovered.
"""

import logging
import os
import sys
from collections.abc import Sequence

from docopt import docopt

from dispy.cli.options import warn_of_secret
from dispy.cli.run import VARIABLES
from dispy.client.job import DispyJob
from dispy.client.recovered_files import write_jobs
from dispy.client.recovering import Recovered, recover
from dispy.model.errors import DispyError
from dispy.model.statuses import Status
from dispy.model.texts import one_line


def main(arguments: Sequence[str]) -> int:
    """Recover, and write results; 0, or 1 where some are missing or failed."""
    options = docopt(__doc__, argv=list(arguments))
    if options["--secret"]:
        warn_of_secret()
    for option, variable in VARIABLES.items():
        if options[option]:
            os.environ[variable] = options[option]
    quiet = options["--quiet"]

    def keep(recovered: Recovered) -> None:
        directory = options["--output"] or f"{recovered.path}_results"
        if recovered.jobs:
            write_jobs(recovered, directory)
            for job in recovered.jobs:
                failed = job.status != Status.Finished
                if failed or not quiet:
                    _tell(recovered, job, failed)
            if not quiet:
                print(f"dispy recover: {len(recovered.jobs)} jobs in {directory}", file=sys.stderr)

    level = logging.DEBUG if options["--debug"] else logging.ERROR if quiet else None
    recovered = recover(
        options["<file>"], _seconds(options["--timeout"]), options["--terminate-pending"], keep,
        level, secret=options["--secret"], certfile=options["--certfile"],
        keyfile=options["--keyfile"], cafile=options["--cafile"],
        insecure=options["--insecure"] or None,
    )  # fmt: skip
    if quiet:  # else the log has said it
        for line in recovered.missing:
            print(f"dispy recover: {line}", file=sys.stderr)
    failed = any(job.status != Status.Finished for job in recovered.jobs)
    return 1 if failed or recovered.missing else 0


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        raise DispyError(f"--timeout: {text!r} is not a number of seconds") from None


def _tell(recovered: Recovered, job: DispyJob, failed: bool) -> None:
    """Print a line: which job, how it ended, and where it ran."""
    name = one_line(recovered.clusters.get(job.id, ""))
    what = f"job {job.id}{f' of {name}' if name else ''} on {job.ip_addr}: {job.status.name}"
    if not failed:
        print(what)
        return
    last = (job.exception or "").rstrip().rpartition("\n")[2]  # the whole is in its file
    print(f"{what}{f': {one_line(last)}' if last else ''}")
