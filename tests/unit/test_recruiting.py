"""Clusters get the nodes that they can use, and few that they cannot, however many there are."""

from collections.abc import Iterator
from random import Random
from time import monotonic
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispy.client.nodes import parse_nodes
from dispy.model.rules import Rule, read_rules, slots_by
from dispy.protocol.frames import Frame
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.scheduler.client import Client, number_here
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.recruiting import EAGER, SPREAD, Recruiting
from dispy.scheduler.serving import SchedulerService
from dispy.scheduling.records import Node

ANY = [["*", None, 0]]


class StandIn:
    """A link whose other side takes everything."""

    closed, peer_key, unsent, spoke, heard = False, None, 0, 0.0, 0.0
    sent_bytes = received_bytes = 0

    def __init__(self) -> None:
        self.sent: list[tuple[int, Any]] = []

    def send(self, kind: int, body: Any, buffers: Any = ()) -> None:
        self.sent.append((kind, body))

    def close(self, why: str = "") -> None:
        self.closed = True


class House:
    """A scheduler service whose nodes and clients are stand-ins."""

    def __init__(self) -> None:
        self.service = SchedulerService("s", "127.0.0.1", 0)
        self.scheduler, self.clients = self.service.scheduler, self.service.clients
        self.clients.recruiting.stop()
        self.recruiting = Recruiting(self.clients, self.scheduler, Random(1))
        self.clients.recruiting = self.recruiting
        self.said = 0
        self.job = 0

    def add_nodes(self, count: int) -> None:
        for _ in range(count):
            number = len(self.scheduler.nodes)
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            hello = Hello("node", f"{number:032}", f"n{number}")
            link: Any = StandIn()
            node = RemoteNode(f"n{number}", f"n{number}", address, 51348, 1, hello, link, 1)
            node.settled = True
            self.scheduler.nodes.take_in(node)
            self.scheduler._core.node_joined(Node(node.node_id, node.name, 1))
            self.service.scheduler._owner.node_found(node)

    def client(self, name: str) -> Client:
        client = self.clients.client(name, name, None)
        self.clients.came(client, StandIn(), 0)  # type: ignore[arg-type]
        return client

    def say(self, client: Client, kind: int, body: list[Any], *buffers: bytes) -> None:
        number = client.hearing.arrived + 1
        frame = Frame(Kind.SAID, [number, int(kind), body], buffers)
        self.service._hearing.read(client, frame)

    def open(self, client: Client, nodes: Any = ANY, number: int = 1) -> int:
        settings = {"implementation": "cpython", "python": Hello("node", "", "").python}
        table = {"settings": settings, "nodes": nodes}
        self.say(client, Kind.CLUSTER, [number, "c", table], b"code")
        return number_here(client.slot, number)

    def submit(self, client: Client, count: int, number: int = 1) -> None:
        jobs = list(range(self.job, self.job + count))
        self.job += count
        self.say(client, Kind.SUBMIT, [number, None, jobs, [b"call"] * count, []])

    def have(self, cluster: int) -> int:
        return len(self.scheduler.standing.nodes_of(cluster))

    def set_up(self) -> None:
        """Have nodes do what they are told: set up computations."""
        for node in list(self.scheduler.nodes.values()):
            for cluster in node.opened - node.ready:
                self.scheduler.closing.ready(node, cluster, "c", None, {})
        self.scheduler._pass()
        self.recruiting.look_again(monotonic() + 1)

    def running(self) -> int:
        return sum(node.busy for node in self.scheduler._core.nodes.values())


@pytest.fixture
def house() -> Iterator[House]:
    made = House()
    yield made
    made.service.stop()


def test_a_cluster_without_jobs_has_a_few_nodes_and_is_told_of_these_alone(house: House) -> None:
    house.add_nodes(40)
    client = house.client("a")
    cluster = house.open(client)
    assert house.have(cluster) == 40
    house.add_nodes(200)
    assert house.have(cluster) == EAGER == len(client.met)


def test_clusters_that_are_opened_together_get_their_first_nodes_in_turn(house: House) -> None:
    house.add_nodes(100)
    clusters = [house.open(house.client(f"c{number}")) for number in range(20)]
    assert [house.have(cluster) for cluster in clusters] == [EAGER] + [0] * 19
    with gevent.Timeout(30):
        while house.recruiting._beginner is not None:
            had = sum(map(house.have, clusters))
            gevent.sleep(0)
            assert sum(map(house.have, clusters)) - had <= EAGER, "several in one turn"
    assert [house.have(cluster) for cluster in clusters] == [EAGER] * 20


def test_a_cluster_grows_as_its_jobs_need(house: House) -> None:
    house.add_nodes(1000)
    client = house.client("a")
    cluster = house.open(client)
    house.set_up()
    house.submit(client, 70)
    for _ in range(3):
        house.set_up()
    assert house.running() == 70
    assert house.have(cluster) < 300
    house.submit(client, 5000)
    for _ in range(8):
        house.set_up()
    assert house.running() == 1000 == house.have(cluster)


def test_many_clusters_are_not_everywhere_and_yet_all_nodes_work(house: House) -> None:
    house.add_nodes(500)
    clusters = {}
    for number in range(40):
        client = house.client(f"c{number}")
        clusters[house.open(client)] = client
    for client in clusters.values():
        house.submit(client, 1000)
    for _ in range(6):
        house.set_up()
    assert house.running() == 500
    most = max(EAGER, SPREAD * 500 // 40)
    assert max(map(house.have, clusters)) <= most + 8


def test_a_node_that_is_named_is_given_at_once(house: House) -> None:
    house.add_nodes(500)
    client = house.client("a")
    later = house.open(client, [["10.0.3.7", 51348, 0]])
    assert house.have(later) == 0
    house.add_nodes(500)
    cluster = house.open(client, [["10.0.3.7", 51348, 0]], number=2)
    for each in (later, cluster):
        assert set(house.scheduler.standing.nodes_of(each)) == {"n775"}


def test_rules_that_change_give_more_nodes(house: House) -> None:
    house.add_nodes(10)
    client = house.client("a")
    cluster = house.open(client, [["10.0.0.1", None, 0]])
    assert set(house.scheduler.standing.nodes_of(cluster)) == {"n1"}
    rules = [["10.0.0.1", None, 0], ["10.0.0.2", None, 0]]
    house.say(client, Kind.RULES, [1, {"nodes": rules}])
    assert set(house.scheduler.standing.nodes_of(cluster)) == {"n1", "n2"}


def test_a_client_that_decides_itself_is_told_of_all(house: House) -> None:
    house.add_nodes(100)
    client = house.client("a")
    assert not client.met
    cluster = house.open(client, None)
    house.add_nodes(100)
    assert len(client.met) == 200
    assert house.have(cluster) == 0
    house.say(client, Kind.ALLOT, [1, "n150", 1, {}])
    assert set(house.scheduler.standing.nodes_of(cluster)) == {"n150"}


hosts = st.sampled_from(["*", "10.0.0.1", "10.0.*", "10.1.*", "1*", "10.0.0.2", "::1"])


@given(
    st.lists(st.tuples(hosts, st.none() | st.just(7), st.integers(-3, 3)), max_size=4),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "10.1.0.1", "11.0.0.1", "::1"]),
    st.integers(1, 4),
)
def test_a_rule_means_what_a_node_allocate_means(
    said: list[tuple[str, int | None, int]], address: str, cpus: int
) -> None:
    rules = read_rules([list(each) for each in said])
    wanted = None
    for host, port, limit in said:
        (allocation,) = parse_nodes([{"host": host, "cpus": limit}])
        if wanted is None and port in (None, 51348):
            wanted = allocation.allocate(None, address, "n", cpus) or None
    assert slots_by(rules, address, 51348, cpus) == wanted


@pytest.mark.parametrize(
    "said", [1, [1], [["*"]], [["*", "7", 0]], [["*" * 20, None, 0]], [[1, 2, 3]]]
)
def test_what_is_no_rule_is_refused(said: Any) -> None:
    with pytest.raises(ValueError, match="rule"):
        read_rules(said)


def test_a_rule_is_what_travels() -> None:
    assert read_rules([list(Rule("*", None, 2))]) == (Rule("*", None, 2),)
