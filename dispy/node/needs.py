"""What single jobs need beside their arguments: fetched before they start, kept until they end.

One `JobNeeds` for each computation. A job whose contents are not all here is blocked in the
execution core meanwhile. Everything happens on the node's loop.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dispy.node.fetching import Fetching, Request, is_wanted
from dispy.node.store import Store


@dataclass(slots=True)
class _Need:
    """What one job needs; `refusal`: why it cannot have it."""

    wanted: list[tuple[bytes, int]] = field(default_factory=list)
    refusal: str | None = None
    request: Request | None = None


class JobNeeds:
    """`ready` is called with a job that may start, `failed` with one that cannot, and why."""

    def __init__(
        self,
        fetching: Fetching,
        store: Store,
        ready: Callable[[int], None],
        failed: Callable[[int, str], None],
    ) -> None:
        self._fetching, self._store = fetching, store
        self._ready, self._failed = ready, failed
        self._jobs: dict[int, _Need] = {}
        self._token = object()  # that no other user of the store has

    def lacking(self, options: Mapping[int, dict[str, Any]]) -> list[int]:
        """Take in what jobs need by their options; return those that must wait for it."""
        return [job for job, table in options.items() if self._lacks(job, table)]

    def _lacks(self, job: int, table: dict[str, Any]) -> bool:
        if "needs" not in table or job in self._jobs:
            return False
        need = self._jobs[job] = _Need()
        entries = table["needs"]
        if not isinstance(entries, list) or not all(map(is_wanted, entries)):
            need.refusal = "what it needs is not a list of [digest, size]"
            return True
        need.wanted = [(digest, size) for digest, size in entries]
        for digest, _ in need.wanted:
            self._store.hold(digest, self._user(job))
        return any(self._store.path(digest) is None for digest, _ in need.wanted)

    def _user(self, job: int) -> object:
        return self._token, job

    def fetch(self, jobs: Iterable[int]) -> None:
        """Fetch what the blocked jobs lack."""
        for job in jobs:
            need = self._jobs.get(job)
            if need is None or need.request is not None:
                continue
            if need.refusal is not None:
                self._failed(job, need.refusal)
                continue
            need.request = self._fetching.fetch(need.wanted, partial(self._fetched, job, need))

    def _fetched(self, job: int, need: _Need, why: str | None) -> None:
        if self._jobs.get(job) is not need:
            return
        if why is not None:
            self._failed(job, why)
        else:
            self._ready(job)

    def forget(self, job: int) -> None:
        """Let go what a job needed: it is final, or given back."""
        need = self._jobs.pop(job, None)
        if need is None:
            return
        if need.request is not None:
            self._fetching.cancel(need.request)
        for digest, _ in need.wanted:
            self._store.release(digest, self._user(job))

    def close(self) -> None:
        """Forget all: the computation ends."""
        for job in list(self._jobs):
            self.forget(job)
