"""Make certificates for machines, look at them, revoke them.

Usage:
  dispy cert ca [--directory=<directory>] [--name=<name>] [--days=<n>]
  dispy cert issue [--directory=<directory>] [--to=<directory>] [--days=<n>]
             [--ip=<address>]... [--dns=<host>]... [--role=<role>]... <name>
  dispy cert show [--directory=<directory>] [<file>...]
  dispy cert revoke [--directory=<directory>] [--list=<list>] <file>
  dispy cert (-h | --help)

Options:
  --directory=<directory>  where the authority is (default: ~/.config/dispy/ca)
  --name=<name>   of the authority, as people see it (default: dispy)
  --days=<n>      for how long it is valid (default: 3650 days for an authority, 365 for others)
  --to=<directory>  where the key, its certificate and that of the authority go, to be carried to
                  the machine (default: <name>, in the current directory)
  --ip=<address>  an address at which the machine is dialled. With any of these and --dns, others
                  refuse the certificate at any other address
  --dns=<host>    a host name by which it is dialled, `*.example.org` for all of one domain
  --role=<role>   what it may be: node, client, scheduler, relay (default: any of them)
  --list=<list>   where fingerprints of revoked certificates are (default: revoked, in the
                  authority's directory)
  -h, --help      print this text

`ca` makes an authority: a key, which stays where it is, and a certificate. `issue` makes a key
and a certificate that the authority signs. `show` says what is in certificates; without a file,
in the authority's. `revoke` adds the fingerprint of one to the list that --revoked of a node, or
DISPY_REVOKED of a program, names.

Exit status: 0; 1 where `show` found a certificate that is not valid now; 2 where nothing could be
done.
"""

import os
from collections.abc import Sequence
from typing import Any

from docopt import docopt

from dispy.model.errors import DispyError
from dispy.system.directories import user_configuration


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; return the exit status."""
    options = docopt(__doc__, argv=list(arguments))
    usual = os.path.join(user_configuration(os.environ), "dispy", "ca")
    directory = os.path.expanduser(options["--directory"] or usual)
    if options["ca"]:
        return _make_authority(directory, options)
    if options["issue"]:
        return _issue(directory, options)
    if options["show"]:
        from dispy.net.authority import AUTHORITY

        files = options["<file>"] or [os.path.join(directory, AUTHORITY)]
        return max([_show(file) for file in files])
    return _revoke(directory, options)


def _make_authority(directory: str, options: dict[str, Any]) -> int:
    from dispy.net.authority import AUTHORITY, AUTHORITY_DAYS, KEY, make_authority

    make_authority(directory, options["--name"] or "dispy", _days(options, AUTHORITY_DAYS))
    print(f"The authority's key is {os.path.join(directory, KEY)}. Whoever has it can make")
    print("certificates that all your machines believe: it never needs to leave this machine.")
    print(f"Its certificate is {os.path.join(directory, AUTHORITY)}.")
    print("Next: `dispy cert issue NAME --ip=ADDRESS` for each machine.")
    return 0


def _issue(directory: str, options: dict[str, Any]) -> int:
    from dispy.net.authority import AUTHORITY, CERTIFICATE, DAYS, KEY, issue

    name = options["<name>"]
    to = os.path.expanduser(options["--to"] or name)
    issue(
        directory, name, to,
        options["--ip"], options["--dns"], options["--role"], _days(options, DAYS),
    )  # fmt: skip
    print(f"{to} has {KEY}, {CERTIFICATE} and {AUTHORITY}. Carry it to {name}, and start there:")
    files = f"--certfile={CERTIFICATE} --keyfile={KEY} --cafile={AUTHORITY}"
    print(f"  dispy node --host=ADDRESS {files}")
    print("or, for a program, set DISPY_CERTFILE, DISPY_KEYFILE and DISPY_CAFILE.")
    return 0


def _days(options: dict[str, Any], usual: int) -> int:
    from dispy.net.authority import DAYS_MOST

    text = options["--days"]
    if text is None:
        return usual
    if not text.isdecimal() or not 1 <= int(text) <= DAYS_MOST:
        raise DispyError(f"--days: {text!r} is not a number from 1 to {DAYS_MOST}")
    return int(text)


def _show(file: str) -> int:
    from dispy.net import certificates

    status = 0
    for certificate in certificates.load(file):
        fault = certificates.not_in_time(certificate)
        status = 1 if fault else status
        valid = fault or f"for {certificates.days_left(certificate)} days more"
        print(f"{file}:")
        print(f"  subject      {certificates.subject(certificate)}")
        print(f"  signed by    {certificate.issuer.rfc4514_string()}")
        print(f"  fingerprint  {certificates.fingerprint(certificate)}")
        print(f"  addresses    {', '.join(certificates.hosts(certificate)) or 'any'}")
        print(f"  roles        {', '.join(sorted(certificates.roles(certificate))) or 'any'}")
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        print(f"  valid        {begin:%Y-%m-%d} to {end:%Y-%m-%d}: {valid}")
    return status


def _revoke(directory: str, options: dict[str, Any]) -> int:
    from dispy.net.authority import REVOKED, revoke

    (file,) = options["<file>"]
    revoked = os.path.expanduser(options["--list"] or os.path.join(directory, REVOKED))
    name = revoke(file, revoked)
    print(f"{name} is revoked in {revoked}. Bring that file to all machines: nodes started with")
    print("--revoked=FILE, and programs with DISPY_REVOKED=FILE, read it again when it changes,")
    print("and refuse new connections of that certificate.")
    return 0
