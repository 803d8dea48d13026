"""The sandbox of a computation: what its processes see, by the command line of bubblewrap.

It has user, mount, pid, IPC, host name and, unless told otherwise, network namespaces of its own.
Its processes see the system's programs and our own, read-only, a /tmp and a home directory that
are empty and theirs alone, the contents that they can name, and their own working directory.
A node that cannot make it does not start.
"""

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dispy.model.errors import DispyError
from dispy.node.confinement import Confinement
from dispy.system import bubblewrap
from dispy.system.beneath import Beneath
from dispy.system.interpreter import own_places

_ENCLOSED = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try",
    "--die-with-parent", "--cap-drop", "ALL",
)  # fmt: skip
# Where the node's user keeps temporary files is not there.
_UNSET = ("TMPDIR", "TEMP", "TMP")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What all computations of a node have in common; pure but for `open`."""

    program: str  # the path of bubblewrap
    root: str  # the node's own directory, in which the working directories lie
    store: str  # the directory with contents by digest
    system: Sequence[str]  # words that show the system
    kernel: Sequence[str]
    home: str = ""  # a path at which there is an empty directory; empty: none
    shares_network: bool = False
    nests: bool = False  # its processes can make user namespaces of their own
    readable: Sequence[str] = ()  # what else is seen
    writable: Sequence[str] = ()

    def words(self, directory: str, descriptor: int) -> list[str]:
        """Return the command line that a command is appended to.

        `descriptor`: of the working directory, which only the outer process gets. By its name
        another computation might have led us elsewhere meanwhile.
        """
        home = ["--tmpfs", self.home] if self.home else []
        return [
            self.program, *_ENCLOSED,
            *([] if self.shares_network else ["--unshare-net"]),
            *([] if self.nests else ["--disable-userns"]),
            *self.system, *self.kernel,
            "--dev", "/dev", "--tmpfs", "/dev/shm",
            "--tmpfs", "/tmp", "--symlink", "/tmp", "/var/tmp", *home,
            *self._shown(),
            "--ro-bind", self.store, self.store,
            "--bind-fd", str(descriptor), directory,
            "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", directory,
            *(word for name in _UNSET for word in ("--unsetenv", name)),
            "--",
        ]  # fmt: skip

    def _shown(self) -> list[str]:
        """Show what lies inside of something else after that."""
        ways = dict.fromkeys(self.readable, "--ro-bind") | dict.fromkeys(self.writable, "--bind")
        words = []
        for path in sorted(ways, key=lambda path: path.count("/")):
            way = "--dev-bind" if path.startswith("/dev/") else ways[path]
            words += [way, path, path]
        return words

    def open(self, directory: Path) -> int:
        """Return a descriptor of a working directory; raises DispyError and OSError."""
        root = Beneath.of(Path(self.root))
        try:
            with root.below(*directory.relative_to(self.root).parts).opened() as descriptor:
                return os.dup(descriptor)
        finally:
            os.close(root.root)

    @property
    def told(self) -> str:
        """What people should know of it."""
        network = "the machine's network" if self.shares_network else "no network"
        nests = (
            f"; they can make user namespaces of their own, which {self.program} is too old to "
            f"forbid (0.8 does), so more of the kernel is open to them"
        )
        return f"jobs run in a sandbox, with {network}{nests if self.nests else ''}"


def in_sandbox(
    confinement: Confinement, settings: Mapping[str, Any], root: Path, hidden: Iterable[str]
) -> Confinement:
    """Return a confinement with the sandbox that the settings of its node ask for.

    root: the node's directory. hidden: files that no job may see. Raises DispyError where it
    would show them, or cannot be made; whether it can is to be tried.
    """
    source = settings["sandbox"].source
    program = bubblewrap.find()
    if program is None:
        raise DispyError(
            f"{source}: a sandbox takes bubblewrap, on Linux, and there is no program bwrap on "
            f"PATH: apt-get install bubblewrap, or dnf install bubblewrap"
        )
    if settings["new_privileges"].value:
        raise DispyError(
            f"{source}: in a sandbox no program gains privileges; leave out "
            f"{settings['new_privileges'].source} (node.new_privileges)"
        )
    readable = [*own_places(confinement.environment), *_paths(settings["sandbox_paths"])]
    writable = _paths(settings["sandbox_writable"])
    home = confinement.environment.get("HOME", "")
    sandbox = Sandbox(
        program, str(root), str(root / "store"), bubblewrap.of_system(), bubblewrap.of_kernel(),
        home=home if os.path.isabs(home) and home != "/" and not bubblewrap.is_system(home) else "",
        shares_network=settings["sandbox_network"].value,
        nests=not bubblewrap.knows(program, "--disable-userns"),
        readable=[path for path in readable if not bubblewrap.is_system(path)],
        writable=writable,
    )  # fmt: skip
    _check_hidden(sandbox, [str(root), *hidden])
    return replace(confinement, sandbox=sandbox)


def _paths(setting: Any) -> list[str]:
    """Return the paths that a setting names; raises DispyError for one that is not there."""
    found = []
    for pattern in filter(None, (setting.value or "").split(":")):
        if not os.path.isabs(pattern):
            raise DispyError(f"{setting.source}: {pattern!r} does not begin with /")
        paths = sorted(glob.glob(pattern))
        if not paths:
            raise DispyError(f"{setting.source}: {pattern} is not there")
        found += [path.rstrip("/") for path in paths]
    return found


def _check_hidden(sandbox: Sandbox, hidden: Sequence[str]) -> None:
    """Refuse to show jobs what is the node's own; raises DispyError."""
    for path in (*sandbox.readable, *sandbox.writable):
        for secret in hidden:
            if Path(os.path.realpath(secret)).is_relative_to(os.path.realpath(path)):
                raise DispyError(
                    f"the sandbox would show {secret} to jobs, because they are to see {path} "
                    f"(it holds this Python or its modules, or a setting names it). Put one of "
                    f"them somewhere else"
                )
    for secret in hidden:
        if bubblewrap.is_system(os.path.realpath(secret)):
            raise DispyError(
                f"the sandbox would show {secret} to jobs, as it shows all of the system's "
                f"programs. Put it somewhere else"
            )
