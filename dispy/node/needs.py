"""What single jobs need beside their arguments: fetched before they start, kept until they end.

One `JobNeeds` for each computation. A job whose contents are not all here is blocked in the
execution core meanwhile. Everything happens on the node's loop.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dispy.model.errors import DispyError
from dispy.net.fetching import Fetching, Request, is_wanted
from dispy.node.working import WorkingFiles
from dispy.shipping.files import Entry, check
from dispy.shipping.store import Store


@dataclass(slots=True)
class _Need:
    """What one job needs; `refusal`: why it cannot have it."""

    wanted: list[tuple[bytes, int]] = field(default_factory=list)
    files: list[Entry] = field(default_factory=list)
    refusal: str | None = None
    begun: bool = False
    missing: int = 0  # of the two, how many are not there yet
    request: Request | None = None


class JobNeeds:
    """`ready` is called with a job that may start, `failed` with one that cannot, and why."""

    def __init__(
        self,
        fetching: Fetching,
        store: Store,
        files: WorkingFiles,
        size_limit: int,
        ready: Callable[[int], None],
        failed: Callable[[int, str], None],
    ) -> None:
        """`size_limit`: bytes of each file; 0: any."""
        self._fetching, self._store, self._files = fetching, store, files
        self._size_limit = size_limit
        self._ready, self._failed = ready, failed
        self._jobs: dict[int, _Need] = {}
        self._token = object()  # that no other user of the store has

    def lacking(self, options: Mapping[int, dict[str, Any]]) -> list[int]:
        """Take in what jobs need by their options; return those that must wait for it."""
        return [job for job, table in options.items() if self._lacks(job, table)]

    def _lacks(self, job: int, table: dict[str, Any]) -> bool:
        if ("needs" not in table and "files" not in table) or job in self._jobs:
            return False
        need = self._jobs[job] = _Need()
        entries = table.get("needs", [])
        if not isinstance(entries, list) or not all(map(is_wanted, entries)):
            need.refusal = "what it needs is not a list of [digest, size]"
            return True
        try:
            need.files = check(table.get("files", []), self._size_limit)
        except DispyError as error:
            need.refusal = str(error)
            return True
        need.wanted = [(digest, size) for digest, size in entries]
        for digest, _ in need.wanted:
            self._store.hold(digest, self._user(job))
        lacks = not all(self._fetching.has(digest) for digest, _ in need.wanted)
        return lacks or bool(need.files)

    def _user(self, job: int) -> object:
        return self._token, job

    def fetch(self, jobs: Iterable[int]) -> None:
        """Fetch what the blocked jobs lack."""
        for job in jobs:
            need = self._jobs.get(job)
            if need is None or need.begun:
                continue
            need.begun = True
            if need.refusal is not None:
                self._failed(job, need.refusal)
                continue
            came = partial(self._came, job, need)
            need.missing = 1 + bool(need.files)
            if need.files:
                self._files.bring(need.files, job, came)
            need.request = self._fetching.fetch(need.wanted, came)

    def _came(self, job: int, need: _Need, why: str | None) -> None:
        need.missing -= 1
        if self._jobs.get(job) is not need:
            return  # it was cancelled, or called back
        if why is not None:
            self._failed(job, why)
        elif not need.missing:
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
        if need.files:
            self._files.leave(job)

    def close(self) -> None:
        """Forget all: the computation ends."""
        for job in list(self._jobs):
            self.forget(job)
