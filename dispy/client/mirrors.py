"""What stands in a program for what a shared scheduler has: its nodes, and parts of itself."""

from collections.abc import Mapping
from typing import Any

from dispy.protocol.frames import FrameRefused
from dispy.protocol.handshake import Hello
from dispy.scheduler.nodes import RemoteNode


def node_of(node_id: str, table: Mapping[str, Any]) -> RemoteNode:
    """Return the record of a node that a scheduler tells of; raises FrameRefused."""
    texts = ("name", "ip_addr", "python", "implementation", "platform", "version", "identity")
    said = {name: str(table.get(name, "")) for name in texts}
    if not all(text.isprintable() for text in said.values()):
        raise FrameRefused("NODE has texts that cannot be printed")
    port, cpus = table.get("port"), table.get("cpus")
    if type(port) is not int or type(cpus) is not int:
        raise FrameRefused("NODE has no port, or no number of processors")
    hello = Hello(
        "node", said["identity"], said["name"], version=said["version"], python=said["python"],
        implementation=said["implementation"], platform=said["platform"],
    )  # fmt: skip
    node = RemoteNode(node_id, said["name"], said["ip_addr"], port, cpus, hello, None, cpus)
    node.take_available(table.get("available"))
    return node


class NoClosings:
    """What a session asks of an embedded scheduler about computations that are being closed."""

    def __init__(self) -> None:
        self.forgiven: set[tuple[int, str]] = set()  # clusters and nodes, to be said with ALLOT

    def forgive(self, node: RemoteNode, cluster_id: int) -> None:
        """Let a cluster try a node again that has failed it."""
        self.forgiven.add((cluster_id, node.node_id))

    def waits_for(self, cluster_id: int) -> list[str]:
        """Return no nodes: it is not known here which they are."""
        return []


class NoKeepers:
    """No node is dialled from here."""

    unreachable: Mapping[tuple[str, int], str] = {}
