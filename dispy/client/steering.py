"""What a user may say about the nodes of a cluster while it runs."""

import logging
from collections.abc import Callable
from typing import Any

from dispy.client.job import DispyJob
from dispy.client.nodes import DispyNode, parse_nodes
from dispy.client.reporting import Reporting
from dispy.client.search import INSECURE
from dispy.client.waiting import make_event
from dispy.model.errors import DispyError
from dispy.model.statuses import Status

ANSWER_SECONDS = 10.0  # that a node may take to say what it runs

logger = logging.getLogger("dispy.client")


class Steering(Reporting):
    """Asks about nodes and adds them; from any thread."""

    def node_jobs(self, node: Any, from_node: bool = False) -> list[DispyJob]:
        """Return the jobs that a node has: a DispyNode, an address or a name; [] if unknown.

        `from_node`: ask the node itself which of them run there now; those that it does not
        answer for in time, because the link to it is broken, are not among them.
        """
        named = list(self._named(node))
        if from_node:
            numbers = {number for node_id, _ in named for number in self._ask_running(node_id)}
            return [job for job in self._unfinished() if job._number in numbers]
        addresses = {view.ip_addr for _, view in named}
        return [
            job for job in self._unfinished()
            if type(job) is DispyJob and job.status != Status.Created and job.ip_addr in addresses
        ]  # fmt: skip

    def _ask_running(self, node_id: str) -> list[int]:
        """Return the numbers of jobs of this cluster that a node says it runs."""
        answers, event = list[list[int]](), make_event()

        def answered(jobs: list[int] | None) -> None:
            answers.append(jobs or [])
            event.set()

        def ask() -> None:
            scheduler = self._session.scheduler
            scheduler.questions.ask(scheduler.nodes.get(node_id), self._number, answered)

        self._session.hub.call(ask)
        return answers[0] if event.wait(ANSWER_SECONDS) else []

    def discover_nodes(self, nodes: Any = None) -> int:
        """Search at once for these hosts and patterns; None: any. Returns 0.

        Which nodes the cluster may use stays as its `nodes` say. Nodes that answer join it
        soon after. Raises DispyError as the constructor does.
        """
        allocations = parse_nodes(nodes)
        self._session.hub.post(lambda: self._session.discovery.ask_now(self._number, allocations))
        return 0

    def allocate_node(self, node: Any) -> int:
        """Let the cluster use further nodes, named as in `nodes=`; 0, or -1 if that is invalid."""
        try:
            new = parse_nodes(node if isinstance(node, list) else [node])
        except DispyError as error:
            logger.error("allocate_node: %s", error)
            return -1
        trusts = self._search.wanted.trusts
        refused = [a.ip_addr for a in new if a.ip_addr and not (a.is_pattern or trusts(a.ip_addr))]
        if refused:
            logger.error("allocate_node: %s: %s", ", ".join(refused), INSECURE)
            return -1
        self.allocations += new  # the search looks at this very list
        self._session.hub.call(self._session.discovery.widen, self._number, new)
        self._session.hub.call(self._session.offer_known, self, new)
        return 0

    def deallocate_node(self, node: Any) -> int:
        """Give a node no more jobs of this cluster, and let it end those it has; 0 or -1.

        Jobs that were submitted for this node alone are among those. What it has not begun goes
        elsewhere. The computation stays there; `allocate_node` brings the node back.
        """
        for node_id, _ in self._named(node):
            if node_id in self._session.scheduler.nodes:
                self._grant(node_id, 0)
                self._session.hub.call(self._session.deallocate, self, node_id)
                return 0
        return -1

    def set_node_cpus(self, node: Any, cpus: int) -> int:
        """Let this cluster use so many processors of a node; negative: all but so many.

        Return how many that is, -1 for a node that the cluster does not have. Running jobs go on.
        """
        if isinstance(cpus, bool) or not isinstance(cpus, int):
            raise DispyError(f"cpus is a whole number, not {cpus!r}")

        def count(view: DispyNode) -> int:
            return max(0, min(cpus, view.avail_cpus) if cpus >= 0 else view.avail_cpus + cpus)

        changed = self._limit(node, count)
        return -1 if changed is None else changed

    def _limit(self, node: Any, count: Callable[[DispyNode], int]) -> int | None:
        for node_id, view in self._named(node):
            if node_id in self._session.scheduler.nodes:
                cpus = count(view)
                self._grant(node_id, cpus)
                self._session.hub.call(self._session.allocate, self, node_id, cpus)
                return cpus
        return None
