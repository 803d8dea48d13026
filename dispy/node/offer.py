"""What this machine can offer to computations."""

import sys
from typing import Any


def why_not(node: str, name: str, settings: dict[str, Any]) -> str | None:
    """Say why the computation `name` cannot run on `node`, this one; None when it can."""
    ours = f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"
    theirs = f"{settings.get('implementation')} {settings.get('python')}"
    if settings.get("program") or settings.get("source") or ours == theirs:
        return None
    return (
        f"node {node} runs {ours}, the program that sends {name!r} {theirs}, and no source text "
        f"came along, without which code of another Python cannot run: run the node with {theirs}"
    )
