"""Settings for every test: no test depends on a wall-clock speed, or on who else is there."""

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "dispy", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("dispy")

os.environ["DISPY_BROADCAST"] = "0"  # tests stay inside this machine; tests/netns has its own net

# Whoever runs the tests may have a secret, or settings, that would count in them.
os.environ["XDG_CONFIG_HOME"] = "/nonexistent"

# Containers often say so; each of the thousands of processes would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell has its background jobs ignore Ctrl-C, and every program that a test starts would too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer the tests of `JobCluster` for `SharedJobCluster` (system/shared_run.py)."""
    parser.addoption(
        "--shared", choices=("most", "all"), help="run tests of JobCluster with SharedJobCluster"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--shared`, leave out what is not for both classes."""
    if not config.getoption("--shared") or collection_path.suffix != ".py":
        return None
    from system.shared_run import is_left_out

    return is_left_out(str(collection_path)) or None


def pytest_configure(config: pytest.Config) -> None:
    """With `--shared`, exchange the class before tests are imported."""
    if config.getoption("--shared"):
        from system.shared_run import share

        share()
