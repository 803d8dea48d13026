"""What a node says of itself (STATUS), as far as it decides what is told of waiting jobs."""

from typing import Any

from dispy.scheduling.core import Scheduling


def take_status(core: Scheduling, node_id: str, status: dict[str, Any]) -> None:
    """Take in the keys that we know; a peer's nonsense means that it said nothing."""
    crowded = status.get("crowded")
    if isinstance(crowded, dict):
        others = ", ".join(f"{str(who):.100} ({count})" for who, count in crowded.items())
        core.node_crowded(node_id, others)
    held_back = status.get("held_back")
    if isinstance(held_back, str):
        core.node_held_back(node_id, held_back[:1000])
