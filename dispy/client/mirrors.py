"""What stands in a program for what a shared scheduler has: its nodes, and parts of itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dispy.protocol.frames import Buffer, FrameRefused
from dispy.protocol.handshake import Hello
from dispy.scheduler.nodes import RemoteNode

Speak = Callable[[int, list[Any]], None]


class MirroredNode(RemoteNode):
    """A node of a shared scheduler, through which it is spoken to."""

    __slots__ = ("speak",)
    speak: Speak

    def tell(self, kind: int, body: list[Any], buffers: Sequence[Buffer] = ()) -> None:
        """Send something for it to the scheduler; nothing while that is not there."""
        assert not buffers, "a client has none for nodes"
        self.speak(kind, body)


def node_of(node_id: str, table: Mapping[str, Any], speak: Speak) -> RemoteNode:
    """Return the record of a node that a scheduler tells of; raises FrameRefused.

    speak: says something to the scheduler.
    """
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
    node = MirroredNode(node_id, said["name"], said["ip_addr"], port, cpus, hello, None, cpus)
    node.speak = speak
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
