"""What happened, for logs that programs read: a name and fields beside a sentence for people.

    logger.info("node %s found", node.name, extra=event("node_found", node=node.name))

Text logs show the sentence; `--log_format=json` has all of it (`dispy.cli.logs`).
"""

from typing import Any

ATTRIBUTE = "dispy_event"  # of a log record: (name, fields)


def event(what: str, /, **fields: Any) -> dict[str, Any]:
    """Return what a log call takes as `extra`; fields are numbers, texts and None."""
    return {ATTRIBUTE: (what, fields)}
