"""How people name what a scheduler has: clusters `3.1` or `compute`, jobs `3.1:17`, nodes.

The number of a cluster is that of its client and the one that the client counts with; a job's is
the one that its client counts with, which is its `id` there unless the program has set another.
"""

import difflib
from collections.abc import Iterable, Mapping

from dispy.model.errors import DispyError
from dispy.scheduler.client import SLOT_BITS, number_there
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduling.records import Cluster

COMPARED = 1000  # names with one that is not known: 20 ms
TOLD = 10  # names in an answer that lists them


def name_of_cluster(cluster_id: int) -> str:
    """Return the number of a cluster as people see it."""
    return f"{cluster_id >> SLOT_BITS}.{number_there(cluster_id)}"


def find_cluster(text: str, clusters: Mapping[int, Cluster]) -> Cluster:
    """Return the cluster of this number or name; raises DispyError: none, or several."""
    number = _cluster_number(text)
    if number is not None and number in clusters:
        return clusters[number]
    found = [cluster for cluster in clusters.values() if cluster.name == text]
    if len(found) == 1:
        return found[0]
    if found:
        told = _some(f"{name_of_cluster(c.cluster_id)} ({c.owner or 'unknown'})" for c in found)
        raise DispyError(f"{len(found)} clusters are called {text}; say which by number: {told}")
    raise DispyError(f"no cluster {text!r}{_near(text, (c.name for c in clusters.values()))}")


def find_job(text: str, clusters: Mapping[int, Cluster]) -> tuple[Cluster, int]:
    """Return the job that `CLUSTER:NUMBER` names, and its cluster; raises DispyError."""
    name, colon, number = text.rpartition(":")
    if not (name and colon and number.isascii() and number.isdecimal()):
        raise DispyError(f"a job is named as CLUSTER:NUMBER, as in 3.1:17, not {text!r}")
    cluster = find_cluster(name, clusters)
    if len(number) > 12:  # more digits than SLOT_BITS have
        raise DispyError(f"there is no job {text}")
    return cluster, (cluster.cluster_id >> SLOT_BITS) << SLOT_BITS | int(number)


def find_node(text: str, nodes: Iterable[RemoteNode]) -> RemoteNode:
    """Return the node of this name, address, address:port or id; raises DispyError."""
    nodes = list(nodes)
    for names in (_by_place, _by_address, _by_name):
        found = [node for node in nodes if text and text in names(node)]
        if len(found) == 1:
            return found[0]
        if found:
            told = _some(f"{node.ip_addr}:{node.port}" for node in found)
            raise DispyError(f"{len(found)} nodes are called {text}; say which: {told}")
    raise DispyError(f"no node {text!r}{_near(text, (node.name for node in nodes))}")


def _by_place(node: RemoteNode) -> tuple[str, ...]:
    return node.node_id, f"{node.ip_addr}:{node.port}"


def _by_address(node: RemoteNode) -> tuple[str, ...]:
    return (node.ip_addr,)


def _by_name(node: RemoteNode) -> tuple[str, ...]:
    return (node.name,)


def _cluster_number(text: str) -> int | None:
    slot, point, number = text.partition(".")
    if not (point and text.isascii() and slot.isdecimal() and number.isdecimal()):
        return None
    if len(slot) > 12 or len(number) > 12:
        return None
    return int(slot) << SLOT_BITS | int(number)


def _near(text: str, names: Iterable[str]) -> str:
    known = list(dict.fromkeys(names))[:COMPARED]
    near = difflib.get_close_matches(text, known, n=3)
    if near:
        return f"; is it {' or '.join(near)}?"
    return f"; there are {_some(known)}" if known else "; there are none"


def _some(names: Iterable[str]) -> str:
    all_names = list(names)
    more = f" and {len(all_names) - TOLD} more" if len(all_names) > TOLD else ""
    return ", ".join(all_names[:TOLD]) + more
