"""`dispy_send_file`: hands an open file to the node and waits until the job's owner has it.

The answer comes on a socket of its own, not on the worker's channel: any thread of a job may
wait here, and the channel's one reader is busy with the job.
"""

import os
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dispy.protocol.messages import Kind, check
from dispy.worker.channel import Channel, EndOfChannel

# Sends a FILE of this body, with these descriptors, to the node.
Send = Callable[[list[Any], Sequence[int]], None]


def send_file(send: Send, job: int, path: str | os.PathLike[str], timeout: float | None) -> int:
    """Return 0 when the file is with the job's owner, whole; else -1, and tell why on stderr.

    `timeout`: seconds without progress after which it is given up; None: never.
    """
    try:
        why = _try(send, job, os.fspath(path), timeout)
    except (OSError, EndOfChannel) as error:
        why = getattr(error, "strerror", None) or str(error)
    if why is None:
        return 0
    if sys.stderr is not None:
        sys.stderr.write(f"dispy_send_file: {os.fspath(path)!r} is not sent: {why}\n")
    return -1


def _try(send: Send, job: int, path: str, timeout: float | None) -> str | None:
    # A pipe without a writer would hold up whoever opens it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return "it is no regular file"
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                table = {"name": os.fsencode(name_below(path, os.getcwd()))}
                send([job, table], [file.fileno(), theirs.fileno()])
            answers = Channel(ours)
            ours.settimeout(timeout)
            try:
                while (frame := check(answers.receive())).kind != Kind.TAKEN:
                    pass  # a sign of progress
            except EndOfChannel as error:
                if isinstance(error.__context__, TimeoutError):
                    return f"nothing has moved for {timeout:g} seconds"
                raise
    why: str | None = frame.body[0]
    return why


def name_below(path: str, directory: str) -> str:
    """Return a path relative to `directory`, where it is below that; else its last part."""
    place = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    relative = os.path.relpath(place, os.path.realpath(directory))
    return os.path.basename(path) if relative.startswith(os.pardir) else relative
