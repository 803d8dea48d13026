"""How jobs end that somebody else than their program has cancelled while they ran."""

from collections.abc import Sequence
from typing import Any

from dispy.model.statuses import Status
from dispy.scheduling.records import Cluster
from dispy.scheduling.withdrawing import CANCELLED_BEFORE


def tell_who_cancelled(cluster: Cluster, jobs: Sequence[int], extras: list[list[Any]]) -> None:
    """Let such jobs end Cancelled, with who did it as the reason, in a node's word on their ends.

    Their KeyboardInterrupt is not handed on: it would look as if the program's own user had pressed
    Ctrl-C. Jobs that have ended well all the same, as they may, did so.
    """
    for at, extra in extras:
        why = cluster.cancelling.get(jobs[at], CANCELLED_BEFORE)
        if why != CANCELLED_BEFORE and extra.get("status") == Status.Terminated:
            extra["status"] = Status.Cancelled
            extra["exception"] = f"{why}; {extra.get('exception') or 'it was stopped'}"
            extra.pop("error", None)
