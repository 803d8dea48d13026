"""dispy: turn any set of machines into a compute cluster."""

from typing import Any

__version__ = "5.0.0"

_HOMES = {
    "JobCluster": "dispy.client.cluster",
    "SharedJobCluster": "dispy.client.shared",
    "ClusterStatus": "dispy.client.cluster",
    "as_completed": "dispy.client.cluster",
    "DispyJob": "dispy.client.job",
    "JobFailed": "dispy.client.job",
    "RemoteTraceback": "dispy.client.job",
    "DispyNode": "dispy.client.nodes",
    "DispyNodeAvailInfo": "dispy.client.nodes",
    "NodeAllocate": "dispy.client.nodes",
    "DispyError": "dispy.model.errors",
    "JobTimeout": "dispy.model.errors",
    "recover_jobs": "dispy.client.recovering",
}
__all__ = [*_HOMES, "config", "logger"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `import dispy` itself costs little."""
    import importlib

    if name == "config":
        return importlib.import_module("dispy.config")
    if name == "logger":
        return importlib.import_module("dispy.client.speaking").LOGGER
    if name not in _HOMES:
        raise AttributeError(f"module 'dispy' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
