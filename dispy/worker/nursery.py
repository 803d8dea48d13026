"""A computation's nursery: loads it once, forks its workers, and tells how each ended."""

import contextlib
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable
from typing import Any

from dispy.shipping.payloads import unpack
from dispy.system.processes import die_with_parent, how_it_ended
from dispy.worker.channel import DIED, FORK, FORKED, LOAD, LOADED, Channel, EndOfChannel
from dispy.worker.jobs import serve


def run_nursery(sock: socket.socket) -> int:
    """Serve a node until it closes `sock`; then end every worker. Returns the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the node's to answer
    die_with_parent(os.getppid())
    wake, waker = socket.socketpair()
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that the descriptor is written to
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    channel, workers = Channel(sock), dict[int, int]()
    function: Callable[..., Any] | None = None
    try:
        while True:
            ready, _, _ = select.select([sock, wake], [], [])
            if wake in ready:
                wake.recv(4096)
                _tell_ended(channel, workers)
            if sock not in ready:
                continue
            frame = channel.receive()
            if frame.kind == LOAD:
                function, error = _load(frame.buffers[0])
                channel.send(LOADED, [error])
            elif frame.kind == FORK:
                assert function is not None, "the node forks only what is loaded"
                _fork(channel, frame.body[0], function, workers, (wake, waker))
    except EndOfChannel:
        return 0
    finally:
        for pid in workers:
            _kill_group(pid)


def _load(packed: bytes) -> tuple[Callable[..., Any] | None, str | None]:
    try:
        return unpack(packed), None
    except BaseException:  # foreign code: imports that the computation makes
        return None, traceback.format_exc()


def _fork(
    channel: Channel,
    worker_id: int,
    function: Callable[..., Any],
    workers: dict[int, int],
    ours: tuple[socket.socket, ...],
) -> None:
    descriptor = channel.descriptors.pop(0)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            die_with_parent(parent)
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for sock in (channel.sock, *ours):
                sock.close()
            serve(Channel(socket.socket(fileno=descriptor)), function)
            status = 0
        finally:
            os._exit(status)  # never back into the nursery's loop, nor its exit handlers
    os.close(descriptor)
    workers[pid] = worker_id
    channel.send(FORKED, [worker_id, pid])


def _tell_ended(channel: Channel, workers: dict[int, int]) -> None:
    while workers:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        worker_id = workers.pop(pid, None)
        if worker_id is not None:
            _kill_group(pid)  # what its job started goes with it
            channel.send(DIED, [worker_id, how_it_ended(status), usage.ru_maxrss])


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody of it is left
        os.killpg(pid, signal.SIGKILL)
