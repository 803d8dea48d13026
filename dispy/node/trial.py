"""Whether jobs can run as a node is told to run them: tried before it offers anything.

Else each computation would fail, in words that its client cannot do anything about.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dispy.model.errors import DispyError
from dispy.node.confinement import Confinement
from dispy.system.frozen import let_others_read
from dispy.system.interpreter import is_frozen
from dispy.system.users import User, closed_to, in_the_hands_of

if TYPE_CHECKING:
    from dispy.node.sandbox import Sandbox

_PACKAGE = os.path.dirname(os.path.dirname(__file__))
TRIAL_SECONDS = 60.0  # on a machine that is busy with something else; 0.1 s on one that is not


def check_rights() -> None:
    """Raise DispyError unless this process may start others as another user, and end them."""
    if not hasattr(os, "geteuid"):
        raise DispyError("jobs cannot run as another user on this system")
    if os.geteuid() != 0:
        raise DispyError(
            "only a node that root has started can run jobs as another user; start it as root, or "
            "as that user, without --run-as"
        )


def check_place(user: User, root: Path) -> None:
    """Raise DispyError where a user of jobs could exchange the node's directory for another."""
    place = in_the_hands_of(user, str(root))
    if place is not None:
        raise DispyError(
            f"cannot use {root} for files: {user.name}, as whom jobs run, may exchange what lies "
            f"in {place}; name a directory of root's by --dest_path_prefix"
        )


def try_out(confinement: Confinement, root: Path) -> None:
    """Start what a nursery is, as its user; raise DispyError that says why it could not work."""
    if is_frozen():
        let_others_read()
    directory = root / f"trial-{os.urandom(4).hex()}"
    directory.mkdir(mode=0o711)
    command, passed = confinement.trial(str(directory)), []
    try:
        if confinement.sandbox is not None:
            passed.append(confinement.sandbox.open(directory))
            # The store is made later; another directory does as well for this.
            tried_inside = replace(confinement.sandbox, store=str(directory))
            command = [*tried_inside.words(str(directory), passed[0]), *command]
        tried = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            timeout=TRIAL_SECONDS, pass_fds=passed, start_new_session=True, **confinement.start,
        )  # fmt: skip
        said = tried.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"it ended with status {tried.returncode}"
        failed = tried.returncode != 0
    except subprocess.TimeoutExpired:
        why, failed = f"it did not end in {TRIAL_SECONDS:g} s", True
    except OSError as error:
        why, failed = f"{error.filename or sys.executable}: {error.strerror or error}", True
    finally:
        for descriptor in passed:
            os.close(descriptor)
        directory.rmdir()
    if failed:
        raise DispyError(_why_not(confinement, root, why))


def _why_not(confinement: Confinement, root: Path, why: str) -> str:
    user, sandbox = confinement.user, confinement.sandbox
    if user is None and sandbox is not None:
        return _no_sandbox(sandbox, why, by_root=os.geteuid() == 0)
    if user is None:
        return f"a process for jobs cannot be started: {why}"
    for path in (sys.executable, _PACKAGE, str(root)):
        closed = closed_to(user, path)
        if closed is not None:
            what = "use another --dest_path_prefix" if path == str(root) else (
                "install dispy where everybody may read it, such as below /opt"
            )  # fmt: skip
            return (
                f"jobs cannot run as {user.name}: to reach {path} they must enter {closed}, which "
                f"is closed to that user. Open it (chmod o+x {closed}), or {what}"
            )
    if sandbox is not None:
        return f"jobs cannot run as {user.name}: {_no_sandbox(sandbox, why, by_root=False)}"
    return f"jobs cannot run as {user.name}: a process of that user failed here: {why}"


def _no_sandbox(sandbox: "Sandbox", why: str, by_root: bool) -> str:
    from dispy.system.bubblewrap import why_not

    reason = why_not(sandbox.program, why, by_root)
    return (
        f"this machine does not let us make the sandbox: {reason}. The node does not start "
        f"without it"
    )
