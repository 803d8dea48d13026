"""Machines in real trouble: little memory, few processes, small disks. For root, and for Linux."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

GROUPS = Path("/sys/fs/cgroup")
# `ip netns exec` hides the groups that are mounted outside of it. What is mounted here goes with
# the processes that see it.
_ENTER = """
echo $$ > "$0" || exit 1
[ -d /sys/fs/cgroup/KIND ] || {
    mount -t tmpfs none /sys/fs/cgroup && mkdir /sys/fs/cgroup/KIND &&
    mount -t cgroup -o KIND none /sys/fs/cgroup/KIND
} || exit 1
exec "$@"
"""


class Group:
    """A control group (version 1) of its own; `under` starts a process in it."""

    def __init__(self, kind: str, path: Path) -> None:
        self.path = path
        script, processes = _ENTER.replace("KIND", kind), str(path / "cgroup.procs")
        self.under = ["unshare", "--mount", "sh", "-c", script, processes]

    def limit(self, **values: int) -> None:
        """Write its files: memory_limit_in_bytes=100 is for memory.limit_in_bytes."""
        for name, value in values.items():
            kind, _, rest = name.partition("_")
            (self.path / f"{kind}.{rest}").write_text(str(value))

    def read(self, name: str) -> str:
        """Return what one of its files says."""
        return (self.path / name).read_text()


@contextlib.contextmanager
def group(kind: str, directory: Path) -> Iterator[Group]:
    """Make a control group of the kind "memory" or "pids"; skip the test where that cannot be.

    directory: an empty one, in case such groups have to be mounted.
    """
    with _mounted(kind, directory) as groups:
        path = groups / f"dispy-test-{os.getpid()}-{time.monotonic_ns()}"
        try:
            path.mkdir()
        except OSError as error:
            pytest.skip(f"no control group (version 1) of {kind} can be made here: {error}")
        try:
            yield Group(kind, path)
        finally:
            _remove(path)


@contextlib.contextmanager
def _mounted(kind: str, directory: Path) -> Iterator[Path]:
    if (GROUPS / kind).is_dir():
        yield GROUPS / kind
        return
    command = ["mount", "-t", "cgroup", "-o", kind, "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"control groups (version 1) of {kind} cannot be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def _remove(path: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return path.rmdir()
        except OSError:  # a process of it is not quite gone, or the test has failed
            for pid in (path / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def on_small_disk(directory: Path, size: str) -> list[str]:
    """Return a command that runs a node whose `directory` is a disk of its own, so large.

    Where it lies for others: `seen_by`.
    """
    if os.geteuid() != 0:
        pytest.skip("a disk can be mounted by root alone")
    script = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(directory)]


def seen_by(pid: int, path: Path) -> Path:
    """Return where a process sees a path."""
    return Path(f"/proc/{pid}/root{path}")


def fill(directory: Path) -> Path:
    """Write a file until the disk is full; return its path."""
    path = directory / "filling"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return path
