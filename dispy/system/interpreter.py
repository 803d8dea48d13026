"""How this program starts itself again in another role, from source, installed, or frozen."""

import os
import sys
from pathlib import Path


def is_frozen() -> bool:
    """Say whether this is the single executable, which has no Python beside it."""
    return bool(getattr(sys, "frozen", False))


def own_command(*arguments: str) -> list[str]:
    """Return the command line that runs `dispy ARGUMENTS` with this very installation."""
    if is_frozen():
        return [sys.executable, *arguments]
    return [sys.executable, str(Path(__file__).parent.parent / "__main__.py"), *arguments]


def child_environment() -> dict[str, str]:
    """Return the environment for a user's program: without what a frozen start put there.

    PyInstaller points LD_LIBRARY_PATH into its own files and keeps the former value.
    """
    environment = dict(os.environ)
    if is_frozen():
        before = environment.pop("LD_LIBRARY_PATH_ORIG", None)
        environment.pop("LD_LIBRARY_PATH", None)
        if before is not None:
            environment["LD_LIBRARY_PATH"] = before
    return environment
