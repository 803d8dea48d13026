"""A journal remembers what a plain model does, whatever is recorded and whenever it is loaded.

For longer: `DISPY_EXAMPLES=1000 pytest --timeout=0 tests/unit/test_journal_rows.py`.
"""

import tempfile
from typing import Any

from gevent.event import Event
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from unit.journal_model import Model, view_of

from dispy.scheduler import journal_entries as entries
from dispy.scheduler.journal import SqliteJournal

NODES = ["n1", "n2"]
SLOTS = st.integers(1, 2)
CLUSTERS = {1: [11, 12], 2: [21, 22]}
data = st.binary(max_size=3) | st.integers(65_530, 65_540).map(bytes)


class JournalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.model = Model()
        self.job = self.batch = self.told = 0
        self.journal = self.opened()
        self.journal.load()

    def opened(self) -> SqliteJournal:
        return SqliteJournal(self.directory.name, failed=self.failed)

    def failed(self, why: str) -> None:
        raise AssertionError(why)

    def teardown(self) -> None:
        self.load()
        self.journal.close()
        self.directory.cleanup()

    def record(self, entry: Any) -> None:
        self.model.take(entry)
        self.journal.record(entry)

    @rule(slot=SLOTS, name=st.text(max_size=3), key=data)
    def client(self, slot: int, name: str, key: bytes) -> None:
        self.record(entries.ClientCame(slot, f"identity {slot}", name, key))

    @rule(slot=SLOTS)
    def heard(self, slot: int) -> None:
        self.record(entries.Heard(slot, self.model.heard.get(slot, 0) + 1))

    @rule(slot=SLOTS)
    def client_forgotten(self, slot: int) -> None:
        self.record(entries.ClientForgotten(slot))

    @rule(slot=SLOTS, at=st.integers(0, 1), code=data)
    def cluster(self, slot: int, at: int, code: bytes) -> None:
        table = {"depends": [[1, None]], 7: 1.5}
        number = CLUSTERS[slot][at]
        self.record(
            entries.ClusterOpened(number, slot, "c\u00f6mpute", table, code, {"a": b"\x00"})
        )

    @rule(slot=SLOTS, at=st.integers(0, 1))
    def cluster_closed(self, slot: int, at: int) -> None:
        self.record(entries.ClusterClosed(CLUSTERS[slot][at]))

    @rule(
        slot=SLOTS, at=st.integers(0, 1), count=st.integers(0, 4), buffers=st.lists(data),
        node=st.none() | st.sampled_from(NODES),
    )  # fmt: skip
    def submitted(
        self, slot: int, at: int, count: int, buffers: list[bytes], node: str | None
    ) -> None:
        cluster = CLUSTERS[slot][at]
        self.cluster(slot, at, b"")
        jobs = list(range(self.job + 1, self.job + count + 1))
        self.job, self.batch = self.job + count, self.batch + 1
        column = [*(b"argument %d" % job for job in jobs), len(buffers)]
        extras = [[0, {"retries": 2}]] if jobs else []
        self.record(entries.Submitted(self.batch, cluster, jobs, column, buffers, extras, node))

    def some_jobs(self, choice: st.DataObject) -> list[int]:
        """Draw jobs, final and unknown ones among them."""
        return choice.draw(st.lists(st.integers(1, self.job + 1), unique=True, max_size=6))

    @rule(choice=st.data(), node=st.sampled_from(NODES))
    def given(self, choice: st.DataObject, node: str) -> None:
        self.record(entries.Given(node, self.some_jobs(choice)))

    @rule(choice=st.data(), attempted=st.booleans(), died=st.booleans())
    def returned(self, choice: st.DataObject, attempted: bool, died: bool) -> None:
        self.record(entries.Returned(self.some_jobs(choice), attempted, died))

    @rule(choice=st.data())
    def cancelling(self, choice: st.DataObject) -> None:
        self.record(entries.Cancelling(self.some_jobs(choice)))

    @rule(choice=st.data(), slot=SLOTS, buffers=st.lists(data, max_size=2))
    def finals(self, choice: st.DataObject, slot: int, buffers: list[bytes]) -> None:
        jobs = [
            job for job in self.some_jobs(choice)
            if job not in self.model.batch_of
            or self.model.batches[self.model.batch_of[job]].cluster in CLUSTERS[slot]
        ]  # fmt: skip
        self.told += 1
        columns = [[1.5] * len(jobs), [None], {"extra": b"x"}]
        self.record(entries.Finals(slot, self.told, CLUSTERS[slot][0], jobs, columns, buffers))

    @rule(slot=SLOTS, less=st.integers(0, 4))
    def taken(self, slot: int, less: int) -> None:
        self.record(entries.Taken(slot, self.told - less))

    @rule(node=st.sampled_from(NODES), port=st.integers(1, 3))
    def node_known(self, node: str, port: int) -> None:
        self.record(entries.NodeKnown(node, "identity", "a node", "::1", port, [11, 21]))

    @rule(node=st.sampled_from(NODES))
    def node_gone(self, node: str) -> None:
        self.record(entries.NodeGone(node))

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
        if not self.model.batch_of:
            kept = sum(map(len, self.model.finals.values()))
            tables = (self.model.clients, self.model.heard, self.model.clusters, self.model.nodes)
            assert len(rows) == kept + sum(map(len, tables))


JournalMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestJournal = JournalMachine.TestCase
