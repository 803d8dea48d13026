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


def own_places(environment: Mapping[str, str]) -> list[str]:
    """Return the files and directories that `own_command` needs beside those of the system:
    this interpreter, this installation, and what `environment` adds to its modules."""
    if is_frozen():
        return [sys.executable, sys._MEIPASS]  # type: ignore[attr-defined]
    import site

    package = os.path.dirname(os.path.realpath(_MAIN))
    executable = os.path.realpath(sys.executable)
    places = [
        sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix,
        os.path.dirname(os.path.dirname(executable)),
        package, os.path.join(os.path.dirname(package), "dispy_all.py"),
        *filter(os.path.isabs, environment.get("PYTHONPATH", "").split(os.pathsep)),
    ]  # fmt: skip
    if site.ENABLE_USER_SITE:
        places.append(site.getusersitepackages())
    return [place for place in places if os.path.exists(place)]


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
