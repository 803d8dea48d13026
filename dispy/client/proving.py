"""What a program proves itself by: what its first cluster says counts for all."""

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from dispy.model.credentials import NOTHING, Credentials

if TYPE_CHECKING:
    from dispy.client.session import Session

logger = logging.getLogger("dispy.client")


class Proof:
    """The credentials of a session; from any thread."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._chosen: Credentials | None = None  # None: no cluster has been made

    @property
    def credentials(self) -> Credentials:
        """Those that count."""
        return self._chosen or NOTHING

    def use(self, credentials: Credentials) -> Credentials:
        """Return those that count for a cluster; `insecure` is each one's own."""
        from dispy.net.credentials import concerns, current

        insecure = credentials.insecure
        if self._chosen is None:
            for concern in concerns(credentials):
                logger.warning("%s", concern)
            self._chosen = credentials
        elif insecure and not self._chosen.insecure:
            # Nodes are dialled for all clusters; each then takes those that it may.
            self._chosen = replace(self._chosen, insecure=True)
            if self._session.has_scheduler:
                self._session.scheduler.credentials = self._chosen
        ours = replace(current(self._chosen), insecure=insecure)
        if ours != credentials:
            logger.warning(
                "this cluster names another secret or certificate than the first one of this "
                "program, which decides for all: that of the first is used"
            )
        return ours
