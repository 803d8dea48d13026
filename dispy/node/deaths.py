"""How a job's process died, in words for the job's exception."""

from dataclasses import dataclass
from signal import Signals
from typing import Any

from dispy.model.sizes import tell_bytes
from dispy.protocol.frames import FrameRefused
from dispy.system.memory_kills import Group, group_of, kills, limit
from dispy.worker.output import last_lines

SHORTAGE_SECONDS = 1.0  # between the kernel's kill and our news of it, at most
_KILL = int(getattr(Signals, "SIGKILL", 9))


class _Count:
    """What the kernel counts for one group of processes, and what we make of it.

    A kill is told of by the count alone: by whose death it was cannot be seen. So a process that
    died by SIGKILL counts as one of those by which the count grew in the last second or two, and
    the same kill is not said of two processes.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._before = self._last = kills(group)
        self._looked = 0.0
        self.workers = 0

    def look(self, now: float) -> None:
        if now - self._looked >= SHORTAGE_SECONDS:
            self._looked = now
            self._before, self._last = max(self._before, self._last), kills(self._group)

    def claim(self) -> str | None:
        if kills(self._group) <= self._before:
            return None
        self._before += 1
        most = limit(self._group)
        bound = "" if most is None else (
            f" (its control group {self._group.path} may have {tell_bytes(most)})"
        )  # fmt: skip
        return f"by the kernel, because memory ran out{bound}"


@dataclass(frozen=True, slots=True)
class Death:
    """What is known of the end of a process."""

    how: str  # "was killed by SIGSEGV"
    most_memory: int = 0  # bytes that it had at once; 0: nobody knows
    signal: int = 0  # that ended it; 0: none


def said_death(said: Any) -> Death:
    """Return what a worker says of the process that it had for a job; raises FrameRefused."""
    if type(said) is not list or [type(part) for part in said] != [str, int, int]:
        raise FrameRefused("a worker told of a death in a way that makes no sense")
    return Death(*said)


class Deaths:
    """Knows what to say of deaths on one node."""

    def __init__(self, node: str) -> None:
        """`node`: its name."""
        self._node = node
        self._counts: dict[Group, _Count] = {}
        self._groups: dict[int, Group] = {}  # of living workers, by process

    def began(self, pid: int) -> None:
        """Note where kills of a new worker are counted; 40 us."""
        group = group_of(pid)
        if group is not None and pid not in self._groups:
            self._groups[pid] = group
            if group not in self._counts:
                self._counts[group] = _Count(group)
            self._counts[group].workers += 1

    def ended(self, pid: int | None) -> None:
        """Forget a worker."""
        group = self._groups.pop(pid or 0, None)
        if group is not None:
            self._counts[group].workers -= 1
            if not self._counts[group].workers:
                del self._counts[group]

    def look(self, now: float) -> None:
        """Look at the counts, unless that was just done; call often while jobs run."""
        for count in self._counts.values():
            count.look(now)

    def tell(
        self,
        death: Death,
        pid: int | None,
        stderr: str | bytes,
        cancelled: bool = False,
        more: str = "",
    ) -> str:
        """Say how a process died that ran a job: the worker `pid`, or a child of its.

        `more` follows how.
        """
        group = self._groups.get(pid or 0)
        shortage = (
            self._counts[group].claim() if group is not None and death.signal == _KILL else None
        )
        how = f"{death.how} {shortage}" if shortage is not None else death.how
        reason = f"the worker process {how}{more}, while it ran this job on node {self._node}"
        reason = f"cancelled; {reason}" if cancelled else reason
        if death.most_memory:
            reason = f"{reason}; it had used {tell_bytes(death.most_memory)} of memory at most"
        text = stderr if isinstance(stderr, str) else stderr.decode(errors="replace")
        lines = last_lines(text)
        if not lines:
            return reason
        # What is said last is told where there is room for one line only.
        return "\n  ".join(["the last that it wrote to stderr:", *lines]) + f"\n{reason}"
