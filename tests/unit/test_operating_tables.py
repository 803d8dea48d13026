"""What operators see: tables that are aligned and bounded, and the names by which they say it."""

import random

import pytest

from dispy.cli import nodes, status
from dispy.cli.tables import Column, duration, natural, number, percent, size, table
from dispy.model.errors import DispyError
from dispy.protocol.handshake import Hello
from dispy.scheduler.client import SLOT_BITS
from dispy.scheduler.names import find_cluster, find_job, find_node, name_of_cluster
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduling.records import Cluster

NODE = {
    "name": "n", "ip_addr": "10.0.0.1", "state": "ready", "why": "", "slots": 4, "busy": 3,
    "jobs": 3, "clusters": 1, "jobs_done": 12345, "run_seconds": 7300.0, "sent_bytes": 2048,
    "received_bytes": 10,
}  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (number(1234567), "1,234,567"), (percent(0.0), "0 %"), (percent(0.004), "0.4 %"),
        (percent(0.335), "34 %"), (percent(1.0), "100 %"), (duration(None), ""),
        (duration(2e-5), "20 us"), (duration(0.0125), "12.5 ms"), (duration(5), "5 s"),
        (duration(600), "10 min"), (duration(7200), "2.0 h"), (duration(4 * 86400), "4.0 d"),
        (size(1023), "1023 B"), (size(1536), "1.5 KiB"), (size(3 << 40), "3 TiB"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_people_read_them(shown: str, text: str) -> None:
    assert shown == text


def test_columns_are_aligned_and_what_others_say_cannot_break_a_line() -> None:
    columns = (Column("NAME", "name"), Column("COUNT", "count", number))
    rows = [{"name": "a\nb\x1b[31m", "count": 5}, {"name": "x" * 100, "count": 12345}]
    lines = table(rows, columns)
    assert [len(line) for line in lines] == [48] * 3
    assert lines[1].startswith("a b ")
    assert lines[1].endswith("     5")
    assert "..." in lines[2]
    assert table(rows, columns, limit=1)[2] == "and 1 more (--limit=0 prints all)"


def test_names_with_numbers_are_in_the_order_that_people_expect() -> None:
    names = [f"node{n}" for n in (1, 2, 9, 10, 100)] + ["node", "other1"]
    shuffled = names[:]
    random.Random(1).shuffle(shuffled)
    assert sorted(shuffled, key=natural) == ["node", *names[:5], "other1"]


def test_ten_thousand_nodes_are_a_summary_and_few_lines_those_in_trouble_first() -> None:
    rows = [{**NODE, "name": f"node{n}"} for n in range(10_000)]
    rows[7777] |= {"state": "away", "why": "it fell silent 5 s ago"}
    rows.sort(key=nodes._order)
    lines = nodes.lines(rows, 50)
    assert lines[0] == "10,000 nodes: 1 away, 9,999 ready; 30,000 of 40,000 slots busy"
    assert len(lines) == 2 + 1 + 50 + 1
    assert lines[3].startswith("node7777")
    assert lines[3].endswith("it fell silent 5 s ago")
    assert lines[4].startswith("node0 ")
    assert lines[-1] == "and 9,950 more (--limit=0 prints all)"
    assert nodes.lines([], 50) == ["0 nodes"]


def test_the_status_of_an_empty_scheduler_is_its_summary() -> None:
    answer = {
        "scheduler": {
            "name": "head", "address": "10.0.0.1:51349", "version": "5", "policy": "fair",
            "trouble": "it waits for the disk", "up_seconds": 90000.0,
        },
        "totals": {"clusters": 0, "clients": 0}, "clusters": [], "owners": [], "clients": [],
    }  # fmt: skip
    assert status.lines(answer, 20) == [
        "scheduler head at 10.0.0.1:51349, dispy 5, policy fair, up 25.0 h",
        "nodes     0; 0 of 0 slots busy",
        "jobs      0 wait, 0 are on nodes, 0 have ended",
        "clients   0; 0 clusters",
        "trouble   it waits for the disk",
    ]


def clusters_of(*names: tuple[int, int, str]) -> dict[int, Cluster]:
    made = [Cluster(slot << SLOT_BITS | number, name) for slot, number, name in names]
    return {cluster.cluster_id: cluster for cluster in made}


def test_clusters_and_jobs_are_found_by_what_status_prints() -> None:
    known = clusters_of((1, 1, "work"), (1, 2, "a:7"), (3, 1, "twice"), (4, 1, "twice"))
    for cluster in known.values():
        assert find_cluster(name_of_cluster(cluster.cluster_id), known) is cluster
    assert find_cluster("work", known).cluster_id == 1 << SLOT_BITS | 1
    assert find_cluster("a:7", known).name == "a:7"
    cluster, job = find_job("4.1:17", known)
    assert (cluster.cluster_id, job) == (4 << SLOT_BITS | 1, 4 << SLOT_BITS | 17)
    assert find_job("work:0", known)[1] == 1 << SLOT_BITS


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("twice:1", r"2 clusters are called twice; say which by number: 3.1 \(unknown\), 4.1"),
        ("wrok:1", "no cluster 'wrok'; is it work?"), ("work", "CLUSTER:NUMBER"),
        ("work:", "CLUSTER:NUMBER"), (":5", "CLUSTER:NUMBER"), ("work:-1", "CLUSTER:NUMBER"),
        ("9.9:1", "no cluster '9.9'"), ("work:" + "9" * 13, "there is no job"),
    ],
)  # fmt: skip
def test_what_is_no_job_is_refused_with_what_there_is(name: str, why: str) -> None:
    known = clusters_of((1, 1, "work"), (3, 1, "twice"), (4, 1, "twice"))
    with pytest.raises(DispyError, match=why):
        find_job(name, known)


def test_nodes_are_found_by_address_before_name() -> None:
    def node(name: str, address: str, port: int = 51348) -> RemoteNode:
        digits = f"{port:032x}"
        return RemoteNode(digits, name, address, port, 1, Hello("node", digits, name), None)

    known = [node("a", "10.0.0.1"), node("a", "10.0.0.2", 1), node("b", "10.0.0.2", 2)]
    assert find_node("10.0.0.1", known) is known[0]
    assert find_node("10.0.0.2:2", known) is known[2]
    assert find_node("b", known) is known[2]
    with pytest.raises(DispyError, match="2 nodes are called a; say which: 10.0.0.1:51348, 10"):
        find_node("a", known)
    with pytest.raises(DispyError, match="2 nodes are called 10.0.0.2; say which: "):
        find_node("10.0.0.2", known)
    with pytest.raises(DispyError, match="no node 'c'; there are a, b"):
        find_node("c", known)
