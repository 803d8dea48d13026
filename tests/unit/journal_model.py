"""What a journal must remember, worked out the plain way: one job after the other."""

from collections.abc import Callable
from typing import Any

from dispy.scheduler import journal_entries as entries
from dispy.scheduler.journal import Journal
from dispy.scheduler.journal_entries import Payloads, Remembered


class Model:
    """Takes entries; `view` is to be equal to `view_of` a journal that took the same."""

    def __init__(self) -> None:
        self.clients: dict[int, Any] = {}
        self.heard: dict[int, int] = {}
        self.clusters: dict[int, entries.ClusterOpened] = {}
        self.batches: dict[int, entries.Submitted] = {}
        self.batch_of: dict[int, int] = {}  # of jobs that are not final
        self.waiting: list[int] = []
        self.given: dict[int, str] = {}  # in the order of giving
        self.attempts: dict[int, int] = {}
        self.deaths: dict[int, int] = {}
        self.cancelling: set[int] = set()
        self.finals: dict[int, list[entries.Finals]] = {}
        self.nodes: dict[str, Any] = {}
        self.allotted: dict[tuple[int, str], entries.Allotted] = {}
        self.labels: dict[int, bytes] = {}
        self.misnamed: set[int] = set()  # in Finals that end no such job
        self.ended: dict[int, tuple[int, int]] = {}  # by job, the slot and number of its Finals

    def take(self, entry: Any) -> None:
        match entry:
            case entries.ClientCame():
                self.clients[entry.slot] = entry
            case entries.Heard():
                self.heard[entry.slot] = entry.number
            case entries.ClientForgotten():
                for cluster in list(self.clusters.values()):
                    if cluster.slot == entry.slot:
                        self.close(cluster.number)
                for table in (self.finals, self.clients, self.heard):
                    table.pop(entry.slot, None)
            case entries.ClusterOpened():
                self.clusters[entry.number] = entry
            case entries.ClusterClosed():
                self.close(entry.number)
            case entries.Submitted():
                if entry.jobs:
                    self.batches[entry.batch] = entry
                for job in entry.jobs:
                    self.batch_of[job] = entry.batch
                    self.waiting.append(job)
            case entries.Given():
                for job in filter(self.batch_of.__contains__, entry.jobs):
                    self.leave(job)
                    self.given[job] = entry.node
            case entries.Returned():
                known = [job for job in entry.jobs if job in self.batch_of]
                for job in known:
                    self.leave(job)
                    if entry.attempted or entry.died:
                        self.attempts[job] = self.attempts.get(job, 0) + 1
                    if entry.died:
                        self.deaths[job] = self.deaths.get(job, 0) + 1
                self.waiting[:0] = known
            case entries.Cancelling():
                self.cancelling |= {job for job in entry.jobs if job in self.batch_of}
            case entries.Finals():
                self.finals.setdefault(entry.slot, []).append(entry)
                for job in entry.jobs:
                    if job in self.batch_of:
                        self.ended[job] = entry.slot, entry.number
                    else:
                        self.misnamed.add(job)
                    self.end(job)
            case entries.Taken():
                kept = [f for f in self.finals.get(entry.slot, []) if f.number > entry.number]
                self.finals[entry.slot] = kept
            case entries.Collected():
                kept = [f for f in self.finals.get(entry.slot, []) if f.number not in entry.numbers]
                self.finals[entry.slot] = kept
            case entries.Labelled():
                self.labels.update((job, label) for job, label in entry.labels)
            case entries.NodeKnown():
                self.nodes[entry.node_id] = entry
            case entries.NodeGone():
                self.nodes.pop(entry.node_id, None)
                self.forget_allotted(lambda _, node: node == entry.node_id)
            case entries.Allotted():
                if entry.cluster in self.clusters:
                    self.allotted[entry.cluster, entry.node] = entry

    def forget_allotted(self, is_over: Callable[[int, str], bool]) -> None:
        kept = {place: one for place, one in self.allotted.items() if not is_over(*place)}
        self.allotted = kept

    def leave(self, job: int) -> None:
        self.given.pop(job, None)
        if job in self.waiting:
            self.waiting.remove(job)

    def end(self, job: int) -> None:
        if job in self.batch_of:
            self.leave(job)
            batch = self.batch_of.pop(job)
            self.cancelling.discard(job)
            for table in (self.attempts, self.deaths):
                table.pop(job, None)
            if batch not in self.batch_of.values():
                del self.batches[batch]

    def close(self, cluster: int) -> None:
        for batch in list(self.batches.values()):
            if batch.cluster == cluster:
                for job in batch.jobs:
                    if self.batch_of.get(job) == batch.batch:
                        self.end(job)
        self.clusters.pop(cluster, None)
        self.forget_allotted(lambda number, _: number == cluster)

    def kept_jobs(self) -> set[int]:
        """Return the jobs that are not final, or whose results are kept."""
        held = {(slot, one.number) for slot, kept in self.finals.items() for one in kept}
        return {*self.batch_of, *(job for job, place in self.ended.items() if place in held)}

    def view(self) -> dict[str, Any]:
        kept = self.kept_jobs()
        given: dict[str, list[int]] = {}
        for job, node in self.given.items():
            given.setdefault(node, []).append(job)
        return {
            "clients": self.clients, "heard": self.heard, "nodes": self.nodes,
            "allotted": self.allotted, "clusters": self.clusters,
            "waiting": self.waiting, "given": given,
            "attempts": self.attempts, "deaths": self.deaths, "cancelling": self.cancelling,
            "batches": [
                (b.batch, b.cluster, list(b.jobs), list(b.extras), b.node, list(b.column),
                 list(b.buffers))
                for b in self.batches.values()
            ],
            "finals": {
                slot: [
                    (f.number, f.cluster, list(f.jobs), list(f.columns), list(f.buffers))
                    for f in held
                ]
                for slot, held in self.finals.items() if held
            },
            "labels": {job: label for job, label in self.labels.items() if job in kept},
            "lost": "",
        }  # fmt: skip


def view_of(journal: Journal, known: Remembered) -> dict[str, Any]:
    """Return all that a journal remembers, in the form of `Model.view`."""
    payloads = journal.payloads(list(known.batches))
    assert payloads.keys() == known.batches.keys()
    finals: dict[int, list[Any]] = {}
    for slot, held in known.finals.items():
        results = journal.finals(slot, [one.number for one in held])
        finals[slot] = [
            (one.number, one.cluster, one.jobs, *_parts(results[one.number])) for one in held
        ]
    return {
        "clients": known.clients, "heard": known.heard, "nodes": known.nodes,
        "allotted": known.allotted, "clusters": known.clusters,
        "waiting": known.waiting, "given": known.given,
        "attempts": known.attempts, "deaths": known.deaths, "cancelling": known.cancelling,
        "batches": [
            (b.batch, b.cluster, b.jobs, b.extras, b.node, *_parts(payloads[b.batch]))
            for b in known.batches.values()
        ],
        "finals": finals, "labels": known.labels, "lost": known.lost,
    }  # fmt: skip


def _parts(payloads: Payloads) -> tuple[list[Any], list[bytes]]:
    return payloads.column, payloads.buffers
