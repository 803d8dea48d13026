"""What a machine may be out of for a while: descriptors, processes, memory, room on a disk."""

import errno
import os

from dispy.system.descriptors import descriptor_limit

RESERVED_PART, RESERVED_MOST = 4, 64  # descriptors that are kept for connections and files

_ADVICE = {
    errno.EMFILE: "raise `ulimit -n` of the node",
    errno.ENFILE: "the machine has too many, see fs.file-max",
    errno.EAGAIN: "there are too many processes, see `ulimit -u` and limits of its control group",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
}
_PASSING = frozenset({*_ADVICE, errno.ENOMEM, errno.ENOBUFS})


def is_shortage(error: OSError) -> bool:
    """Say whether what has failed may well work later."""
    return error.errno in _PASSING


def tell_shortage(error: OSError) -> str:
    """Say what failed, and what can be done about it."""
    said = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0)
    return said if advice is None else f"{said} ({advice})"


def keep_descriptors(newest: int) -> None:
    """Raise OSError where the number of a descriptor just made says that few are left.

    The system gives the lowest one that is free: so all below are in use.
    """
    limit = descriptor_limit()
    if limit is not None and newest >= limit - min(RESERVED_MOST, limit // RESERVED_PART):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
