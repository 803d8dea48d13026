"""A computation is closed on one node, or set up again there: no job is lost, and nobody hangs."""

import os
from collections.abc import Callable
from pathlib import Path
from queue import Queue

from system.conftest import DEADLINE, Gate, RunningNode, expect

from dispy import DispyJob, DispyNode, JobCluster, NodeAllocate

Open = Callable[..., JobCluster]


def prepare(path: str, number: int) -> None:
    global edition
    edition = number


def note(path: str, number: int) -> None:
    with open(path, "a") as file:
        print("cleaned", number, file=file)


def tell(gate: str = "") -> int:
    if gate:
        descriptor = os.open(gate, os.O_RDONLY)
        os.read(descriptor, 1)
        os.close(descriptor)
    return edition


class Editions(NodeAllocate):
    """Gives each setup the next number."""

    def __init__(self, host: str, path: Path, limit: int = 99) -> None:
        super().__init__(host)
        self.asked, self._path, self._most = 0, path, limit

    def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=""):
        self.asked += 1
        self.setup_args = (str(self._path), self.asked)
        return cpus if self.asked <= self._most else 0


class Opened:
    """A cluster on one node, and what happens to that."""

    def __init__(self, open_cluster: Open, node: RunningNode, path: Path, **options: object):
        self.events: Queue[object] = Queue()
        self.path = path / "said"
        self.editions = Editions(node.host, self.path, options.pop("limit", 99))
        self.cluster = open_cluster(
            tell, nodes=[self.editions], setup=prepare, cleanup=note,
            cluster_status=lambda *event: self.events.put(event), **options,
        )  # fmt: skip
        self.node = self.told(DispyNode.Initialized)

    def told(self, status: int, job: DispyJob | None = None) -> DispyNode:
        def matches(event: tuple) -> bool:
            return event[0] == status and event[2] is job

        return expect(self.events, f"status {status}", matches)[1]


def test_a_node_is_set_up_again_when_its_jobs_have_ended_and_jobs_wait_for_that(
    open_cluster: Open, shared_node: RunningNode, gate: Gate, tmp_path: Path
) -> None:
    opened = Opened(open_cluster, shared_node, tmp_path)
    running = opened.cluster.submit(str(gate))
    opened.told(DispyJob.Running, running)
    assert opened.cluster.resetup_node(opened.node) == 0
    later = [opened.cluster.submit(), opened.cluster.submit_node(opened.node)]
    assert "when 1 jobs there have ended" in later[0].why()
    gate.open()
    assert [job.get(DEADLINE) for job in (running, *later)] == [1, 2, 2]
    assert opened.path.read_text() == "cleaned 1\n"
    opened.cluster.close()
    assert opened.path.read_text() == "cleaned 1\ncleaned 2\n"


def test_jobs_that_come_while_a_node_is_set_up_again_and_again_run_once_each(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path
) -> None:
    opened = Opened(open_cluster, shared_node, tmp_path)
    jobs = []
    for _ in range(5):
        jobs += [opened.cluster.submit() for _ in range(50)]
        assert opened.cluster.resetup_node(shared_node.host) == 0
        jobs += [opened.cluster.submit_node(opened.node) for _ in range(3)]
        assert jobs[-1].get(DEADLINE) > 1
    assert {job.wait(DEADLINE) and job.status for job in jobs} == {DispyJob.Finished}
    assert {job.result for job in jobs} <= set(range(1, 7))
    assert opened.node.jobs_done == len(jobs)


def test_a_node_to_which_allocate_gives_nothing_any_more_is_not_set_up_again(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path
) -> None:
    opened = Opened(open_cluster, shared_node, tmp_path, limit=1)
    assert opened.cluster.resetup_node(opened.node) == 0
    pinned = opened.cluster.submit_node(opened.node)
    assert pinned is None or (pinned.wait(DEADLINE) and pinned.status == DispyJob.Cancelled)


def test_jobs_are_stopped_for_a_resetup_and_run_again_only_if_they_may(
    open_cluster: Open, shared_node: RunningNode, gate: Gate, tmp_path: Path
) -> None:
    for reentrant in (False, True):
        opened = Opened(open_cluster, shared_node, tmp_path, reentrant=reentrant)
        job = opened.cluster.submit(str(gate))
        opened.told(DispyJob.Running, job)
        assert opened.cluster.resetup_node(opened.node, terminate_pending=True) == 0
        if reentrant:
            opened.told(DispyJob.Running, job)
            gate.open()
            assert job.get(DEADLINE) == 2
        else:
            assert job.wait(DEADLINE)
            assert job.status == DispyJob.Terminated
            assert "stopped on" in job.exception
            assert opened.cluster.submit().get(DEADLINE) == 2
        opened.cluster.close()


def test_a_computation_is_closed_on_a_node_and_jobs_pinned_there_end(
    open_cluster: Open, shared_node: RunningNode, gate: Gate, tmp_path: Path
) -> None:
    opened = Opened(open_cluster, shared_node, tmp_path)
    cluster = opened.cluster
    running = [cluster.submit(str(gate)) for _ in range(2)]
    for job in running:
        opened.told(DispyJob.Running, job)
    pinned = [cluster.submit_node(opened.node) for _ in range(3)]
    assert cluster.close_node(opened.node) == 0
    assert all(job.wait(DEADLINE) and job.status == DispyJob.Cancelled for job in pinned)
    assert "close_node" in pinned[0].exception
    assert cluster.submit_node(opened.node) is None
    assert not any(job.done for job in running)
    gate.open(2)
    assert [job.get(DEADLINE) for job in running] == [1, 1]
    assert opened.told(DispyNode.Closed).cpus == 0
    assert opened.path.read_text() == "cleaned 1\n"
    waiting = cluster.submit()
    assert "close_node has closed it there; allocate_node brings it back" in waiting.why()
    assert cluster.allocate_node(opened.node) == 0
    assert waiting.get(DEADLINE) == 2


def test_a_computation_is_closed_on_a_node_by_force(
    open_cluster: Open, shared_node: RunningNode, gate: Gate, tmp_path: Path
) -> None:
    opened = Opened(open_cluster, shared_node, tmp_path)
    job = opened.cluster.submit(str(gate))
    opened.told(DispyJob.Running, job)
    assert opened.cluster.close_node(shared_node.host, terminate_pending=True) == 0
    assert job.wait(DEADLINE)
    assert job.status == DispyJob.Terminated
    opened.told(DispyNode.Closed)


def test_a_cluster_is_closed_while_a_node_of_it_is_set_up_again(
    open_cluster: Open, shared_node: RunningNode, tmp_path: Path
) -> None:
    opened = Opened(open_cluster, shared_node, tmp_path)
    assert opened.cluster.resetup_node(opened.node) == 0
    assert opened.cluster.close() is True
    assert opened.path.read_text() in ("cleaned 1\n", "cleaned 1\ncleaned 2\n")


def test_nodes_that_a_cluster_does_not_have_can_be_neither_closed_nor_set_up(
    open_cluster: Open, shared_node: RunningNode
) -> None:
    cluster = open_cluster(tell, nodes=[shared_node.host])
    assert cluster.close_node("127.9.9.9") == -1
    assert cluster.resetup_node("127.9.9.9") == -1
