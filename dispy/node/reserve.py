"""Starts no jobs on a machine that is short of memory, says so, and goes on when there is some."""

import logging
from collections.abc import Callable, Mapping, Sequence

from dispy.execution.core import Execution
from dispy.execution.records import Action
from dispy.model.sizes import tell_bytes
from dispy.node.owners import Owner
from dispy.protocol.messages import Kind
from dispy.system.usage import available_memory

logger = logging.getLogger("dispy.node")

RESERVE_MOST = 10**9  # bytes that are kept free where nobody has said how many
RESERVE_PART = 20  # but no more than such a part of the machine's memory
ENOUGH = 1.25  # times the reserve must be there again: one job must not make it flap
LOOK_SECONDS = 0.1


class Reserve:
    """Decides: there is enough memory to start jobs, or not."""

    def __init__(self, kept: int | None, total: int) -> None:
        """`kept`: bytes, 0: none; None: what suits a machine of `total` bytes."""
        self.kept = min(RESERVE_MOST, total // RESERVE_PART) if kept is None else kept
        self.short = ""  # why no jobs are started, while that is so

    def look(self, available: int) -> bool:
        """Take note of the bytes that are available; say whether that has changed anything."""
        if not self.short and available < self.kept:
            self.short = (
                f"its machine is short of memory: {tell_bytes(available)} are available, and "
                f"{tell_bytes(self.kept)} are kept free (node.memory_reserve)"
            )
            return True
        if self.short and available >= self.kept * ENOUGH:
            self.short = ""
            return True
        return False


class MemoryGuard:
    """Holds a node's core back while its machine is short of memory; both tables are the node's."""

    def __init__(
        self,
        core: Execution,
        owners: Mapping[str, Owner],
        perform: Callable[[Sequence[Action]], None],
        kept: int | None,
    ) -> None:
        self._core, self._owners, self._perform = core, owners, perform
        self._reserve = Reserve(kept, available_memory()[1])
        self._looked = 0.0
        self._otherwise = ""  # why jobs may wait though there is memory

    def look(self, now: float) -> None:
        """Look at the memory, unless that was just done; 0.1 ms."""
        if now - self._looked < LOOK_SECONDS or not self._reserve.kept:
            return
        self._looked = now
        available, total = available_memory()
        if not total or not self._reserve.look(available):
            return
        short = self._reserve.short
        if short:
            logger.warning("no more jobs are started: %s", short)
            self._core.hold_back()
        else:
            logger.warning("jobs are started again: %s are available", tell_bytes(available))
            self._perform(self._core.go_on())
        self._tell_all()

    def otherwise(self, why: str) -> None:
        """Have owners told why jobs may wait though there is memory; "": they do not."""
        self._otherwise = why
        self._tell_all()

    @property
    def _why(self) -> str:
        return self._reserve.short or self._otherwise

    def _tell_all(self) -> None:
        for owner in self._owners.values():
            self.tell_anew(owner)

    def tell_anew(self, owner: Owner) -> None:
        """Tell an owner why its jobs may wait; "": they do not."""
        owner.tell(Kind.STATUS, [{"held_back": self._why or owner.backlog.held}])

    def tell(self, owner: Owner) -> None:
        """Tell an owner with a new link what it may have missed."""
        if self._why or owner.backlog.held:
            self.tell_anew(owner)
