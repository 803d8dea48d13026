"""Which rows a journal has, and which of them are still needed. Pure: no file, no waiting.

Each entry becomes one row at most, of all the jobs in it, and rows are never changed: one that
says something newer makes an older one superfluous. After a restart they are replayed in order,
through the same code, so that what is needed is known again.

Invariant: a row is there as long as somebody needs it. A submission: while one of its jobs is not
final. Where jobs are: while it is the last word on one of them. Results: until they are taken;
then the numbers of these jobs alone, while others of their submission are not final.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from enum import IntEnum
from itertools import chain, repeat
from typing import Any

from dispy.protocol.frames import Memory
from dispy.scheduler import journal_entries as entries
from dispy.scheduler.journal_entries import KnownBatch, KnownFinals, Payloads, Remembered
from dispy.scheduler.journal_labels import Labels
from dispy.scheduler.journal_needs import Batch, Held, Said, count_each


class RowKind(IntEnum):
    """What a row says; these numbers are in files."""

    CLIENT = 1
    HEARD = 2
    CLUSTER = 3
    BATCH = 4
    PLACED = 5  # where jobs are, and how often their runs were cut short
    FINALS = 6
    ENDED = 7  # jobs whose results were taken
    NODE = 8
    CANCELLING = 9
    ALLOTTED = 10
    LABELS = 11


@dataclass(frozen=True, slots=True)
class Row:
    """What is written: `head` is read when a journal is loaded, the rest when it is needed."""

    number: int
    kind: RowKind
    head: list[Any]
    column: Sequence[Any] = ()
    buffers: Sequence[Memory] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A row that an earlier process has written; `read` returns what is not in its head."""

    number: int
    kind: int
    head: list[Any]
    weight: int  # bytes that `read` would read
    read: Callable[[], Payloads]


class Rows:
    """Used by one journal, for entries or, before the first of them, for rows to replay."""

    def __init__(self) -> None:
        self._next = 1
        self._made: list[Row] = []
        self._dead: list[int] = []
        self._latest: dict[tuple[RowKind, Any], int] = {}  # rows of which the last one counts
        self._slot_of: dict[int, int] = {}  # of clusters
        self._clusters_of: dict[int, set[int]] = defaultdict(set)  # by slot
        self._batches_of: dict[int, set[Batch]] = defaultdict(set)  # by cluster
        self.batches: dict[int, int] = {}  # rows of submissions
        self._batch_of: dict[int, Batch] = {}  # by job that is not final
        self._placed: dict[int, Said] = {}  # the last word on a job
        self._cut_short: dict[int, tuple[int, int]] = {}  # how often, and how often by its death
        self._cancelling: dict[int, Said] = {}
        self._nodes_of: dict[int, set[str]] = defaultdict(set)  # by cluster, those it may use
        self._users_of: dict[str, set[int]] = defaultdict(set)  # by node, in the same way
        self._held: dict[int, OrderedDict[int, Held]] = defaultdict(OrderedDict)  # by slot
        self._labels = Labels()
        self.finals: dict[tuple[int, int], int] = {}  # rows, by slot and number
        self._takers: dict[type, Callable[[Any], None]] = {
            entries.ClientCame: self._client,
            entries.Heard: self._heard,
            entries.ClientForgotten: self._client_forgotten,
            entries.ClusterOpened: self._cluster,
            entries.ClusterClosed: lambda entry: self._close(entry.number),
            entries.Submitted: self._submitted,
            entries.Given: lambda entry: self._placed_at(entry.node, entry.jobs),
            entries.Returned: self._returned,
            entries.Cancelling: self._asked,
            entries.Finals: self._finals,
            entries.Taken: self._taken,
            entries.Collected: self._collected,
            entries.Labelled: self._label,
            entries.NodeKnown: self._node,
            entries.NodeGone: self._node_gone,
            entries.Allotted: self._allot,
        }

    def take(self, entry: entries.Entry) -> tuple[list[Row], list[int]]:
        """Return the rows to write for an entry, and the numbers of those to remove with it."""
        self._takers[type(entry)](entry)
        made, dead = self._made, self._dead
        self._made, self._dead = [], []
        return made, dead

    def _make(self, kind: RowKind, head: list[Any], *rest: Any) -> int:
        number, self._next = self._next, self._next + 1
        self._made.append(Row(number, kind, head, *rest))
        return number

    def needed(self) -> set[int]:
        """Return the numbers of all rows that are; looks at every job."""
        said = chain(self._placed.values(), self._cancelling.values())
        ended = (row for batch in set(self._batch_of.values()) for row in batch.ended)
        rows = chain(self._latest.values(), self.batches.values(), self.finals.values())
        return {*rows, *self._labels.rows(), *(row.number for row in chain(said, ended))}

    # -- what is replaced as a whole

    def _client(self, entry: entries.ClientCame) -> None:
        self._set(RowKind.CLIENT, entry.slot, self._make(RowKind.CLIENT, list(astuple(entry))))

    def _heard(self, entry: entries.Heard) -> None:
        head = [entry.slot, entry.number]
        self._set(RowKind.HEARD, entry.slot, self._make(RowKind.HEARD, head))

    def _node(self, entry: entries.NodeKnown) -> None:
        head = [*astuple(entry)[:-2], list(entry.clusters), entry.said]
        self._set(RowKind.NODE, entry.node_id, self._make(RowKind.NODE, head))

    def _node_gone(self, entry: entries.NodeGone) -> None:
        for cluster in self._users_of.pop(entry.node_id, ()):
            self._nodes_of[cluster].discard(entry.node_id)
            self._end_latest(RowKind.ALLOTTED, (cluster, entry.node_id))
        self._end_latest(RowKind.NODE, entry.node_id)

    def _allot(self, entry: entries.Allotted) -> None:
        if entry.cluster in self._slot_of:
            number = self._make(RowKind.ALLOTTED, list(astuple(entry)))
            self._may_use((entry.cluster, entry.node), number)

    def _may_use(self, place: tuple[int, str], number: int) -> None:
        cluster, node = place
        self._set(RowKind.ALLOTTED, place, number)
        self._nodes_of[cluster].add(node)
        self._users_of[node].add(cluster)

    def _cluster(self, entry: entries.ClusterOpened) -> None:
        head = [entry.number, entry.slot, entry.name, entry.settings, entry.options]
        number = self._make(RowKind.CLUSTER, head, (), [entry.code])
        self._set(RowKind.CLUSTER, entry.number, number)
        self._belongs(entry.number, entry.slot)

    def _belongs(self, cluster: int, slot: int) -> None:
        self._slot_of[cluster] = slot
        self._clusters_of[slot].add(cluster)

    def _set(self, kind: RowKind, key: Any, number: int) -> None:
        self._end_latest(kind, key)
        self._latest[kind, key] = number

    def _end_latest(self, kind: RowKind, key: Any) -> None:
        before = self._latest.pop((kind, key), None)
        if before is not None:
            self._dead.append(before)

    def _client_forgotten(self, entry: entries.ClientForgotten) -> None:
        for cluster in list(self._clusters_of[entry.slot]):
            self._close(cluster)
        del self._clusters_of[entry.slot]
        for held in self._held.pop(entry.slot, {}).values():
            self._dead.append(held.number)
            del self.finals[entry.slot, held.told]
            self._dead += self._labels.drop(held.named)
        self._end_latest(RowKind.CLIENT, entry.slot)
        self._end_latest(RowKind.HEARD, entry.slot)

    def _close(self, cluster: int) -> None:
        for batch in list(self._batches_of[cluster]):
            left = [job for job in batch.jobs if self._batch_of.get(job) is batch]
            self._end(left)
            self._dead += self._labels.drop(left)
        del self._batches_of[cluster]
        for node in self._nodes_of.pop(cluster, ()):
            self._users_of[node].discard(cluster)
            self._end_latest(RowKind.ALLOTTED, (cluster, node))
        if (slot := self._slot_of.pop(cluster, None)) is not None:
            self._clusters_of[slot].discard(cluster)
        self._end_latest(RowKind.CLUSTER, cluster)

    # -- jobs until they are final

    def _submitted(self, entry: entries.Submitted) -> None:
        if not entry.jobs:
            return
        assert entry.batch not in self.batches, "numbers of batches are not used twice"
        assert self._batch_of.keys().isdisjoint(entry.jobs), "nor are those of jobs"
        jobs = list(entry.jobs)
        head = [entry.batch, entry.cluster, jobs, list(entry.extras), entry.node]
        number = self._make(RowKind.BATCH, head, entry.column, entry.buffers)
        self._batch(number, entry.batch, entry.cluster, jobs)

    def _batch(self, number: int, name: int, cluster: int, jobs: Sequence[int]) -> None:
        batch = Batch(number, name, cluster, jobs, len(jobs))
        self.batches[name] = number
        self._batches_of[cluster].add(batch)
        self._batch_of.update(dict.fromkeys(jobs, batch))

    def _known(self, jobs: Sequence[int]) -> list[int]:
        batch_of = self._batch_of
        if all(map(batch_of.__contains__, jobs)):
            return list(jobs)
        return [job for job in jobs if job in batch_of]

    def _returned(self, entry: entries.Returned) -> None:
        if entry.attempted or entry.died:
            for job in self._known(entry.jobs):
                attempts, deaths = self._cut_short.get(job, (0, 0))
                self._cut_short[job] = attempts + 1, deaths + entry.died
        self._placed_at(None, entry.jobs)

    def _placed_at(self, node: str | None, jobs: Sequence[int]) -> None:
        if jobs := self._known(jobs):
            # All that is known of them, as no older row will say it.
            counts = [
                [at, *self._cut_short[job]]
                for at, job in enumerate(jobs if self._cut_short else ())
                if job in self._cut_short
            ]
            number = self._make(RowKind.PLACED, [node, jobs, counts])
            self._last_word(self._placed, Said(number, len(jobs), jobs, node), jobs)

    def _asked(self, entry: entries.Cancelling) -> None:
        if jobs := self._known(entry.jobs):
            number = self._make(RowKind.CANCELLING, [jobs])
            self._last_word(self._cancelling, Said(number, len(jobs)), jobs)

    def _last_word(self, table: dict[int, Said], said: Said, jobs: Sequence[int]) -> None:
        """Enter a row as the last one that speaks of these jobs."""
        if not table.keys().isdisjoint(jobs):
            self._less(map(table.get, jobs))
        table.update(dict.fromkeys(jobs, said))

    def _less(self, rows: Iterable[Said | None]) -> None:
        """Each of these rows is needed by one less."""
        for said, count in count_each(filter(None, rows)):
            said.left -= count
            if not said.left:
                self._dead.append(said.number)

    def _end(self, jobs: Sequence[int]) -> list[Batch]:
        """Forget jobs, and whatever was needed for them alone; return their submissions."""
        jobs = self._known(jobs)
        for table in (self._placed, self._cancelling):
            if table:
                self._less(map(table.pop, jobs, repeat(None)))
        if self._cut_short:
            for job in jobs:
                self._cut_short.pop(job, None)
        batches = count_each(map(self._batch_of.pop, jobs))
        for batch, count in batches:
            batch.left -= count
            if not batch.left:
                self._dead.append(batch.number)
                del self.batches[batch.batch]
                self._batches_of[batch.cluster].discard(batch)
                self._less(batch.ended)
        return [batch for batch, _ in batches]

    # -- results until they are taken

    def _finals(self, entry: entries.Finals) -> None:
        jobs = list(entry.jobs)
        head = [entry.slot, entry.number, entry.cluster, jobs]
        number = self._make(RowKind.FINALS, head, entry.columns, entry.buffers)
        self._hold(number, entry.slot, entry.number, jobs)

    def _hold(self, number: int, slot: int, told: int, jobs: Sequence[int]) -> None:
        held = self._held[slot]
        assert not held or next(reversed(held)) < told, "what a client is told is numbered in order"
        held[told] = Held(number, told, jobs, self._known(jobs), self._end(jobs))
        self.finals[slot, told] = number

    def _taken(self, entry: entries.Taken) -> None:
        held, gone = self._held[entry.slot], []
        while held and next(iter(held)) <= entry.number:
            gone.append(held.popitem(last=False)[1])
        self._gone(entry.slot, gone)

    def _collected(self, entry: entries.Collected) -> None:
        held = self._held[entry.slot]
        self._gone(entry.slot, [held.pop(told) for told in entry.numbers if told in held])

    def _gone(self, slot: int, gone: Iterable[Held]) -> None:
        jobs, batches = [], set()
        for held in gone:
            self._dead.append(held.number)
            del self.finals[slot, held.told]
            self._dead += self._labels.drop(held.named)
            if needing := [batch for batch in held.batches if batch.left]:
                jobs.append(held.jobs)
                batches.update(needing)
        if batches:
            number = self._make(RowKind.ENDED, [list(chain.from_iterable(jobs))])
            self._ended(number, batches)

    def _ended(self, number: int, batches: Iterable[Batch]) -> None:
        needing = [batch for batch in batches if batch.left]
        said = Said(number, len(needing))
        for batch in needing:
            batch.ended.append(said)
        if not needing:
            self._dead.append(number)

    # -- what programs call their jobs

    def _label(self, entry: entries.Labelled) -> None:
        if labels := [list(each) for each in entry.labels]:
            number = self._make(RowKind.LABELS, [labels])
            self._dead += self._labels.put(number, [job for job, _ in labels])

    # -- after a restart

    def replay(self, row: Found, known: Remembered) -> None:
        """Take a row that an earlier process has written, and enter what it says into `known`.

        In the order of their numbers. Raises what it may where a row is none of ours.
        """
        self._next = row.number + 1
        self._replay[RowKind(row.kind)](self, row, row.head, known)

    def _replay_client(self, row: Found, head: list[Any], known: Remembered) -> None:
        client = entries.ClientCame(*head)
        known.clients[client.slot] = client
        self._set(RowKind.CLIENT, client.slot, row.number)

    def _replay_heard(self, row: Found, head: list[Any], known: Remembered) -> None:
        slot, number = head
        known.heard[slot] = number
        self._set(RowKind.HEARD, slot, row.number)

    def _replay_node(self, row: Found, head: list[Any], known: Remembered) -> None:
        node = entries.NodeKnown(*head)
        known.nodes[node.node_id] = node
        self._set(RowKind.NODE, node.node_id, row.number)

    def _replay_allotted(self, row: Found, head: list[Any], known: Remembered) -> None:
        entry = entries.Allotted(*head)
        known.allotted[entry.cluster, entry.node] = entry
        self._may_use((entry.cluster, entry.node), row.number)

    def _replay_cluster(self, row: Found, head: list[Any], known: Remembered) -> None:
        number, slot, name, settings, options = head
        (code,) = row.read().buffers
        known.clusters[number] = entries.ClusterOpened(number, slot, name, settings, code, options)
        self._set(RowKind.CLUSTER, number, row.number)
        self._belongs(number, slot)

    def _replay_batch(self, row: Found, head: list[Any], known: Remembered) -> None:
        name, cluster, jobs, extras, node = head
        batch = KnownBatch(name, cluster, jobs, extras, node, row.weight)
        known.batches[batch.batch] = batch
        self._batch(row.number, batch.batch, batch.cluster, batch.jobs)

    def _replay_placed(self, row: Found, head: list[Any], known: Remembered) -> None:
        node, all_jobs, counts = head
        jobs = self._known(all_jobs)
        for at, attempts, deaths in counts:
            if all_jobs[at] in self._batch_of:
                self._cut_short[all_jobs[at]] = attempts, deaths
        self._last_word(self._placed, Said(row.number, len(jobs), jobs, node), jobs)

    def _replay_cancelling(self, row: Found, head: list[Any], known: Remembered) -> None:
        jobs = self._known(head[0])
        self._last_word(self._cancelling, Said(row.number, len(jobs)), jobs)

    def _replay_finals(self, row: Found, head: list[Any], known: Remembered) -> None:
        slot, number, cluster, jobs = head
        finals = KnownFinals(slot, number, cluster, jobs, row.weight)
        known.finals.setdefault(finals.slot, []).append(finals)
        self._hold(row.number, finals.slot, finals.number, finals.jobs)

    def _replay_ended(self, row: Found, head: list[Any], known: Remembered) -> None:
        self._ended(row.number, self._end(head[0]))

    def _replay_labels(self, row: Found, head: list[Any], known: Remembered) -> None:
        self._labels.found(row.number, head[0])

    _replay = {
        RowKind.CLIENT: _replay_client,
        RowKind.HEARD: _replay_heard,
        RowKind.CLUSTER: _replay_cluster,
        RowKind.BATCH: _replay_batch,
        RowKind.PLACED: _replay_placed,
        RowKind.FINALS: _replay_finals,
        RowKind.ENDED: _replay_ended,
        RowKind.NODE: _replay_node,
        RowKind.CANCELLING: _replay_cancelling,
        RowKind.ALLOTTED: _replay_allotted,
        RowKind.LABELS: _replay_labels,
    }

    def recall(self, known: Remembered) -> None:
        """Enter what follows from all rows together: which jobs wait, and which are where."""
        placed = sorted(set(self._placed.values()), key=lambda said: said.number)
        for said in reversed(placed):
            if said.node is None:
                known.waiting += [job for job in said.jobs if self._placed.get(job) is said]
        for batch in known.batches.values():
            known.waiting += [
                job for job in batch.jobs if job in self._batch_of and job not in self._placed
            ]
        for said in placed:
            if said.node is not None:
                jobs = [job for job in said.jobs if self._placed.get(job) is said]
                known.given.setdefault(said.node, []).extend(jobs)
        for job, (attempts, deaths) in self._cut_short.items():
            known.attempts[job] = attempts
            if deaths:
                known.deaths[job] = deaths
        known.cancelling = set(self._cancelling)
        held = chain.from_iterable(each.values() for each in self._held.values())
        kept = chain.from_iterable(each.named for each in held)
        known.labels = self._labels.recall(chain(self._batch_of, kept))
