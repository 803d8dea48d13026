"""Check this machine, its networks, and the way to other hosts.

Usage:
  dispy doctor [--port=<port>] [--json] [<host>...]
  dispy doctor (-h | --help)

Options:
  -p <port>, --port=<port>  TCP and UDP port of nodes [default: 51348]
  --json      print the checks as a JSON list, for programs
  -h, --help  print this text

One line is printed for each check. It begins with "ok", with "warning" (something does not
work as it could) or with "problem", and those two end with what to do. Looked at are: versions,
processors, ports and who has them, networks and whether a broadcast comes back, nodes that
answer, limits, directories, the secret and the certificate of this user; and for each host
whether it has an address, which node listens there and whether it proves itself, whether its
versions fit to ours, whether it answers pings, and its clock.

Exit status: 0 nothing is wrong, warnings aside; 1 there is a problem; 2 wrong usage.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from docopt import docopt

from dispy.cli.checks import PROBLEM, Check
from dispy.cli.credential_checks import credentials_here
from dispy.cli.host_checks import check_host
from dispy.cli.machine_checks import check_machine
from dispy.model.errors import DispyError


def main(arguments: Sequence[str]) -> int:
    """Print all checks; return 1 where one found a problem, else 0."""
    options = docopt(__doc__, argv=list(arguments))
    checks = []
    for check in _all(options["<host>"], _port(options["--port"])):
        checks.append(check)
        if not options["--json"]:
            print(check.line(), flush=True)  # one by one: some take seconds
    if options["--json"]:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    return 1 if any(check.verdict == PROBLEM for check in checks) else 0


def _all(hosts: Sequence[str], port: int) -> Iterator[Check]:
    credentials, found = credentials_here()
    yield from check_machine(port, credentials, found)
    for host in hosts:
        yield from check_host(host, port, credentials)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise DispyError(f"--port: {text!r} is not a number from 1 to 65535")
    return int(text)
