"""Nodes and jobs of other users than the one who runs the tests, who must be root for that."""

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534
SITE_PACKAGES = str(Path(pytest.__file__).parent.parent)
ROOT = str(Path(__file__).parent.parent.parent)

needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


def python_for_all() -> tuple[str, dict[str, str]]:
    """Return a Python of our version that other users may run, and variables that it needs."""
    python = _python_for_all()
    if python is None:
        pytest.skip("no Python of our version that other users may run")
    return python, {"PYTHONPATH": os.pathsep.join([ROOT, SITE_PACKAGES])}


@functools.cache
def _python_for_all() -> str | None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    environment = {"PYTHONPATH": os.pathsep.join([ROOT, SITE_PACKAGES])}
    code = "import sys, dispy.node.service; sys.exit(not sys.version.startswith(sys.argv[1] + '.'))"
    # setpriv itself may still execute what the user may not.
    again = "import os, sys; os.execv(sys.executable, [sys.executable, '-c', *sys.argv[1:]])"
    for python in (sys.executable, f"/usr/bin/python{version}", f"/usr/local/bin/python{version}"):
        tried = subprocess.run(
            ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
             python, "-c", again, code, version],
            env={**os.environ, **environment}, cwd="/", capture_output=True,
        )  # fmt: skip
        if tried.returncode == 0:
            return python
    return None


@contextlib.contextmanager
def open_to_others() -> Iterator[Path]:
    """Make a directory that other users may look into; pytest's own are closed."""
    directory = Path(tempfile.mkdtemp(prefix="dispy-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Return a directory that other users may look into."""
    with open_to_others() as directory:
        yield directory


def as_user(directory: Path, python: str, user: int) -> str:
    """Return the path of what runs a Python as a user of this number, who need not exist."""
    path = directory / f"python-of-{user}"
    path.write_text(
        f'#!/bin/sh\nexec setpriv --reuid={user} --regid={user} --clear-groups {python} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


def as_nobody(directory: Path, python: str) -> str:
    """Return the path of what runs a Python as the user nobody."""
    return as_user(directory, python, NOBODY)
