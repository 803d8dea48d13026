"""What nodes get that run another Python than this program: code with its source text.

Made when the first such node is met, on the hub; a program without such nodes pays nothing.
What was packed before is taken as it is and completed, so all nodes get the same state.
"""

from typing import TYPE_CHECKING, Any

from dispy.model.errors import DispyError
from dispy.protocol.messages import Payload
from dispy.shipping.bundle import read_bundle
from dispy.shipping.payloads import CHUNK, is_items, this_python
from dispy.shipping.translating import CannotTranslate, expect_others, refusal, translate

if TYPE_CHECKING:
    from dispy.scheduler.nodes import RemoteNode


class OtherPythons:
    """Translates the code of computations, once each, and calls; never loads them."""

    def __init__(self) -> None:
        self._contents: dict[int, bytes] = {}  # by cluster

    def opening(
        self, node: "RemoteNode", cluster_id: int, settings: dict[str, Any], content: bytes
    ) -> tuple[dict[str, Any], bytes]:
        """Return a computation's settings and its bundle, with source.

        Raises DispyError that names what has none.
        """
        try:
            if cluster_id not in self._contents:
                expect_others()
                self._contents[cluster_id] = read_bundle(content).translated().packed()
            if "setup_args" in settings:
                settings = {**settings, "setup_args": translate(settings["setup_args"])}
        except CannotTranslate as error:
            raise DispyError(_why(str(error), node)) from None
        return {**settings, "source": True}, self._contents[cluster_id]

    def forget(self, cluster_id: int) -> None:
        """Drop what was kept for a cluster."""
        self._contents.pop(cluster_id, None)

    def payload(self, name: str, node: "RemoteNode", payload: Payload) -> Payload:
        """Return a call of the computation `name` that the node can load.

        What cannot be translated is replaced by its reason, with which the job then ends.
        """
        head = CHUNK if is_items(payload) else b""
        try:
            return translate(payload, skip=len(head))
        except CannotTranslate as error:
            why = _why(f"a call of {name} cannot be sent to node {node.name}: {error}", node)
            return refusal(why, head)


def _why(reason: str, node: "RemoteNode") -> str:
    ours = this_python()
    return (
        f"{reason}. Code goes to another Python as source text, and node {node.name} runs "
        f"{node.python}, this program {ours}: define it in a file, or run the node with {ours}"
    )
