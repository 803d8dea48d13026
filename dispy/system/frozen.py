"""What the single executable must do at its start that an installation need not.

PyInstaller's one file is two processes. The outer one unpacks everything into a directory of
its own, starts the inner one, which is dispy, hands signals on to it, and removes the
directory when it has ended. Workers are further processes of the inner one and use the same
directory. Whichever of the two is killed, no process and no directory must be left:

- the inner one killed: its children die with it, and the outer one removes the directory;
- the outer one killed: the inner one is interrupted, ends as it does by Ctrl-C, and removes
  the directory itself;
- both killed: the next dispy that starts on this machine removes the directory.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, time
from types import FrameType

from dispy.system.interpreter import own_environment
from dispy.system.processes import die_with_parent

LOCK = "dispy.lock"  # a file that the build puts into the directory; the inner process locks it
UNPACKING_SECONDS = 60.0  # a directory as young as this may be unlocked because it is not ready
SAME_INTERRUPT_SECONDS = 0.3  # a terminal sends Ctrl-C to both processes, and one hands it on

_kept: list[int] = []  # the descriptor of the lock, for the life of this process


def begin() -> None:
    """Make this frozen process ready; call it once, before anything else of dispy runs."""
    unpacked = Path(sys._MEIPASS)  # type: ignore[attr-defined]
    if not os.environ.get("LD_LIBRARY_PATH", "").startswith(str(unpacked)):
        # Started by a user's code, with the environment as that sees it.
        os.execve(sys.executable, [sys.executable, *sys.argv[1:]], own_environment())
    _restore_environment()
    _serve_multiprocessing()
    if not unpacked.name.startswith("_MEI"):
        return  # a directory that is there to stay, and one process
    outer = int(unpacked.name[4:12], 16)
    if os.getppid() == outer:
        _guard(unpacked, outer)
        for left in abandoned(unpacked.parent, time() - UNPACKING_SECONDS):
            shutil.rmtree(left, ignore_errors=True)


def abandoned(parent: Path, before: float) -> list[Path]:
    """Return the directories of dispy's own in `parent` that no living process uses.

    Only those of this user, unpacked before the given second since the epoch.
    """
    found = []
    for directory in parent.glob("_MEI*"):
        with contextlib.suppress(OSError):
            status = directory.lstat()
            if status.st_uid != os.geteuid() or status.st_mtime > before:
                continue
            lock = os.open(directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found.append(directory)
            finally:
                os.close(lock)
    return found


def let_others_read() -> None:
    """Let other users run what this executable has unpacked, which is its owner's alone.

    Nothing in it is a secret. Only the owner may change it, as before.
    """
    for directory, _, files in os.walk(sys._MEIPASS):  # type: ignore[attr-defined]
        os.chmod(directory, 0o755)
        for name in files:
            os.chmod(os.path.join(directory, name), 0o755)


def _restore_environment() -> None:
    """Give programs that jobs start the user's libraries; the loader has read its path already."""
    before = os.environ.pop("LD_LIBRARY_PATH_ORIG", None)
    del os.environ["LD_LIBRARY_PATH"]
    if before is not None:
        os.environ["LD_LIBRARY_PATH"] = before


def _serve_multiprocessing() -> None:
    """Be the helper process that `multiprocessing` in a job wants `sys.executable` to be."""
    if {"-c", "--multiprocessing-fork"} & set(sys.argv[1:]) and sys.argv[1].startswith("-"):
        import multiprocessing

        multiprocessing.freeze_support()  # exits, if this is such a helper


def _guard(unpacked: Path, outer: int) -> None:
    """Lock the directory, end when the outer process does, and count a Ctrl-C once."""
    _kept.append(os.open(unpacked / LOCK, os.O_RDONLY | os.O_CLOEXEC))
    fcntl.flock(_kept[0], fcntl.LOCK_SH)
    inner = os.getpid()

    def remove_if_alone() -> None:
        if os.getpid() == inner and os.getppid() != outer:
            shutil.rmtree(unpacked, ignore_errors=True)

    atexit.register(remove_if_alone)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupted_once())
        die_with_parent(outer, signal.SIGINT)
    else:  # ignored, as a shell script has it for what it puts into the background
        die_with_parent(outer, signal.SIGTERM)


def _interrupted_once() -> Callable[[int, FrameType | None], None]:
    last = -SAME_INTERRUPT_SECONDS

    def interrupted(number: int, frame: FrameType | None) -> None:
        nonlocal last
        before, last = last, monotonic()
        if last - before > SAME_INTERRUPT_SECONDS:
            signal.default_int_handler(number, frame)

    return interrupted
