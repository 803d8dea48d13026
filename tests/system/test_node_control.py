"""What a program may ask of its nodes and tell them while it runs."""

import time
from collections.abc import Callable
from queue import Queue

import psutil
from system.conftest import DEADLINE, Gate, expect, hold

from dispy import DispyJob, DispyNode, DispyNodeAvailInfo, JobCluster, NodeAllocate
from dispy.node.spare import SPARE_SECONDS

Open = Callable[..., JobCluster]


def wait_for(what: Callable[[], object], name: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < deadline, f"waited for {name}"
        time.sleep(0.005)


def size(data: bytes) -> int:
    return len(data)


def test_allocate_chooses_by_platform_memory_and_disk(
    open_cluster: Open, start_node: Callable
) -> None:
    node, asked = start_node("--cpus=2"), []

    class Choosy(NodeAllocate):
        def __init__(self, host: str, memory: int) -> None:
            super().__init__(host)
            self.memory = memory

        def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=""):
            asked.append((avail_info, platform))
            fits = avail_info.memory > self.memory and avail_info.disk > 0
            return 1 if fits and platform.startswith("Linux") else 0

    refusing = open_cluster(size, nodes=[Choosy(node.host, memory=1 << 60)])
    cluster = open_cluster(size, nodes=[Choosy(node.host, memory=1 << 20)])
    assert cluster.submit(b"abc")() == 3
    assert cluster.status().nodes[0].cpus == 1
    assert refusing.status().nodes == []
    info = asked[-1][0]
    assert isinstance(info, DispyNodeAvailInfo)
    assert 0 <= info.cpu <= 100
    assert 0 <= info.swap <= 100
    assert info.memory <= psutil.virtual_memory().total


def test_allocate_of_any_generation_is_called_with_what_it_takes(
    open_cluster: Open, start_node: Callable
) -> None:
    node, asked = start_node("--cpus=2"), []

    class Four(NodeAllocate):
        def allocate(self, cluster, ip_addr, name, cpus):
            asked.append("four")
            return 1

    class Five(NodeAllocate):
        def allocate(self, cluster, ip_addr, name, cpus, avail_info):
            asked.append(type(avail_info).__name__)
            return 1

    class Any(NodeAllocate):
        def allocate(self, *arguments):
            asked.append(len(arguments))
            return 1

    for kind in (Four, Five, Any):
        assert open_cluster(size, nodes=[kind(node.host)]).submit(b"ab")() == 2
    assert asked == ["four", "DispyNodeAvailInfo", 6]


def test_cluster_status_tells_what_a_node_has_to_spare_at_first_and_again(
    open_cluster: Open, start_node: Callable
) -> None:
    node, events = start_node(), Queue()
    cluster = open_cluster(size, nodes=[node.host], cluster_status=lambda *event: events.put(event))
    for _ in range(2):
        _, view, job = expect(
            events, "AvailInfo", lambda event: event[0] == DispyNode.AvailInfo, SPARE_SECONDS + 20
        )
        assert job is None
        assert view.avail_info.memory > 0
        before, view.avail_info = view.avail_info, None
        assert before.disk > 0
    assert cluster.status().nodes == [view]


def test_a_node_counts_what_was_sent_and_received_and_the_table_shows_it(
    open_cluster: Open, start_node: Callable, capsys
) -> None:
    cluster = open_cluster(size, nodes=[start_node().host])
    assert cluster.submit(bytes(300_000))() == 300_000
    (view,) = cluster.status().nodes
    assert view.tx > 300_000
    assert 0 < view.rx < 100_000
    cluster.print_status()
    head, _, row, *_ = capsys.readouterr().out.strip().splitlines()
    assert [column.strip() for column in head.split("|")][-2:] == ["Sent", "Rcvd"]
    assert row.split("|")[-2].strip().endswith("K")


def test_a_node_says_itself_which_jobs_it_runs(
    open_cluster: Open, start_node: Callable, gate: Gate
) -> None:
    node = start_node("--cpus=2")
    cluster = open_cluster(hold, nodes=[node.host])
    jobs = [cluster.submit(str(gate)) for _ in range(3)]
    wait_for(lambda: len(cluster.node_jobs(node.host, from_node=True)) == 2, "two jobs to run")
    running = cluster.node_jobs(node.host, from_node=True)
    assert all(any(job is mine for mine in jobs) for job in running)
    assert {job.status for job in running} == {DispyJob.Running}
    assert set(running) == set(cluster.node_jobs(cluster.status().nodes[0]))
    assert cluster.node_jobs("10.1.2.3") == cluster.node_jobs("nobody", from_node=True) == []
    gate.open(3)
    assert cluster.wait(DEADLINE)
    assert cluster.node_jobs(node.host, from_node=True) == []
    node.end()
    wait_for(lambda: cluster.status().nodes[0].cpus == 0, "the end of the node")
    assert cluster.node_jobs(node.host, from_node=True) == []


def test_a_deallocated_node_runs_what_is_pinned_to_it_and_nothing_else_until_it_is_back(
    open_cluster: Open, start_node: Callable, gate: Gate
) -> None:
    nodes = [start_node("--cpus=1"), start_node("--cpus=1")]
    cluster = open_cluster(hold, nodes=[nodes[0].host])
    running = cluster.submit(str(gate))
    wait_for(lambda: running.status == DispyJob.Running, "the first job")
    pinned = cluster.submit_node(nodes[0].host, str(gate), "pinned")
    waiting = cluster.submit(str(gate), "waiting")
    assert cluster.deallocate_node(nodes[0].host) == 0
    gate.open(2)
    assert pinned() == "pinned"
    assert running.done
    assert waiting.status == DispyJob.Created
    assert "is deallocated for hold" in waiting.why()
    assert cluster.allocate_node(nodes[1].host) == 0  # which does not bring the other one back
    wait_for(lambda: waiting.status == DispyJob.Running, "the waiting job")
    assert waiting.ip_addr == nodes[1].host
    last = cluster.submit(str(gate), "last")
    assert not last.wait(0.2)
    assert last.ip_addr in (None, nodes[1].host)  # where it waits behind the other one
    assert cluster.allocate_node({"host": nodes[0].host}) == 0
    wait_for(lambda: last.ip_addr == nodes[0].host, "the last job to run on the node")
    gate.open(2)
    assert (waiting(), last()) == ("waiting", "last")
    for wrong in (7, {"host": nodes[0].host, "nonsense": 1}):
        assert cluster.allocate_node(wrong) == -1


def test_nodes_are_added_in_every_form(open_cluster: Open, start_node: Callable) -> None:
    nodes = [start_node("--cpus=2") for _ in range(5)]
    hosts = [node.host for node in nodes]
    cluster = open_cluster(size, nodes=[hosts[0]])
    assert cluster.allocate_node([hosts[1], (hosts[2], None, 1)]) == 0
    assert cluster.allocate_node({"host": hosts[3], "cpus": -1}) == 0
    assert cluster.allocate_node(NodeAllocate(hosts[4], cpus=9)) == 0
    wait_for(lambda: len(cluster.status().nodes) == 5, "all five nodes")
    cpus = {view.ip_addr: view.cpus for view in cluster.status().nodes}
    assert [cpus[host] for host in hosts] == [2, 2, 1, 1, 2]
    for host in hosts:
        assert cluster.submit_node(host, b"a").wait(DEADLINE)
