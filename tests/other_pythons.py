"""The other Pythons of this machine, with what dispy needs, as `tests/run` has prepared them."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


def interpreter(version: str) -> str:
    """Return the path of a Python of this version; skips the test where there is none."""
    if version == OWN:
        return sys.executable
    path = ROOT / f".venv-{version}" / "bin" / "python"
    if not os.access(path, os.X_OK):
        pytest.skip(
            f"no Python {version} with dispy's dependencies: tests/run prepares .venv-{version} "
            f"where it finds python{version}, or PYTHONS names one"
        )
    return str(path)


def others() -> list[str]:
    """Return the versions that are there besides our own; one that is not where there are none."""
    versions = [version for version in VERSIONS if version != OWN]
    there = [each for each in versions if (ROOT / f".venv-{each}" / "bin" / "python").exists()]
    return there or versions[:1]
