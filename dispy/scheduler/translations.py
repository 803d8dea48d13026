"""Code of clients for nodes with another Python: their programs translate it, nobody else can.

A program that lets a cluster use such a node says with that order under which digest the cluster's
code with its source text lies, or why there is none; it comes as other contents do. Calls
are translated before they are submitted, so they are for every Python.
"""

from collections.abc import Mapping
from typing import Any

from dispy.model.errors import DispyError
from dispy.net.fetching import is_wanted
from dispy.scheduler.client_contents import ClientContents, Wanted
from dispy.scheduler.nodes import RemoteNode
from dispy.shipping.contents import PIECE_SIZE


class Translations:
    """Of all clusters; on the scheduler's hub."""

    def __init__(self, contents: ClientContents) -> None:
        self._contents = contents
        self._codes: dict[int, bytes] = {}  # of clusters, the digest
        self._refusals: dict[tuple[int, str], str] = {}  # of cluster and node, why there is none

    def note(self, cluster_id: int, node_id: str, said: Mapping[str, Any]) -> Wanted:
        """Take note of what ALLOT says of it, and return what has to come before it counts."""
        code, why = said.get("code"), said.get("untranslated")
        self._refusals.pop((cluster_id, node_id), None)
        if isinstance(why, str):
            self._refusals[cluster_id, node_id] = why
        elif isinstance(code, list) and is_wanted(code) and cluster_id not in self._codes:
            digest, size = code
            self._codes[cluster_id] = digest
            return Wanted([(digest, size)], {digest: "code with its source text"})
        return Wanted([], {})

    def opening(
        self, node: RemoteNode, cluster_id: int, settings: dict[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        """Return settings and code for such a node; raises DispyError.

        The disk is read here: code is some kilobytes, and the same for all nodes.
        """
        why = self._refusals.get((cluster_id, node.node_id))
        content = self._contents.get(self._codes.get(cluster_id, b""))
        if why is not None or content is None:
            what = why or "the code that its program has translated for it is not here"
            raise DispyError(f"node {node.name} runs {node.python}, another Python: {what}")
        pieces = [content.read(at, PIECE_SIZE) for at in range(0, content.size, PIECE_SIZE)]
        return {**settings, "source": True}, b"".join(pieces)

    def forget(self, cluster_id: int) -> None:
        """Drop what was said of a cluster."""
        self._codes.pop(cluster_id, None)
        if self._refusals:
            self._refusals = {
                key: why for key, why in self._refusals.items() if key[0] != cluster_id
            }
