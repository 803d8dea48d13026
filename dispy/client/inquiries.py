"""What a program asks a shared scheduler: why jobs wait, and which of them a node runs.

On its session's hub. Those questions that wait for their answer are for greenlets.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult

from dispy.client.told import Told
from dispy.model.texts import one_line
from dispy.scheduler.nodes import RemoteNode

if TYPE_CHECKING:
    from dispy.client.session import Session

BRING_SECONDS = 0.05  # between two looks whether the scheduler has all
ANSWER_SECONDS = 5.0  # that the scheduler may take
QUIET_SECONDS = 2.0  # without news of a cluster whose jobs are on nodes, before they may be stuck
STUCK_SECONDS = 2.0  # between questions whether they are

Answer = Callable[[dict[str, Any]], object]


class Inquiries:
    """Of one session. ask: says a question, by its token. trouble: why that would be in vain."""

    def __init__(
        self,
        session: "Session",
        told: Told,
        host: str,
        ask: Callable[[int, dict[str, Any]], None],
        trouble: Callable[[], list[str]],
    ) -> None:
        self._session, self._told, self._host = session, told, host
        self._say, self._trouble = ask, trouble
        self._tokens = count(1)
        self._stuck: dict[int, tuple[float, bool]] = {}  # cluster -> when it was asked, the answer

    def _ask(self, table: dict[str, Any], answer: Answer) -> int:
        token = next(self._tokens)
        self._told.answers[token] = answer
        self._say(token, table)
        return token

    def ask(
        self,
        node: RemoteNode | None,
        cluster_id: int,
        answered: Callable[[list[int] | None], None],
    ) -> None:
        """Ask a node which of a cluster's jobs it runs, as `Questions.ask`."""

        def answer(table: dict[str, Any]) -> None:
            jobs = table.get("jobs")
            answered([job for job in jobs if type(job) is int] if isinstance(jobs, list) else None)

        if node is None:
            answered(None)
        else:
            self._ask({"cluster": cluster_id, "node": node.node_id}, answer)

    def lines(self, table: dict[str, Any]) -> list[str]:
        """Ask for an explanation, and wait for it."""
        if trouble := self._trouble():
            return trouble
        answer: AsyncResult[dict[str, Any]] = AsyncResult()
        token = self._ask(table, answer.set)
        try:
            lines = answer.get(timeout=ANSWER_SECONDS).get("lines")
        except gevent.Timeout:
            return [f"the scheduler at {self._host} did not say within {ANSWER_SECONDS:g} s"]
        finally:
            self._told.answers.pop(token, None)
        return [one_line(str(line)) for line in lines] if isinstance(lines, list) else []

    def has_brought(self, cluster_id: int, timeout: float | None) -> bool:
        """Wait until the scheduler has all files and values that a cluster and its jobs need.

        False: `timeout` seconds were not enough.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while deadline is None or monotonic() < deadline:
            left = ANSWER_SECONDS if deadline is None else max(0.0, deadline - monotonic())
            answer: AsyncResult[dict[str, Any]] = AsyncResult()
            token = self._ask({"cluster": cluster_id, "lacks": True}, answer.set)
            with suppress(gevent.Timeout):  # asked again: a scheduler that is killed forgets it
                if answer.get(timeout=min(left, ANSWER_SECONDS)).get("lacks") is not True:
                    return True
            self._told.answers.pop(token, None)
            gevent.sleep(BRING_SECONDS)
        return False

    def is_stuck(self, cluster_id: int) -> bool:
        """Whether a cluster has jobs and none of them runs, or is about to; costs no wait.

        Jobs that are on nodes may be held back there: that the scheduler knows, and is asked in
        the background where nothing is heard of them.
        """
        if not self._session.clusters[cluster_id]._pending:
            return False
        if not self._told.has_running(cluster_id) or self._trouble():
            return True
        now = monotonic()
        if now - self._told.news.get(cluster_id, 0.0) < QUIET_SECONDS:
            return False
        asked, stuck = self._stuck.get(cluster_id, (0.0, False))
        if now - asked >= STUCK_SECONDS:
            self._stuck[cluster_id] = now, stuck

            def answer(table: dict[str, Any]) -> None:
                if cluster_id in self._stuck:
                    self._stuck[cluster_id] = now, table.get("stuck") is True

            self._ask({"cluster": cluster_id, "stuck": True}, answer)
        return stuck

    def forget(self, cluster_id: int) -> None:
        """Forget a cluster that is closed."""
        self._stuck.pop(cluster_id, None)
