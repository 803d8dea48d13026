"""The limits of a cluster's jobs, and of single ones, as their nodes are told."""

from collections.abc import Callable, Mapping
from typing import Any

from dispy.model.settings import SETTINGS

OF_CLUSTER = (
    "timeout", "cpu_time", "memory", "grace", "env", "nice", "jobs_per_worker", "worker_growth",
)  # fmt: skip
OF_JOB = ("timeout", "cpu_time", "memory", "env", "nice")


def limits_of_cluster(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a cluster's settings that its nodes must know as limits."""
    return {name: chosen[name] for name in OF_CLUSTER if chosen[name] is not None}


def check_of_job(name: str) -> Callable[[Any], Any]:
    """Return what checks a job's own limit, which may be what its cluster's may be."""
    setting = SETTINGS[f"client.{name}"]
    return lambda value: setting.check(value, f"dispy_job_{name}")
