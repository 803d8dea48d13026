"""How this program starts itself again in another role, from source, installed, or frozen."""

import os
import sys
from collections.abc import Mapping

_MAIN = os.path.join(os.path.dirname(os.path.dirname(__file__)), "__main__.py")


def is_frozen() -> bool:
    """Say whether this is the single executable, which has no Python beside it."""
    return bool(getattr(sys, "frozen", False))


def own_command(*arguments: str) -> list[str]:
    """Return the command line that runs `dispy ARGUMENTS` with this very installation."""
    if is_frozen():
        return [sys.executable, *arguments]
    return [sys.executable, _MAIN, *arguments]


def own_environment(said: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment in which `own_command` runs: `said`, else that of this process.

    A frozen process finds its libraries by LD_LIBRARY_PATH, which `dispy.system.frozen` takes
    out of `os.environ`, because a user's program must not find them.
    """
    environment = dict(os.environ if said is None else said)
    if is_frozen():
        before = environment.get("LD_LIBRARY_PATH")
        ours: str = sys._MEIPASS  # type: ignore[attr-defined]
        environment["LD_LIBRARY_PATH"] = ours if before is None else f"{ours}:{before}"
        if before is not None:
            environment["LD_LIBRARY_PATH_ORIG"] = before
    return environment
