"""A journal remembers what a plain model does, whatever is recorded and whenever it is loaded.

For longer: `DISPY_EXAMPLES=1000 pytest --timeout=0 tests/unit/test_journal_rows.py`.
"""

import os
import tempfile
from typing import Any
from unittest import mock

from gevent.event import Event
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from unit.journal_model import Model, view_of

from dispy.scheduler import journal_entries as entries
from dispy.scheduler import journal_form
from dispy.scheduler.journal import SqliteJournal

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # no waiting for a disk
NODES = ["n1", "n2"]
SLOTS = st.integers(1, 2)
CLUSTERS = {1: [11, 12], 2: [21, 22]}
SMALL = {"COPY_BYTES": 20, "BESIDE_BYTES": 60}
data = st.binary(max_size=3) | st.sampled_from([20, 21, 40]).map(bytes)


class JournalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.sizes = mock.patch.multiple(journal_form, **SMALL)
        self.sizes.start()
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY)
        self.model = Model()
        self.job = self.batch = self.told = 0
        self.journal = self.opened()
        self.journal.load()

    def opened(self) -> SqliteJournal:
        return SqliteJournal(self.directory.name, failed=self.failed)

    def failed(self, why: str) -> None:
        raise AssertionError(why)

    def teardown(self) -> None:
        try:
            self.nothing_else_is_there()
            self.load()
            self.journal.close()
        finally:
            self.directory.cleanup()
            self.sizes.stop()

    def record(self, entry: Any) -> None:
        self.model.take(entry)
        self.journal.record(entry)

    # Few rules, so that each is chosen often: what happens to jobs matters most.

    @rule(choice=st.data(), slot=SLOTS, at=st.integers(0, 1))
    def of_a_client(self, choice: st.DataObject, slot: int, at: int) -> None:
        table = {"depends": [[1, None]], 7: 1.5}
        number, code = CLUSTERS[slot][at], choice.draw(data)
        kinds = [
            entries.ClientCame(slot, f"identity {slot}", "n\u00e4me", code),
            entries.Heard(slot, self.model.heard.get(slot, 0) + 1),
            entries.ClusterOpened(number, slot, "c\u00f6mpute", table, code, {"a": b"\x00"}),
            entries.ClusterClosed(number),
            entries.ClientForgotten(slot),
        ]
        self.record(choice.draw(st.sampled_from(kinds)))

    @rule(node=st.sampled_from(NODES), port=st.integers(0, 3))
    def of_a_node(self, node: str, port: int) -> None:
        known = entries.NodeKnown(node, "identity", "a node", "::1", port, [11, 21], said=port)
        self.record(known if port else entries.NodeGone(node))

    @rule(slot=SLOTS, at=st.integers(0, 1), node=st.sampled_from(NODES), slots=st.integers(0, 4))
    def allotted(self, slot: int, at: int, node: str, slots: int) -> None:
        self.record(entries.Allotted(CLUSTERS[slot][at], node, slots, {"cpus": 1} if at else None))

    @rule(
        slot=SLOTS, at=st.integers(0, 1), count=st.integers(0, 6), buffers=st.lists(data),
        node=st.none() | st.sampled_from(NODES),
    )  # fmt: skip
    def submitted(
        self, slot: int, at: int, count: int, buffers: list[bytes], node: str | None
    ) -> None:
        cluster = CLUSTERS[slot][at]
        self.record(entries.ClusterOpened(cluster, slot, "", {}, b"", {}))
        jobs = list(range(self.job + 1, self.job + count + 1))
        self.job, self.batch = self.job + count, self.batch + 1
        column = [*(b"argument %d" % job for job in jobs), len(buffers)]
        extras = [[0, {"retries": 2}]] if jobs else []
        self.record(entries.Submitted(self.batch, cluster, jobs, column, buffers, extras, node))

    def some_jobs(self, choice: st.DataObject) -> list[int]:
        """Draw some jobs in any order, sometimes one that is final, and one that never was."""
        most = [*self.model.batch_of, 1, self.job + 1]
        return choice.draw(
            st.lists(st.sampled_from(most), unique=True, min_size=1, max_size=len(most))
        )

    @rule(choice=st.data(), node=st.sampled_from(NODES))
    def given(self, choice: st.DataObject, node: str) -> None:
        self.record(entries.Given(node, self.some_jobs(choice)))

    @rule(choice=st.data(), attempted=st.booleans(), died=st.booleans())
    def returned(self, choice: st.DataObject, attempted: bool, died: bool) -> None:
        self.record(entries.Returned(self.some_jobs(choice), attempted, died))

    @rule(choice=st.data())
    def cancelling(self, choice: st.DataObject) -> None:
        self.record(entries.Cancelling(self.some_jobs(choice)))

    @rule(choice=st.data(), buffers=st.lists(data, max_size=2))
    def finals(self, choice: st.DataObject, buffers: list[bytes]) -> None:
        jobs = self.some_jobs(choice)
        clusters = {
            self.model.batches[batch].cluster
            for batch in map(self.model.batch_of.get, jobs)
            if batch is not None
        }
        slot = 1 if clusters <= {*CLUSTERS[1]} else 2
        jobs = [job for job in jobs if self.slot_of(job) in (None, slot)]
        self.told += 1
        columns = [[1.5] * len(jobs), [None], {"extra": b"x"}]
        self.record(entries.Finals(slot, self.told, CLUSTERS[slot][0], jobs, columns, buffers))

    def slot_of(self, job: int) -> int | None:
        batch = self.model.batch_of.get(job)
        return None if batch is None else self.model.batches[batch].cluster // 10

    @rule(slot=SLOTS, less=st.integers(0, 2))
    def taken(self, slot: int, less: int) -> None:
        self.record(entries.Taken(slot, self.told - less))

    @rule(slot=SLOTS, choice=st.data())
    def collected(self, slot: int, choice: st.DataObject) -> None:
        told = [one.number for one in self.model.finals.get(slot, [])]
        most = st.lists(st.sampled_from([*told, self.told + 1]), unique=True, max_size=3)
        self.record(entries.Collected(slot, choice.draw(most)))

    @rule(choice=st.data(), label=data)
    def labelled(self, choice: st.DataObject, label: bytes) -> None:
        """As its owner does, for jobs that are there, and are ended once."""
        if kept := sorted(self.model.kept_jobs() - self.model.misnamed - {1}):
            jobs = choice.draw(st.lists(st.sampled_from(kept), unique=True, min_size=1))
            self.record(entries.Labelled([[job, label] for job in jobs]))

    @rule(wait=st.booleans())
    def commit(self, wait: bool) -> None:
        done = Event()
        self.journal.commit(done.set)
        if wait:
            assert done.wait(timeout=30)

    @rule()
    def load(self) -> None:
        self.journal.commit(lambda: None)
        self.journal.close()
        self.journal = self.opened()
        known = self.journal.load()
        assert view_of(self.journal, known) == self.model.view()

    @rule()
    def payloads_of_all(self) -> None:
        found = self.journal.payloads(list(self.model.batches))
        assert {batch: (one.column, one.buffers) for batch, one in found.items()} == {
            batch: (list(one.column), list(one.buffers))
            for batch, one in self.model.batches.items()
        }

    @rule()
    def nothing_else_is_there(self) -> None:
        self.commit(True)
        database = self.journal._file._database
        rows = self.journal._do(database.execute("SELECT number FROM entry").fetchall)
        assert {number for (number,) in rows} == self.journal._rows.needed()
        slots = {number: one.slot for number, one in self.model.clusters.items()}
        assert self.journal._rows._slot_of == slots
        assert sum(map(len, self.journal._rows._clusters_of.values())) == len(slots)
        files = set(map(int, os.listdir(self.journal._file._beside)))
        assert files == self.journal._file._with_files
        assert files <= self.journal._rows.needed()
        if not self.model.batch_of:
            kept = sum(map(len, self.model.finals.values()))
            model = self.model
            tables = (model.clients, model.heard, model.clusters, model.nodes, model.allotted)
            labels = len(self.journal._rows._labels.rows())
            assert labels <= len(model.view()["labels"])
            assert len(rows) == kept + labels + sum(map(len, tables))


JournalMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("DISPY_EXAMPLES", "25")), stateful_step_count=50, deadline=None
)
TestJournal = JournalMachine.TestCase
