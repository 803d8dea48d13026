"""Tells owners from time to time what the machine has to spare; it is a sign of life, too."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

from dispy.node.owners import Owner
from dispy.protocol.messages import Kind

SPARE_SECONDS = 5.0  # between two words on it; longer where the owner's pulse interval is
UNUSED_SECONDS = 30.0  # to an owner with nothing there: a scheduler may have ten thousand nodes


class Spare:
    """Owns a greenlet; `owners` is the node's own table, `measure` costs 0.3 ms.

    uses: whether an owner has a computation on the node.
    """

    def __init__(
        self,
        owners: dict[str, Owner],
        measure: Callable[[], Any],
        uses: Callable[[Owner], bool],
    ) -> None:
        self._owners, self._measure, self._uses = owners, measure, uses
        self._told: dict[str, float] = {}  # owner -> monotonic second
        self._greenlet = gevent.spawn(self._tell_all)

    def stop(self) -> None:
        """Tell nobody any more."""
        self._greenlet.kill()

    def _tell_all(self) -> None:
        while True:
            gevent.sleep(SPARE_SECONDS)
            now = monotonic()
            due = [owner for owner in self._owners.values() if self._is_due(owner, now)]
            self._told = {who: at for who, at in self._told.items() if who in self._owners}
            if due:
                available = self._measure()
                for owner in due:
                    owner.tell(Kind.STATUS, [{"available": available}])
                    self._told[owner.owner_id] = now

    def _is_due(self, owner: Owner, now: float) -> bool:
        pause = max(SPARE_SECONDS if self._uses(owner) else UNUSED_SECONDS, owner.pulse_seconds)
        told = self._told.get(owner.owner_id)
        return owner.link is not None and (told is None or now - told >= pause)
