"""Child processes of programs whose own tools for that may be patched by gevent."""

import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Any

KEPT_DESCRIPTOR = 3  # as which a process started by `start_beside` finds its descriptor


class Beside:
    """A child process in a session of its own, for programs whose own tools are patched.

    gevent replaces what `subprocess` and `os.waitpid` are made of; these calls it leaves alone.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = False

    def has_ended(self) -> bool:
        """Say whether it has ended, and reap it."""
        if not self._ended:
            try:
                self._ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG) is not None
            except ChildProcessError:
                self._ended = True  # somebody in this program reaps every child
        return self._ended

    def kill(self) -> None:
        """End it by force."""
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)


def start_beside(command: Sequence[str], descriptor: int, environment: dict[str, str]) -> Beside:
    """Start a program that finds `descriptor` as KEPT_DESCRIPTOR, and nothing to read.

    A terminal's Ctrl-C does not reach it. Raises OSError.
    """
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_DUP2, descriptor, KEPT_DESCRIPTOR),
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
    ]
    actions += [(os.POSIX_SPAWN_CLOSE, other) for other in _inheritable() if other != descriptor]
    return Beside(
        os.posix_spawn(command[0], list(command), environment, file_actions=actions, setsid=True)
    )


def _inheritable() -> list[int]:
    """Return this program's own descriptors that a child would keep open behind its back."""
    found = []
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # that of the directory itself, closed by now
            if int(name) > KEPT_DESCRIPTOR and os.get_inheritable(int(name)):
                found.append(int(name))
    return found
