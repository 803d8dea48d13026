"""Asking a user's `NodeAllocate` how much of a node to use, whichever dispy it was written for."""

from collections.abc import Callable
from typing import Any

from dispy.client.nodes import DispyNodeAvailInfo, NodeAllocate
from dispy.system.spare import measure

FEWEST = 4  # arguments that an override has: cluster, ip_addr, name, cpus


def ask_allocation(allocation: NodeAllocate, cluster: Any, node: Any) -> int | None:
    """Return what `allocate` says, called with as many arguments as it takes."""
    if allocation.is_default:
        return allocation.allocate(cluster, node.ip_addr, node.name, node.cpus)
    spare = available(node) if node.port else _available_here()
    arguments = (cluster, node.ip_addr, node.name, node.cpus, spare, node.hello.platform)
    allocate: Callable[..., int | None] = allocation.allocate
    return allocate(*arguments[: _accepted(allocate, arguments)])


def available(node: Any) -> DispyNodeAvailInfo | None:
    """Return what a node has said that it has to spare; None where it could not say."""
    said = node.available
    return DispyNodeAvailInfo(*said) if isinstance(said, tuple) else None


def _available_here() -> DispyNodeAvailInfo | None:
    """Return it for the local node, which is asked before it has had time to look."""
    import tempfile  # 4 ms; most programs have no `allocate` that asks

    found = measure(tempfile.gettempdir())
    return DispyNodeAvailInfo(*found) if isinstance(found, tuple) else None


def _accepted(function: Any, arguments: tuple[Any, ...]) -> int:
    """Return how many of these arguments a user's method can be called with."""
    import inspect  # 4 ms that most programs need not wait for

    try:
        signature = inspect.signature(function)
    except ValueError:
        return FEWEST  # written in C, without a signature
    for count in range(len(arguments), FEWEST, -1):
        try:
            signature.bind(*arguments[:count])
        except TypeError:
            continue
        return count
    return FEWEST
