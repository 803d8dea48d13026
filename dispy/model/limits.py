"""What a job may use, as it travels: for a whole cluster with OPEN, for one job with RUN.

A table with some of the keys below, of types that msgpack knows. What came from a peer is
checked here before anybody counts with it.
"""

from collections.abc import Mapping
from typing import Any

from dispy.model.errors import DispyError

# Its node watches over these, which takes a worker that has one job at a time.
WATCHED = frozenset({"timeout", "cpu_time", "memory"})
NICE_MOST = 19
ATTEMPT_VARIABLE = "DISPY_ATTEMPT"  # tells a job how often it was begun, this time included
GRACE_SECONDS = 5.0

_NUMBERS = {
    "timeout": "seconds", "cpu_time": "seconds", "grace": "seconds", "memory": "bytes",
    "nice": "steps", "jobs_per_worker": "jobs", "worker_growth": "bytes",
}  # fmt: skip


def check_limits(table: Any) -> dict[str, Any]:
    """Return the limits in a table that a peer sent, which may have other keys too.

    Raises DispyError for what cannot be one. A limit of 0 is none: it takes back, for one job,
    what was said for all.
    """
    limits: dict[str, Any] = {}
    if table is None:
        return limits
    if not isinstance(table, dict):
        raise DispyError(f"limits are a table, not {table!r:.100}")
    for name, unit in _NUMBERS.items():
        value = table.get(name)
        if value is None:
            continue
        if type(value) not in (int, float) or not 0 <= value < 2**62:
            raise DispyError(f"{name} is a number of {unit}, not {value!r:.100}")
        limits[name] = value
    if table.get("env") is not None:
        limits["env"] = check_environment(table["env"], "env")
    return limits


def check_environment(value: Any, source: str) -> dict[str, str]:
    """Return variables for jobs as they travel; numbers become text. Raises DispyError."""
    if not isinstance(value, Mapping):
        raise DispyError(f"{source}: a table of variables and their values, not {value!r:.100}")
    environment = {}
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise DispyError(f"{source}: {name!r:.100} cannot be the name of a variable")
        if isinstance(text, bool) or not isinstance(text, (str, int, float)) or "\0" in str(text):
            raise DispyError(f"{source}: {name:.100} is a text or a number, not {text!r:.100}")
        environment[name] = str(text)
    return environment


def limits_of_job(cluster: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what holds for one job: its own limits, and its cluster's where it has none."""
    return {**cluster, **{name: job[name] for name in job.keys() & _NUMBERS.keys()}}
