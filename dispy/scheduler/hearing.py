"""What clients of a shared scheduler say: checked and written down at once, done when that is safe.

After a restart the same is done again with what was written down (`dispy.scheduler.restoring`).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from dispy.model.events import event
from dispy.model.rules import Rule
from dispy.protocol.frames import Buffer, Frame, FrameRefused, Memory, Shared
from dispy.protocol.messages import Kind, join_payloads
from dispy.scheduler.attaching import LABEL_LIMIT, Attaching
from dispy.scheduler.awaiting import ANY_NODE
from dispy.scheduler.claims import check_claims, own_settings, precedence_of, rules_in
from dispy.scheduler.client import Client, number_here, number_there
from dispy.scheduler.clients import Clients
from dispy.scheduler.journal_entries import (
    Allotted,
    Cancelling,
    ClusterOpened,
    Labelled,
    Submitted,
)
from dispy.scheduler.kept import KeptOutbox
from dispy.scheduler.names import name_of_cluster

logger = logging.getLogger("dispy.scheduler")

Handler = Callable[[Client, list[Any], Sequence[Buffer]], None]


class Hearing:
    """Takes messages of clients to their scheduler."""

    def __init__(
        self,
        clients: Clients,
        attaching: Attaching,
        batches: int = 0,
        cleanup_nodes: bool = False,
    ) -> None:
        """batches: submissions that were numbered before.

        cleanup_nodes: nodes remove what clusters have brought, whatever these say.
        """
        self._cleanup_nodes = cleanup_nodes
        self._clients, self._durable, self._attaching = clients, clients.durable, attaching
        self._batches = count(batches + 1)
        self._handlers: dict[int, Handler] = {
            Kind.CLUSTER: self._open,
            Kind.SUBMIT: self._submit,
            Kind.CANCEL: self._cancel,
            Kind.CLOSE: self._close,
            Kind.ALLOT: self._allot,
            Kind.WITHDRAW: self._withdraw,
            Kind.RULES: self._change_rules,
            Kind.DEPART: self._depart,
            Kind.ASK: self._ask,
            Kind.LABEL: self._label,
            Kind.COLLECTED: self._collected,
            Kind.KEEP: lambda client, body, _: attaching.keep(client, body[0]),
        }

    def read(self, client: Client, frame: Frame) -> None:
        """Take what a client says; raises FrameRefused."""
        if frame.kind == Kind.HEARD:
            client.outbox.taken(frame.body[0])
            return
        if frame.kind != Kind.SAID:
            self._clients.files.read(client, frame)
            return
        number, kind, body = frame.body
        handler = self._handlers.get(kind)
        if handler is None:
            raise FrameRefused(f"{Kind(kind).name} is not for a scheduler to receive")
        if client.hearing.is_new(number):
            handler(client, body, frame.buffers)

    def _own_cluster(self, client: Client, number: int) -> int:
        here = number_here(client.slot, number)
        if here not in client.clusters:
            raise FrameRefused(f"cluster {number} is not open")
        return here

    def _then(self, cluster_id: int, client: Client, do: Callable[[], object]) -> None:
        """Do something about a cluster once what was said of it is safe."""

        def do_it() -> None:
            if cluster_id in client.clusters:  # else it was closed meanwhile
                do()

        self._durable.when_safe(do_it)

    # -- clusters

    def _open(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        number, name, table = body
        here = number_here(client.slot, number)
        if here in client.clusters:
            raise FrameRefused(f"cluster {number} is open already")
        if client.holder and client.clusters:
            raise FrameRefused("what others may attach to is one cluster, and it is open already")
        settings = table.pop("settings", None)
        if not isinstance(settings, dict):
            raise FrameRefused("CLUSTER has no settings")
        check_claims(settings)
        owner = precedence_of(table).owner
        rules_in(table)
        if self._cleanup_nodes:
            settings["cleanup"] = True
        (code,) = map(memory_of, buffers)
        entry = ClusterOpened(here, client.slot, name, settings, bytes(code), table)
        client.clusters[here] = set()
        self._clients.opened[here] = entry
        named, slot = name_of_cluster(here), client.slot
        logger.info(
            "cluster %s (%s) is opened by %s", named, name, owner or client.name,
            extra=event("cluster_opened", cluster=named, name=name, owner=owner, client=slot),
        )  # fmt: skip
        self._durable.record(entry)
        self._then(here, client, partial(self.open, client, entry))

    def open(self, client: Client, entry: ClusterOpened) -> None:
        """Open a cluster at the scheduler, as its client has described it."""
        table = entry.options
        retries, pulse = table.get("retries"), table.get("pulse")
        self._clients.scheduler.open_cluster(
            entry.number, entry.name, entry.settings, bytes(entry.code),
            bool(table.get("reentrant")),
            float(pulse) if isinstance(pulse, (int, float)) and pulse > 0 else None,
            retries if type(retries) is int else None, precedence_of(table),
        )  # fmt: skip
        awaiting = self._clients.files.awaiting
        awaiting.opened(client, entry.number, entry.settings)
        awaiting.need_own(client, entry.number, ANY_NODE, own_settings(table))
        self._clients.opened[entry.number] = entry
        self._apply_rules(client, entry.number, rules_in(table))

    def _apply_rules(self, client: Client, number: int, rules: tuple[Rule, ...] | None) -> None:
        if rules is not None:
            recruit = partial(self._clients.recruiting.opened, number, rules)
            self._clients.files.awaiting.order(number, recruit)
        elif not client.wants_all:
            client.wants_all = True
            self._clients.tell_all_nodes(client)

    def _change_rules(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        here, rules = self._own_cluster(client, body[0]), rules_in(body[1])
        before = self._clients.opened[here]
        code = own_settings(body[1])
        options = {**before.options, "nodes": body[1].get("nodes"), **code}
        entry = self._clients.opened[here] = replace(before, options=options)
        self._durable.record(entry)

        def apply() -> None:
            self._clients.files.awaiting.need_own(client, here, ANY_NODE, code)
            self._apply_rules(client, here, rules)

        self._then(here, client, apply)

    def _close(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        self._clients.close(client, self._own_cluster(client, body[0]))

    # -- jobs

    def _submit(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        number, node_id, jobs, column, extras = body
        here = self._own_cluster(client, number)
        numbers = [number_here(client.slot, job) for job in jobs]
        unfinished, clients = client.clusters[here], self._clients
        if any(map(clients.calls.__contains__, numbers)):
            raise FrameRefused("SUBMIT has a job that was submitted before")
        for _, options in extras:
            check_claims(options)
        payloads = join_payloads(column, buffers)
        batch = next(self._batches)
        self._durable.record(
            Submitted(batch, here, numbers, column, [*map(memory_of, buffers)], extras, node_id)
        )
        self._attaching.submits(client, max(jobs, default=0))
        unfinished.update(numbers)
        clients.calls.add(batch, numbers, payloads)
        clients.counts.submitted(len(numbers))
        for at, options in extras:
            clients.options[numbers[at]] = options
        submit = clients.files.awaiting.submitted
        self._then(here, client, lambda: submit(client, here, numbers, node_id, extras))

    def _cancel(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        cluster = number_here(client.slot, body[0])
        unfinished = client.clusters.get(cluster, ())
        jobs = [number_here(client.slot, job) for job in body[1]]
        if jobs := [job for job in jobs if job in unfinished]:
            self._durable.record(Cancelling(jobs))
            self._then(cluster, client, lambda: self._cancel_all(client, cluster, jobs))

    def _cancel_all(self, client: Client, cluster: int, jobs: Sequence[int]) -> None:
        for job in jobs:
            waits = self._clients.files.awaiting.cancel(cluster, job)
            if not waits and job in client.clusters[cluster]:
                self._clients.scheduler.cancel(cluster, job)

    def _label(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        """Take what a program calls its jobs."""
        outbox = client.outbox
        if not isinstance(outbox, KeptOutbox):
            raise FrameRefused("LABEL is for clusters that others may attach to")
        unfinished = client.clusters.get(number_here(client.slot, body[0]), set())
        known: list[list[Any]] = []
        for label in body[1]:
            if [*map(type, label)] != [int, bytes] or len(label[1]) > LABEL_LIMIT:
                raise FrameRefused("LABEL has one that is none")
            here = number_here(client.slot, label[0])
            if here in unfinished or here in outbox.jobs:
                known.append([here, label[1]])
        client.labels.update((job, label) for job, label in known)
        self._durable.record(Labelled(known))

    def _collected(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        """Forget the results that the program has asked for."""
        outbox = client.outbox
        if not isinstance(outbox, KeptOutbox):
            raise FrameRefused("COLLECTED is for clusters that others may attach to")
        for job in outbox.collect(body[0]):
            client.labels.pop(job, None)

    # -- nodes

    def _allot(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        number, node_id, slots, table = body
        here, own = self._own_cluster(client, number), own_settings(table.get("own"))
        forgive = bool(table.get("forgive"))
        scheduler, awaiting = self._clients.scheduler, self._clients.files.awaiting
        if node_id in scheduler.nodes:
            self._durable.record(Allotted(here, node_id, slots, own))

        def allot() -> None:
            node = scheduler.nodes.get(node_id)
            if node is not None and forgive:
                scheduler.closing.forgive(node, here)
            scheduler.allocate(here, node_id, slots, own)

        self._then(here, client, lambda: awaiting.allotted(client, here, node_id, own, allot))

    def _withdraw(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        here, node_id = self._own_cluster(client, body[0]), body[1]
        scheduler = self._clients.scheduler
        if node_id in scheduler.nodes:
            self._durable.record(Allotted(here, node_id, 0))
        withdraw = partial(scheduler.deallocate, here, node_id)
        self._then(here, client, partial(self._clients.files.awaiting.order, here, withdraw))

    def _depart(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        number, node_id, table = body
        here, scheduler = self._own_cluster(client, number), self._clients.scheduler
        again, terminate = bool(table.get("again")), bool(table.get("terminate"))
        if not again and node_id in scheduler.nodes:
            self._durable.record(Allotted(here, node_id, 0))
        leave = partial(scheduler.leave, here, node_id, again, terminate)
        self._then(here, client, partial(self._clients.files.awaiting.order, here, leave))

    # -- questions

    def _ask(self, client: Client, body: list[Any], buffers: Sequence[Buffer]) -> None:
        self._durable.when_safe(lambda: self._answer(client, *body))

    def _answer(self, client: Client, token: int, asked: dict[str, Any]) -> None:
        scheduler = self._clients.scheduler
        cluster, job, node_id = (asked.get(name) for name in ("cluster", "job", "node"))
        here = number_here(client.slot, cluster) if type(cluster) is int else -1
        if here not in client.clusters:
            client.say(Kind.ANSWER, [token, {}])
            return
        if isinstance(node_id, str):

            def answered(jobs: list[int] | None) -> None:
                client.say(Kind.ANSWER, [token, {"jobs": list(map(number_there, jobs or []))}])

            scheduler.questions.ask(scheduler.nodes.get(node_id), here, answered)
        elif type(job) is int:
            number = number_here(client.slot, job)
            waits = self._clients.files.awaiting.explain(here, number)
            lines = waits or scheduler.explain(here, number)
            client.say(Kind.ANSWER, [token, {"lines": lines}])
        elif asked.get("stuck") is True:
            client.say(Kind.ANSWER, [token, {"stuck": scheduler.is_stuck(here)}])
        elif asked.get("lacks") is True:
            client.say(Kind.ANSWER, [token, {"lacks": self._clients.files.awaiting.lacks(here)}])
        else:
            waits = self._clients.files.awaiting.explain_waiting(here)
            lines = waits or scheduler.explain_waiting(here)
            client.say(Kind.ANSWER, [token, {"lines": lines}])


def memory_of(buffer: Buffer) -> Memory:
    """Return a buffer's memory."""
    assert not isinstance(buffer, Shared), "nobody passes memory to a scheduler"
    return buffer
