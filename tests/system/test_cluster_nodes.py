"""Clusters on named nodes: exactly those, each cluster with settings of its own."""

import signal
import socket
import time
from collections.abc import Callable

import pytest
from system.conftest import DEADLINE, Gate, hold

from dispy import DispyJob, DispyNode, JobCluster, NodeAllocate
from dispy.client import session

Open = Callable[..., JobCluster]


def double(n: int) -> int:
    return 2 * n


def test_the_port_of_nodes_is_one_above_the_base_port_of_later_dispy(
    open_cluster: Open, start_node: Callable
) -> None:
    node = start_node(port=41001)
    cluster = open_cluster(double, nodes=[node.host], dispy_port=41000)
    assert cluster.submit(4)() == 8
    assert cluster.status().nodes[0].ip_addr == node.host


def test_clusters_have_settings_of_their_own(open_cluster: Open, start_node: Callable) -> None:
    first, node = start_node(), start_node()
    told: list[DispyJob] = []
    here = open_cluster(double, nodes=[first.host], callback=told.append, pulse_interval=1)
    there = open_cluster(double, nodes=[node.host], reentrant=True)
    everywhere = open_cluster(double, nodes=[node.host, first.host])
    assert there.submit(1)() == 2
    assert everywhere.submit(2)() == 4
    assert (here.pulse_interval, there.pulse_interval) == (1.0, None)
    assert (here.reentrant, there.reentrant) == (False, True)
    assert told == []
    assert [view.ip_addr for view in there.status().nodes] == [node.host]
    here.close(timeout=0, terminate=True)
    assert there.submit(3)() == 6


def test_a_cluster_that_is_opened_while_a_link_is_broken_gets_the_node_too(
    open_cluster: Open, start_node: Callable
) -> None:
    node = start_node()
    assert open_cluster(double, nodes=[node.host]).submit(1)() == 2
    used = session._session
    known = next(known for known in used.scheduler.nodes.values() if known.settled)
    node.process.send_signal(signal.SIGSTOP)  # it says no hello for as long
    used.hub.call(known.link.close)
    deadline = time.monotonic() + DEADLINE
    while known.settled:
        assert time.monotonic() < deadline
    job = open_cluster(double, nodes=[node.host]).submit(3)
    node.process.send_signal(signal.SIGCONT)
    assert job() == 6
    assert known.node_id not in used.offering._put_off


def test_nodes_are_named_in_every_way(open_cluster: Open, start_node: Callable) -> None:
    node = start_node(port=41002)

    class Half(NodeAllocate):
        def allocate(self, cluster, ip_addr, name, cpus, avail_info=None, platform=""):
            asked.append((cluster.name, ip_addr, platform))
            return 1

    asked: list[object] = []
    by_name = NodeAllocate(socket.gethostbyname(node.host), port=41002)
    for nodes in (
        [(node.host, 41002)],
        [{"host": node.host, "port": 41002}],
        [by_name],
        by_name,
        [Half(node.host, 41002)],
    ):
        cluster = open_cluster(double, nodes=nodes)
        assert cluster.submit(1)() == 2
        assert [view.ip_addr for view in cluster.status().nodes] == [node.host]
    assert asked[0][:2] == ("double", node.host)
    assert "Linux" in asked[0][2]
    again = open_cluster(double, nodes=cluster.status().nodes, node_port=41002)
    assert again.submit(1)() == 2


def test_an_allocate_that_refuses_or_raises_keeps_the_node_out(
    open_cluster: Open, start_node: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    class Never(NodeAllocate):
        def allocate(self, *arguments: object, **options: object) -> int:
            return 0

    class Broken(NodeAllocate):
        def allocate(self, *arguments: object, **options: object) -> int:
            raise ValueError("no idea")

    node = start_node()
    good = open_cluster(double, nodes=[node.host])
    refusing = open_cluster(double, nodes=[Never(node.host)])
    broken = open_cluster(double, nodes=[Broken(node.host)])
    assert good.submit(1)() == 2
    for cluster in (refusing, broken):
        job = cluster.submit(1)
        assert not job.wait(0.2)
        assert cluster.status().nodes == []
    assert "no idea" in caplog.text


def test_a_node_can_be_added_later(open_cluster: Open, start_node: Callable) -> None:
    first, second = start_node(), start_node()
    cluster = open_cluster(double, nodes=[first.host])
    assert cluster.submit(1)() == 2
    assert cluster.allocate_node(7) == -1
    assert cluster.allocate_node(second.host) == 0
    first.end()
    assert cluster.submit(2)() == 4
    assert {view.ip_addr for view in cluster.status().nodes} == {first.host, second.host}


def test_a_job_for_one_node_runs_there(open_cluster: Open, start_node: Callable) -> None:
    nodes = [start_node("--name=first"), start_node("--name=second")]
    cluster = open_cluster(double, nodes=[node.host for node in nodes])
    while len(cluster.status().nodes) < 2:
        time.sleep(0.005)
    for _ in range(10):
        for node in nodes:
            job = cluster.submit_node(node.host, 3)
            assert (job(), job.ip_addr) == (6, node.host)
    view = next(view for view in cluster.status().nodes if view.name == "second")
    assert cluster.submit_node("first", 1).wait(DEADLINE)
    job = cluster.submit_job_id_node("mine", view, 4)
    assert (job(), job.ip_addr, job.id) == (8, nodes[1].host, "mine")
    assert cluster.submit_node("10.1.2.3", 1) is None


def test_the_processors_of_a_node_are_limited_taken_and_given_back(
    open_cluster: Open, start_node: Callable, gate: Gate
) -> None:
    node = start_node("--cpus=3")
    cluster = open_cluster(hold, nodes=[(node.host, None, 2)])
    jobs = [cluster.submit(str(gate)) for _ in range(5)]
    while sum(job.status == DispyJob.Running for job in jobs) < 2:
        time.sleep(0.005)
    (view,) = cluster.status().nodes
    assert (view.cpus, view.avail_cpus) == (2, 3)
    assert cluster.set_node_cpus(node.host, -2) == 1
    assert cluster.set_node_cpus(view, 9) == 3
    while sum(job.status == DispyJob.Running for job in jobs) < 3:
        time.sleep(0.005)
    assert cluster.set_node_cpus("10.1.2.3", 1) == cluster.deallocate_node("nobody") == -1
    assert cluster.deallocate_node(view) == 0
    gate.open(3)
    while sum(job.done for job in jobs) < 3:
        time.sleep(0.005)
    left = [job for job in jobs if not job.done]
    assert [job.status for job in left] == [DispyJob.Created] * 2
    assert not left[0].wait(0.1)
    assert view.cpus == 0
    assert left[0].why()
    assert cluster.allocate_node(node.host) == 0
    gate.open(2)
    assert cluster.wait(DEADLINE)


def test_a_cluster_is_told_when_it_loses_a_node(open_cluster: Open, start_node: Callable) -> None:
    events: list[object] = []
    node = start_node()
    cluster = open_cluster(
        double, nodes=[node.host], cluster_status=lambda *event: events.append(event)
    )
    cluster.submit(1)()
    (view,) = cluster.status().nodes
    node.end()
    deadline = time.monotonic() + DEADLINE
    while (DispyNode.Closed, view, None) not in events:
        assert time.monotonic() < deadline, events
        time.sleep(0.005)
    assert events[0] == (DispyJob.Created, None, events[0][2])
    assert view.cpus == view.busy == 0


def test_the_job_of_a_killed_node_is_abandoned_with_the_reason(
    open_cluster: Open, start_node: Callable, gate: Gate
) -> None:
    node = start_node("--name=doomed")
    told: list[DispyJob] = []
    cluster = open_cluster(hold, nodes=[node.host], callback=told.append, pulse_interval=0.1)
    job = cluster.submit(str(gate))
    while job.status == DispyJob.Created:
        time.sleep(0.005)
    node.process.kill()
    assert job() is None
    assert cluster.wait(DEADLINE)
    assert job.status == DispyJob.Abandoned
    assert "node doomed was lost" in job.exception
    assert told == [job]
