"""Who a scheduler is: the same after a restart, to its nodes and clients.

In a file of its directory: the identity that it says, the key that its links prove, and how often
it was begun.
"""

import json
import os
from dataclasses import asdict, dataclass

from dispy.model.credentials import KeyPair
from dispy.model.errors import DispyError
from dispy.system.directories import read_private, write_private

NAME = "identity.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """Of one scheduler; `life` counts from 1 how often it was begun."""

    identity: str
    pair: KeyPair
    life: int


def begin(directory: str) -> Identity:
    """Return who the scheduler of this directory is, now that it begins once more.

    The directory must be locked by this process. Raises DispyError where the file cannot be used.
    """
    path = os.path.join(directory, NAME)
    try:
        found = _read(path) if os.path.exists(path) else _new()
        life = Identity(found.identity, found.pair, found.life + 1)
        write_private(path, json.dumps(asdict(life)), replace=True)
    except OSError as error:
        raise DispyError(f"cannot write {path}: {error.strerror or error}") from None
    return life


def _read(path: str) -> Identity:
    text = read_private(path, path)
    try:
        table = json.loads(text)
        pair = KeyPair(str(table["pair"]["key"]), str(table["pair"]["certificate"]))
        return Identity(str(table["identity"]), pair, int(table["life"]))
    except (KeyError, TypeError, ValueError):
        raise DispyError(
            f"{path} is damaged: it says who this scheduler is. Remove it, and nodes take the "
            f"scheduler for another one: what they have of its jobs is lost"
        ) from None


def _new() -> Identity:
    from dispy.net.tls import own_pair  # late: only the first start makes one

    return Identity(os.urandom(16).hex(), own_pair(), 0)
