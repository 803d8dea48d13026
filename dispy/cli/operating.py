"""What the commands that ask and steer a shared scheduler have in common: options, and the way."""

import sys
from collections.abc import Mapping
from typing import Any

from dispy.cli.options import read_options, warn_of_secret
from dispy.client.operating import ask
from dispy.model.errors import DispyError
from dispy.net.credentials import load_credentials

ANSWER_SECONDS = 60.0  # a million jobs are cancelled in less

# Of each usage text: its first line after the command's own options, and what they mean.
WAY = """\
[--host=<host>] [--port=<port>] [--insecure]
{indent}[--secret=<text> | --secret-file=<file>] [--certfile=<file>]
{indent}[--keyfile=<file>] [--cafile=<file>] [--revoked=<file>]"""
OPTIONS = """\
  -i <host>, --host=<host>  name or address of the scheduler's machine (default: 127.0.0.1)
  -p <port>, --port=<port>  its TCP port for client programs (default: 51349)
  --insecure          use a scheduler on another machine without encryption
  -s <text>, --secret=<text>  a secret that both sides share: links are encrypted, and both prove
                      that they have it; better in a file, where nobody sees it
  --secret-file=<file>  file with the secret, or with several that are valid, one a line; by
                      default ~/.config/dispy/secret, if it is there; none: no secret
  --certfile=<file>   PEM file with the certificate that this side shows, and asks the other for
  --keyfile=<file>    PEM file with its private key; by default in the certfile
  --cafile=<file>     PEM file of the authority that has signed the certificates of all; without
                      it both sides have the same certificate
  --revoked=<file>    file with the SHA-256 fingerprints of certificates that count no more, one a
                      line
  -h, --help          print this text

What no option says comes from DISPY_SCHEDULER, DISPY_SCHEDULER_PORT, DISPY_SECRET_FILE,
DISPY_CERTFILE, DISPY_KEYFILE, DISPY_CAFILE and DISPY_REVOKED, then from the table [operator] of
~/.config/dispy/config.toml or /etc/dispy/config.toml.

The exit status is 0, 1 if the scheduler does not do what it was asked, 2 for wrong usage or if it
cannot be reached.
"""


def usage(command: str, ways: str, what: str, options: str) -> str:
    """Return a usage text: a first line, the command's own arguments and options, and the rest."""
    lines = []
    for way in ways.splitlines():
        start = f"  dispy {command} "
        lines.append(start + (f"{way} " if way else "") + WAY.format(indent=" " * len(start)))
    lines.append(f"  dispy {command} (-h | --help)")
    body = "\n".join(lines)
    return f"{what}\n\nUsage:\n{body}\n\nOptions:\n{options}{OPTIONS}"


def ask_scheduler(options: Mapping[str, Any], what: str, of: dict[str, Any]) -> dict[str, Any]:
    """Return the scheduler's answer; raises SchedulerRefused and DispyError."""
    if options["--secret"]:
        warn_of_secret()
    settings = read_options("operator", options)
    credentials = load_credentials(settings)
    host, port = settings["host"].value, settings["port"].value
    return ask(host, port, credentials, what, of, ANSWER_SECONDS)


def refused(command: str, error: DispyError) -> int:
    """Print why the scheduler does not do it, and return the exit status that says so."""
    print(f"dispy {command}: {error}", file=sys.stderr)
    return 1


def limit_of(options: Mapping[str, Any], default: int) -> int | None:
    """Return how many lines of a table are printed, None: all; raises DispyError."""
    text = options["--limit"]
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal():
        raise DispyError(f"--limit: {text!r} is not a number of lines, 0 for all")
    return int(text) or None
