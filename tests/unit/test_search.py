"""Which nodes a cluster may use, and what the search for them tells a person."""

import pytest

from dispy.client.nodes import parse_nodes
from dispy.client.search import NAMED_LIMIT, Search, Wanted
from dispy.model.credentials import OTHER_SECRET
from dispy.protocol.discovery import Here
from dispy.system.network import LOOPBACK, Network

ETH0 = Network("eth0", "10.0.0.7", 24, "10.0.0.255")
WIDE = Network("eth1", "172.16.4.1", 12, "172.31.255.255")


def wanted(nodes=None, node_port=None, insecure=False, local_node=True) -> Wanted:
    return Wanted(parse_nodes(nodes), node_port, insecure, local_node)


def here(number: int = 1, port: int = 51348) -> Here:
    return Here(f"{number:032x}", f"node{number}", port)


@pytest.mark.parametrize(
    ("nodes", "node_port", "address", "port", "covered"),
    [
        (None, None, "127.0.0.1", 51348, True),
        (None, None, "10.0.0.9", 51400, True),
        (None, 51400, "10.0.0.9", 51348, False),
        (["10.0.0.*"], None, "10.0.0.9", 51348, True),
        (["10.0.0.*"], None, "10.0.1.9", 51348, False),
        ([("10.0.0.*", 51400)], None, "10.0.0.9", 51348, False),
        (["10.0.0.9"], None, "10.0.0.9", 51348, True),
        (["10.0.0.9"], None, "10.0.0.9", 51400, False),
        (["10.0.0.9"], 51400, "10.0.0.9", 51400, True),
        ([("10.0.0.9", 51400)], None, "10.0.0.9", 51400, True),
        ([("10.0.0.9", 51400)], None, "10.0.0.9", 51348, False),
        (["127.0.0.1"], None, "127.0.0.1", 0, False),  # the local node is not what it names
        (["127.0.*"], None, "127.0.0.1", 0, True),
        (["10.*"], None, "127.0.0.1", 0, False),
    ],
)
def test_a_list_means_exactly_its_hosts_and_ports(
    nodes, node_port: int | None, address: str, port: int, covered: bool
) -> None:
    assert wanted(nodes, node_port).covers(address, port) is covered


def test_the_local_node_serves_no_cluster_that_turned_it_off() -> None:
    assert not wanted(local_node=False).covers("127.0.0.1", 0)


def test_a_name_that_has_both_kinds_of_address_means_the_one_where_nodes_listen() -> None:
    assert wanted(["localhost"]).listed == [("127.0.0.1", 51348)]


@pytest.mark.parametrize(
    ("pattern", "met"),
    [
        ("*", [LOOPBACK, ETH0, WIDE]),
        ("127.*", [LOOPBACK]),
        ("10.0.0.*", [ETH0]),
        ("10.*", [ETH0]),
        ("10.0.0.12*", [ETH0]),
        ("172.20.1.*", [WIDE]),
        ("192.168.*", []),
    ],
)
def test_only_networks_that_a_pattern_can_mean_are_asked(pattern: str, met: list[Network]) -> None:
    asked = [network for network in (LOOPBACK, ETH0, WIDE) if wanted([pattern]).may_meet(network)]
    assert asked == met


def test_other_machines_are_trusted_only_by_who_says_so() -> None:
    assert wanted().trusts("127.0.5.2")
    assert wanted().trusts("::1")
    assert not wanted().trusts("10.0.0.9")
    assert wanted(insecure=True).trusts("10.0.0.9")


def test_a_search_without_any_answer_says_what_was_tried_and_what_to_do() -> None:
    search = Search(wanted())
    search.tried("127.0.0.1", 51348, "connection refused")
    search.asked(ETH0.broadcast, 51348, 10.0, ETH0, None)
    assert search.lines(12.1, {}, []) == [
        "asked 127.0.0.1 port 51348: connection refused",
        "broadcast on eth0 (10.0.0.255) port 51348: no node answered in 2.1 s",
        "start `dispy node` on this machine, or `dispy node --host=ADDRESS` on others of the "
        "network, with the same secret (`dispy secret`); `dispy doctor` checks the network, "
        "`dispy doctor HOST` the way to a host",
    ]


def test_a_listed_host_that_is_down_is_named_with_its_error_and_the_check() -> None:
    search = Search(wanted(["10.0.0.9", "10.0.0.8"], insecure=True))
    trouble = {("10.0.0.9", 51348): "no answer: No route to host"}
    assert search.lines(12.1, trouble, [("10.0.0.8", 51348)]) == [
        "asked 10.0.0.9 port 51348: no answer: No route to host",
        "is `dispy node` running there? `dispy doctor 10.0.0.9` checks the way to it",
    ]


def test_hosts_that_refuse_the_secret_are_not_asked_whether_they_run() -> None:
    search = Search(wanted(["10.0.0.9", "10.0.0.8"], insecure=True))
    compare = "`dispy secret --check` on both machines shows whether they have the same"
    refused = {("10.0.0.9", 51348): OTHER_SECRET, ("10.0.0.8", 51348): OTHER_SECRET}
    assert search.lines(12.1, refused, [])[2:] == [compare]
    del refused["10.0.0.8", 51348]
    assert search.lines(12.1, refused, [])[2:] == [
        "is `dispy node` running there? `dispy doctor 10.0.0.8` checks the way to it"
    ]


def test_a_host_that_answers_pings_but_not_tcp_points_to_its_firewall() -> None:
    search = Search(wanted(["10.0.0.9"], insecure=True))
    search.asked("10.0.0.9", 51348, 10.0, None, None)
    search.answered(here(), "10.0.0.9")
    lines = search.lines(12.1, {("10.0.0.9", 51348): "no answer: timed out"}, [])
    assert (
        "no answer: timed out (a node answers pings there; does a firewall stop TCP?)" in lines[0]
    )
    lines = search.lines(12.1, {("10.0.0.9", 51348): "no answer any more: timed out"}, [])
    assert lines[0].endswith("no answer any more: timed out")  # it was met there before


def test_a_refused_node_is_news_once_and_stays_in_the_record() -> None:
    search = Search(wanted())
    search.asked(ETH0.broadcast, 51348, 10.0, ETH0, None)
    search.answered(here(), "10.0.0.9")
    first = search.refused(here(), "10.0.0.9")
    assert first is not None
    assert "node1 at 10.0.0.9 port 51348 is refused" in first
    assert "insecure=True" in first
    assert "DISPY_INSECURE=1" in first
    assert search.refused(here(), "10.0.0.9") is None
    assert search.lines(12.1, {}, []) == [
        "broadcast on eth0 (10.0.0.255) port 51348: 1 node answered",
        first,
    ]


def test_a_node_that_the_list_does_not_mean_is_named() -> None:
    search = Search(wanted(["10.0.0.1*"], insecure=True))
    search.passed_over(here(), "10.0.0.9")
    lines = "\n".join(search.lines(12.1, {}, []))
    assert (
        "node1 at 10.0.0.9 port 51348 answered, but the cluster's `nodes` do not mean it" in lines
    )


def test_a_name_without_an_address_is_named_and_the_others_are_used() -> None:
    search = Search(wanted(["no.such.host.invalid", "127.0.0.9"]))
    assert search.wanted.listed == [("127.0.0.9", 51348)]
    assert search.lines(0.0, {}, [])[0].startswith("no.such.host.invalid is left out: ")


def test_the_record_of_a_network_full_of_nodes_stays_small() -> None:
    search = Search(wanted())
    search.asked(ETH0.broadcast, 51348, 10.0, ETH0, None)
    for number in range(10 * NAMED_LIMIT):
        search.answered(here(number), "10.0.0.9")
        search.refused(here(number), "10.0.0.9")
    lines = search.lines(12.1, {}, [])
    assert len(lines) == NAMED_LIMIT + 2
    assert lines[0].endswith(f"{NAMED_LIMIT} or more nodes answered")
    assert lines[-1] == f"and {9 * NAMED_LIMIT} more answers from nodes that are not used"
