"""What a user may say about the nodes of a cluster while it runs."""

import logging
import os
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
            if job.is_call and job.status != Status.Created and job.ip_addr in addresses
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
        named = self._named(node) if isinstance(node, (str, DispyNode)) else []
        again = [node_id for node_id, _ in named]
        self._session.hub.call(self._session.offering.offer_known, self, new, again)
        return 0

    def close_node(self, node: Any, terminate_pending: bool = False) -> int:
        """End the computation on one node, cleanup included; 0, or -1 if it is unknown.

        Returns at once. Jobs that run there end first, or are stopped (`terminate_pending`): they
        run elsewhere if the cluster is reentrant, else they end Terminated. Jobs that wait for
        this node alone end Cancelled. `cluster_status` gets DispyNode.Closed when it is done;
        `allocate_node` brings it back.
        """
        return self._leave(node, again=False, terminate=terminate_pending)

    def resetup_node(self, node: Any, terminate_pending: bool = False) -> int:
        """Set up a node anew: cleanup, `allocate`, setup; 0, or -1 if it is unknown.

        Returns at once. Jobs that run there end first, or are stopped as `close_node` says; those
        for this node alone wait. `cluster_status` gets DispyNode.Initialized when it is done.
        """
        return self._leave(node, again=True, terminate=terminate_pending)

    def _leave(self, node: Any, again: bool, terminate: bool) -> int:
        nodes = self._session.scheduler.nodes
        known = [(node_id, view) for node_id, view in self._named(node) if node_id in nodes]
        for node_id, view in known:
            if not again:
                view.cpus = 0  # nothing more is submitted for it
            self._session.hub.call(
                self._session.offering.leave, self, node_id, again, bool(terminate)
            )
        return 0 if known else -1

    def send_file(self, path: str | os.PathLike[str], node: Any, relay: bool = False) -> int:
        """Copy a file (or directory) to where this cluster's jobs run on one node; 0, or -1.

        It lies there as one of `depends` would. Returns when it is there; why not is logged.
        `relay` is accepted as in dispy 4: there is one way to a node.
        """
        from dispy.shipping.files import manifest  # as when the cluster was opened

        node_id, place = self._node_id(node), object()
        try:
            if node_id is None:
                raise DispyError(f"no node {node!r} is ready for {self.name}")
            files, contents = manifest([path])
            self._session.contents.hold_for(place, contents)
            why = self._session.hub.call(
                self._session.scheduler.place, self._number, node_id, files
            )
        except DispyError as error:
            why = str(error)
        finally:
            self._session.contents.release_for(place)
        if why is not None:
            logger.error("send_file: %s", why)
        return 0 if why is None else -1

    def deallocate_node(self, node: Any) -> int:
        """Give a node no more jobs of this cluster, and let it end those it has; 0 or -1.

        Jobs that were submitted for this node alone are among those. What it has not begun goes
        elsewhere. The computation stays there; `allocate_node` brings the node back.
        """
        for node_id, _ in self._named(node):
            if node_id in self._session.scheduler.nodes:
                self._grant(node_id, 0)
                self._session.hub.call(self._session.offering.deallocate, self, node_id)
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
                self._session.hub.call(self._session.offering.allocate, self, node_id, cpus)
                return cpus
        return None
