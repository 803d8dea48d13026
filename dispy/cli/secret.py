"""Make the secret that your machines share, change it, or look whether it is a good one.

Usage:
  dispy secret [--add | --retire] [--file=<file>] [--print]
  dispy secret --check [<file>]
  dispy secret (-h | --help)

Options:
  --file=<file>  where it is kept (default: ~/.config/dispy/secret, where all nodes and programs
                 of this user find it)
  --print        print the secret too, to copy it by hand; nothing else ever shows it
  --add          put a new one before those that are there, all of which stay valid
  --retire       keep the first one alone
  --check        say what a file has in it, without showing it: machines that print the same
                 letters have the same secret
  -h, --help     print this text

Nodes and programs that have the same secret trust each other: every link between them is
encrypted, and both sides prove that they have it. Without --add or --retire a secret is made
where there is none.

To change a secret without stopping work: `dispy secret --add` on one machine, then copy the file
to all others; nodes and programs read it again by themselves at their next connection. Once all
have it, `dispy secret --retire` on one, and copy again.

Exit status: 0; 1 where --check found something wrong; 2 where nothing could be done.
"""

import os
import sys
from collections.abc import Sequence

from docopt import docopt

from dispy.model.credentials import (
    Secret,
    new_secret,
    read_secrets,
    with_new_secret,
    without_old_secrets,
)
from dispy.model.errors import DispyError
from dispy.net.credentials import secret_path
from dispy.system.directories import read_private, write_private


def main(arguments: Sequence[str]) -> int:
    """Do what the options say; return the exit status."""
    options = docopt(__doc__, argv=list(arguments))
    usual = secret_path(os.environ)
    if options["--check"]:
        return _check(options["<file>"] or usual)
    path = os.path.expanduser(options["--file"] or usual)
    if options["--add"]:
        _write(path, with_new_secret(_read(path), path), replace=True)
        print(f"{path} has a new secret in the first place; those from before are valid too.")
        _tell_way(path, usual)
        print("Once all have it, `dispy secret --retire` removes the old ones.")
    elif options["--retire"]:
        text, count = without_old_secrets(_read(path), path)
        if not count:
            raise DispyError(f"{path} has one secret alone: `dispy secret --add` before it retires")
        _write(path, text, replace=True)
        print(f"{count} old secret{'s' * (count > 1)} removed from {path}.")
        _tell_way(path, usual)
    else:
        _write(path, f"{new_secret()}\n", replace=False)
        print(f"A new secret is in {path}, which only you can read.")
        _tell_way(path, usual)
    first = read_secrets(_read(path), path)[0]
    print(f"Its fingerprint is {first.fingerprint}; `dispy secret --check` shows it elsewhere.")
    if options["--print"]:
        print(first.text)
    return 0


def _read(path: str) -> str:
    if not os.path.exists(path):
        raise DispyError(f"{path} is not there; `dispy secret` makes it")
    return read_private(path, path)


def _write(path: str, text: str, replace: bool) -> None:
    try:
        write_private(path, text, replace)
    except FileExistsError:
        raise DispyError(
            f"{path} is there already, and stays as it is. `dispy secret --check` says what is in "
            f"it, --add puts a new one before it, and without it you could use no machine that "
            f"has it"
        ) from None
    except OSError as error:
        raise DispyError(f"cannot write {path}: {error.strerror or error}") from None


def _tell_way(path: str, usual: str) -> None:
    """Print how the file comes to other machines."""
    if path != usual:
        print(f"Name it to nodes and programs: --secret-file={path} or DISPY_SECRET_FILE={path}")
        return
    print("Machines that share this home directory have it already. To bring it to another:")
    print("  ssh HOST 'umask 077; mkdir -p ~/.config/dispy'")
    print(f"  scp -p {path} HOST:.config/dispy/secret")
    print("A node whose user has no home directory: `dispy node --secret-file=FILE`, or")
    print("DISPY_SECRET_FILE=FILE in its environment.")


def _check(path: str) -> int:
    path = os.path.expanduser(path)
    secrets = read_secrets(_read(path), path)
    print(f"{path} is private.")
    for secret in secrets:
        print(f"{secret.fingerprint}  {strength(secret)}")
    if secrets[0].weak:
        print("dispy: `dispy secret --add` makes a better one", file=sys.stderr)
    return 1 if any(secret.weak for secret in secrets) else 0


def strength(secret: Secret) -> str:
    """Say how hard a secret is to guess."""
    if secret.strong:
        return "strong: made by `dispy secret`"
    if secret.weak:
        return "weak: short enough to be guessed"
    return "made up by a person: good if nobody can think of it"
