"""Processes that are forked from one which has imported all that they use.

Importing would cost more than all that most nodes and clients do in a run. A `Source` is our end
of such a process, and a `Fork` our end of one that it has forked; `serve` is what it does.
"""

import ctypes
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

LONGEST = 65536  # bytes of an order
NEWS = struct.Struct("i")  # first the id of a process, then the status with which it has ended

_SOCKET, _POLL, _FORK, _WAITPID = socket.socket, select.poll, os.fork, os.waitpid

Order = dict[str, Any]  # what is to be forked; of which `space`: a process of its namespaces


class Fork:
    """A process that is a child of a `Source`: what a Popen is for a child of ours."""

    def __init__(self, news: int) -> None:
        self._news = news
        self._status: int | None = None
        self.pid = self._read()

    def _read(self) -> int:
        told = os.read(self._news, NEWS.size)
        if not told:
            raise RuntimeError("the process that forks has ended")
        number: int = NEWS.unpack(told)[0]
        return number

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status, minus a signal's number; seconds, after which TimeoutExpired."""
        if self._status is None:
            ends = select.poll()
            ends.register(self._news, select.POLLIN)
            if not ends.poll(None if timeout is None else timeout * 1000):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            self._status = self._read()
            os.close(self._news)
        return self._status

    def poll(self) -> int | None:
        """Return its exit status if it has ended."""
        try:
            return self.wait(0.0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Send a signal, if it is there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Tell it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class Source:
    """A process that forks others; any thread may ask it. It ends with us, and they do not."""

    def __init__(self, program: Path, environment: dict[str, str], *arguments: str) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(program), str(theirs.fileno()), *arguments],
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                env={**os.environ, **environment},
            )  # fmt: skip

    def fork(self, order: Order, output: Path) -> Fork:
        """Have it fork; what that says is appended to `output`."""
        ours, theirs = os.pipe()
        file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            socket.send_fds(self._orders, [json.dumps(order).encode()], [theirs, file])
        finally:
            os.close(theirs)
            os.close(file)
        return Fork(ours)

    def end(self) -> None:
        """End it, not those that it has forked."""
        self._orders.close()
        self._process.wait()


def serve(descriptor: int, become: Callable[[Order], int]) -> None:
    """Fork for each order that comes; in what is forked, exit with what `become` returns.

    Whoever has patched this process with gevent has done so after importing this module, and
    without using the hub: what is used here is as it was before.
    """
    gc.freeze()  # or each fork would write to, and so copy, all of this memory
    orders = _SOCKET(fileno=descriptor)
    ends = _POLL()
    ends.register(orders, select.POLLIN)
    children: dict[int, tuple[int, int]] = {}  # by the descriptor that tells of their end
    while True:
        for ready, _ in ends.poll():
            if ready in children:
                ends.unregister(ready)
                pid, news = children.pop(ready)
                _tell(news, os.waitstatus_to_exitcode(_WAITPID(pid, 0)[1]))
                os.close(news)
                os.close(ready)
                continue
            message, files, _, _ = socket.recv_fds(orders, LONGEST, 2)
            if not message:
                return
            news, output = files
            pid = _FORK()
            if pid == 0:
                for unused in (orders.detach(), news, *children):
                    os.close(unused)
                for _, others in children.values():
                    os.close(others)
                sys.exit(_begin(json.loads(message), output, become))
            os.close(output)
            _tell(news, pid)
            watch = os.pidfd_open(pid)
            children[watch] = pid, news
            ends.register(watch, select.POLLIN)


def _tell(news: int, number: int) -> None:
    try:
        os.write(news, NEWS.pack(number))
    except BrokenPipeError:
        return  # nobody waits for it


def _begin(order: Order, output: int, become: Callable[[Order], int]) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    for kind in ("net", "mnt"):
        space = os.open(f"/proc/{order['space']}/ns/{kind}", os.O_RDONLY)
        if library.setns(space, 0):
            raise OSError(ctypes.get_errno(), f"cannot enter {kind} of {order['space']}")
        os.close(space)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    return become(order)
