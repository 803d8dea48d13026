"""What processes of another user, or in a sandbox, write to the node's log: through a pipe.

A terminal of root's that they held open they could read from, and a file they could empty.
"""

import contextlib
import os

import gevent
from gevent.os import nb_read

READ_BYTES = 64 * 1024
END_SECONDS = 1.0  # that the last lines may take to come, once all who write should have ended


class JobLog:
    """A pipe into this process's standard error; `descriptor` is the end to write to."""

    def __init__(self) -> None:
        """Raises OSError where no descriptors are left."""
        self._reading, self.descriptor = os.pipe()
        os.set_blocking(self._reading, False)
        self._greenlet = gevent.spawn(self._copy)

    def _copy(self) -> None:
        while text := nb_read(self._reading, READ_BYTES):
            rest = memoryview(text)
            with contextlib.suppress(OSError):  # nobody reads the log
                while rest:
                    rest = rest[os.write(2, rest) :]

    def stop(self) -> None:
        """End it; what was written by then is in the log."""
        os.close(self.descriptor)
        self._greenlet.join(timeout=END_SECONDS)  # somebody of that user may hold it for longer
        self._greenlet.kill()
        os.close(self._reading)
