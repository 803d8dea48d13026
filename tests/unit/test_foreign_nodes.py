"""A node may speak of what it was given: all else that it says changes nothing of others'.

A scheduler with two nodes. One is honest; the other says anything, in any order, also of jobs,
computations and contents of the first. Links are stand-ins that keep what is sent.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind, check
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.service import Scheduler
from dispy.scheduling.records import Node
from dispy.shipping.contents import Content

CLUSTER, OTHER, UNKNOWN = 1, 2, 99  # the second is set up on the honest node alone
HONEST, FOREIGN = "honest", "foreign"
CONTENTS = {name: Content.of_memory(name) for name in (b"for both", b"for the honest one")}
BOTH, SECRET = (content.digest for content in CONTENTS.values())


class StandIn:
    """What a scheduler uses of a link."""

    peer_key = None
    shares_memory = closed = False
    sent_bytes = received_bytes = 0
    heard = spoke = 1e18

    def __init__(self) -> None:
        self.sent: list[tuple[int, Any]] = []

    def send(self, kind: int, body: Any, buffers: Sequence[Any] = ()) -> None:
        self.sent.append((kind, body))

    def wait_sent(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class Owner:
    """Keeps what it is told, as (what, node, jobs or the like)."""

    def __init__(self) -> None:
        self.options: dict[int, Any] = {}
        self.told: list[tuple[str, str | None, Any]] = []
        self.receiving = self

    def when_safe(self, then: Any) -> None:
        then()

    def hand_over(self, node: RemoteNode, cluster: int, jobs: Sequence[int], send: Any) -> None:
        send([b"call"] * len(jobs))

    def content(self, digest: bytes) -> Content | None:
        return next((c for c in CONTENTS.values() if c.digest == digest), None)

    def refusal(self, node: RemoteNode, text: str) -> str:
        return text

    def finished(self, cluster: int, node: RemoteNode, jobs: list[int], *rest: Any) -> None:
        self.told.append(("finished", node.node_id, list(jobs)))

    def given_up(self, cluster: int, node: Any, jobs: Any, *rest: Any) -> None:
        self.told.append(("given up", node and node.node_id, list(jobs)))

    def requeued(self, cluster: int, node: RemoteNode, jobs: Any, why: str, *_: bool) -> None:
        self.told.append(("requeued", node.node_id, list(jobs)))

    def provisional(self, cluster: int, node: RemoteNode, job: int, value: Any) -> None:
        self.told.append(("provisional", node.node_id, [job]))

    def noted(self, cluster: int, node: RemoteNode, *_: Any) -> None:
        """Logged for people."""

    def output(self, cluster: int, node: RemoteNode, job: int, *rest: Any) -> None:
        self.told.append(("output", node.node_id, [job]))

    def offered(self, node: RemoteNode, cluster: int, job: int, *rest: Any) -> None:
        self.told.append(("offered", node.node_id, [job]))

    def node_lost(self, node: RemoteNode, why: str) -> None:
        self.told.append(("lost", node.node_id, []))

    def node_changed(self, cluster: int, node: RemoteNode, *rest: Any) -> None:
        self.told.append(("changed", node.node_id, [cluster]))

    def piece(self, *rest: Any) -> None:
        pass

    def started(self, *rest: Any) -> None:
        pass

    node_free = node_found = node_back = node_available = cleaned_up = started


class World:
    """Jobs 0 to 3 are on the honest node, of each cluster two; 4 and 5 on the other."""

    def __init__(self) -> None:
        self.owner = Owner()
        self.scheduler = Scheduler(self.owner, "0" * 32, "a test")  # type: ignore[arg-type]
        self.nodes = {name: self.join(name) for name in (HONEST, FOREIGN)}
        for cluster, digests in ((CLUSTER, [BOTH]), (OTHER, [SECRET])):
            files = [["f", digest, 8, 0o644, 1] for digest in digests]
            own = {"files": files, "implementation": "cpython", "python": "3.99"}
            self.scheduler.open_cluster(cluster, "c", own, b"code", False, None)
        self.set_up(HONEST, CLUSTER)
        self.set_up(HONEST, OTHER)
        self.submit(CLUSTER, [0, 1])
        self.submit(OTHER, [2, 3])
        self.set_up(FOREIGN, CLUSTER)
        self.scheduler.submit(CLUSTER, [4, 5], FOREIGN)
        self.scheduler._pass()
        assert sorted(self.jobs(HONEST)) == [0, 1, 2, 3]
        assert sorted(self.jobs(FOREIGN)) == [4, 5]
        self.owner.told.clear()

    def submit(self, cluster: int, jobs: list[int]) -> None:
        self.scheduler.submit(cluster, jobs, HONEST)
        self.scheduler._pass()

    def join(self, name: str) -> RemoteNode:
        hello = Hello("node", "0" * 32, name, python="3.99", implementation="cpython")
        node = RemoteNode(name, name, "10.0.0.1", 1, 4, hello, StandIn(), 4)  # type: ignore[arg-type]
        self.scheduler.nodes.take_in(node)
        self.scheduler._core.node_joined(Node(name, name, 4, settled=False))
        self.scheduler._from_node(node, Frame(Kind.HELD, [[], []]))
        return node

    def set_up(self, name: str, cluster: int) -> None:
        self.scheduler.allocate(cluster, name, 4)
        self.say(name, Kind.READY, [cluster, None, {}])

    def say(self, name: str, kind: int, body: list[Any], buffers: Sequence[bytes] = ()) -> None:
        """Have a node say something, as long as it is there."""
        if name in self.scheduler.nodes:
            self.scheduler._from_node(self.nodes[name], check(Frame(kind, body, list(buffers))))

    def jobs(self, name: str) -> list[int]:
        node = self.scheduler._core.nodes.get(name)
        return [] if node is None else [j for a in node.allocations.values() for j in a.jobs]

    def close(self) -> None:
        self.scheduler.stop()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


clusters = st.sampled_from([CLUSTER, OTHER, UNKNOWN, -1])
job = st.sampled_from([*range(7), 2**40, -1])
jobs = st.lists(job, max_size=4)
key = st.sampled_from([BOTH, SECRET, b"", b"k" * 16])
number = st.integers(-1, 300)
why = st.sampled_from([None, "no"])
table = st.sampled_from([
    {}, {"status": 1}, {"died": True, "status": 9, "exception": "x"}, {"crowded": {"x": 1}},
    {"held_back": "no"},
])  # fmt: skip


@st.composite
def results(draw: st.DrawFn) -> list[Any]:
    named = draw(jobs)
    times = [draw(st.sampled_from([0.0, 1.0, -1e300])) for _ in named]
    extras = [[at, dict(draw(table))] for at in range(len(named)) if draw(st.booleans())]
    return [draw(number), draw(clusters), named, times, times, [b"r"] * len(named), extras]


MESSAGES = {
    Kind.RESULTS: results(),
    Kind.SHARE: st.tuples(number, number),
    Kind.READY: st.tuples(clusters, why, table),
    Kind.CLOSED: st.tuples(clusters, why, table),
    Kind.RETURNED: st.tuples(clusters, jobs, why),
    Kind.FULL: st.tuples(clusters, jobs, st.sampled_from(["", "no room"])),
    Kind.HELD: st.tuples(jobs, st.lists(clusters, max_size=3)),
    Kind.PROVISIONAL: st.tuples(number, clusters, job, st.just(b"v")),
    Kind.OUTPUT: st.tuples(clusters, job, number, number, st.just(b"text")),
    Kind.OFFER: st.tuples(clusters, job, key, table),
    Kind.PIECE: st.tuples(key, number, why),
    Kind.FETCH: st.tuples(key, number, number),
    Kind.PROVE: st.tuples(key, st.sampled_from([b"n" * 32, b""])),
    Kind.PLACED: st.tuples(clusters, number, why),
    Kind.STATUS: st.tuples(table),
    Kind.LISTED: st.tuples(number, jobs),
    Kind.GOODBYE: st.tuples(st.just("bye"), jobs),
}
message = st.one_of(st.tuples(st.just(kind), bodies.map(list)) for kind, bodies in MESSAGES.items())


@settings(max_examples=80, deadline=None)
@given(said=st.lists(message, max_size=12))
def test_whatever_a_node_says_changes_nothing_of_another_s(said: list[tuple[Kind, Any]]) -> None:
    world = World()
    try:
        for kind, body in said:
            try:
                world.say(FOREIGN, kind, body, [b""] if kind == Kind.PIECE else [])
            except FrameRefused:
                break
        assert sorted(world.jobs(HONEST)) == [0, 1, 2, 3]
        for what, node, about in world.owner.told:
            assert node in (FOREIGN, None), what
            assert set(about) <= ({CLUSTER} if what == "changed" else {4, 5}), what
        world.scheduler._pass()
        world.scheduler._core.check_invariants()
        world.owner.told.clear()
        for number, (cluster, done) in enumerate(((CLUSTER, [0, 1]), (OTHER, [2, 3]))):
            body = [number + 1, cluster, done, [0.0, 0.0], [0.0, 0.0], [b"r", b"r"], []]
            world.say(HONEST, Kind.RESULTS, body)
        assert ("finished", HONEST, [0, 1]) in world.owner.told
        assert ("finished", HONEST, [2, 3]) in world.owner.told
    finally:
        world.close()


def asked(world: World, name: str, digest: bytes) -> Any:
    """Return why a node does not get a content; None: it does."""
    import gevent

    node = world.nodes[name]
    link: Any = node.link
    link.sent.clear()
    world.say(name, Kind.FETCH, [digest, 0, 8])
    gevent.sleep(0)
    ((kind, body),) = link.sent
    assert kind == Kind.PIECE
    return body[2]


def test_a_content_is_for_nodes_that_were_told_to_fetch_it(world: World) -> None:
    assert asked(world, FOREIGN, BOTH) is None
    assert asked(world, HONEST, SECRET) is None
    assert asked(world, FOREIGN, SECRET) == "it is not wanted any more"
    world.scheduler.allocate(OTHER, FOREIGN, 1)
    assert asked(world, FOREIGN, SECRET) is None


def test_a_program_shows_what_it_has_to_nodes_that_may_fetch_it(world: World) -> None:
    import gevent

    def shows(name: str, digest: bytes) -> bool:
        link: Any = world.nodes[name].link
        link.sent.clear()
        world.say(name, Kind.PROVE, [digest, b"n" * 32])
        with gevent.Timeout(20):
            while not link.sent:
                gevent.sleep(0.001)
        ((kind, body),) = link.sent
        assert (kind, body[:2]) == (Kind.PROVEN, [digest, b"n" * 32])
        return bool(body[2])

    assert shows(FOREIGN, BOTH)
    assert shows(HONEST, SECRET)
    assert not shows(FOREIGN, SECRET)


@pytest.mark.parametrize(
    ("kind", "body", "what"),
    [
        (Kind.RESULTS, [1, CLUSTER, [0], [0.0], [0.0], [b"r"], []], "job 0"),
        (Kind.RESULTS, [1, UNKNOWN, [0], [0.0], [0.0], [b"r"], []], "job 0"),
        (Kind.OUTPUT, [CLUSTER, 0, 1, 0, b"text"], "job 0"),
        (Kind.PROVISIONAL, [1, OTHER, 2, b"v"], "job 2"),
        (Kind.OFFER, [CLUSTER, 1, b"k" * 16, {}], "job 1"),
        (Kind.RETURNED, [OTHER, [2], None], "job 2"),
        (Kind.FULL, [OTHER, [2], "no room"], "job 2"),
        (Kind.READY, [OTHER, None, {}], "computation 2"),
        (Kind.OUTPUT, [CLUSTER, 1000, 1, 0, b"text"], "job 1000"),
    ],
)
def test_a_node_that_speaks_of_another_s_is_named_once(
    world: World, kind: int, body: list[Any], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "dispy")  # whatever other tests have made of it
    for _ in range(3):
        world.say(FOREIGN, kind, body)
        world.say(FOREIGN, Kind.OUTPUT, [OTHER, 3, 1, 0, b"text"])
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"node foreign (10.0.0.1) speaks of {what}, which it was not given")


def lost(world: World, name: str) -> None:
    world.scheduler._lost(world.nodes[name], "its link broke")


def comes_back(world: World, held: list[Any]) -> None:
    """The other node says what it had done before, then what it holds."""
    hello = Hello("node", "0" * 32, FOREIGN, python="3.99", implementation="cpython")
    node = RemoteNode(FOREIGN, FOREIGN, "10.0.0.1", 1, 4, hello, StandIn(), 4)  # type: ignore[arg-type]
    world.nodes[FOREIGN] = node
    world.scheduler.nodes.take_in(node)
    world.scheduler._given.came(node)
    world.scheduler._core.node_joined(Node(FOREIGN, FOREIGN, 4, settled=False))
    world.say(FOREIGN, Kind.RESULTS, [1, CLUSTER, [4], [0.0], [0.0], [b"r"], []])
    world.say(FOREIGN, Kind.HELD, held)
    world.say(FOREIGN, Kind.READY, [CLUSTER, None, {}])
    world.say(FOREIGN, Kind.RESULTS, [2, CLUSTER, [5], [0.0], [0.0], [b"r"], []])
    world.say(FOREIGN, Kind.OUTPUT, [CLUSTER, 5, 1, 0, b"text"])


def test_what_an_honest_node_may_say_late_is_passed_over_in_silence(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "dispy")
    lost(world, FOREIGN)
    caplog.clear()
    comes_back(world, [[5], [CLUSTER]])
    assert asked(world, FOREIGN, BOTH) is None, "its transfers from before go on"
    world.scheduler.close_cluster(OTHER)
    world.say(HONEST, Kind.RESULTS, [1, OTHER, [2], [0.0], [0.0], [b"r"], []])
    world.say(HONEST, Kind.READY, [OTHER, None, {}])
    world.say(HONEST, Kind.RETURNED, [OTHER, [3], "it is closed"])
    world.say(HONEST, Kind.RESULTS, [2, CLUSTER, [0], [0.0], [0.0], [b"r"], []])
    world.say(HONEST, Kind.OUTPUT, [CLUSTER, 0, 1, 0, b"of a job that has ended"])
    world.say(HONEST, Kind.OFFER, [CLUSTER, 0, b"k" * 16, {}])
    assert [record.getMessage() for record in caplog.records] == []


def test_a_second_list_of_what_a_node_holds_is_refused(world: World) -> None:
    with pytest.raises(FrameRefused, match="a second time"):
        world.say(FOREIGN, Kind.HELD, [[], []])


def test_what_is_remembered_of_nodes_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dispy.scheduler import given as room

    for name, limit in (("LOST_NODES", 3), ("TAKEN_JOBS", 10), ("DIGESTS", 5), ("CLUSTERS", 3)):
        monkeypatch.setattr(room, name, limit)
    given = room.Given(world.scheduler._core, {BOTH: 1}.get)
    given.taken("n", range(100))
    assert list(given._records["n"].taken) == list(range(90, 100))
    given._records["n"].limit = 5
    given.named("n", [BOTH, *(bytes([n]) * 32 for n in range(50))])
    assert given._records["n"].digests == {BOTH}
    for number in (CLUSTER, *range(100, 110)):
        given.opened("n", number, [])
    assert set(given._records["n"].clusters) == {CLUSTER, 108, 109}, "what is open stays"
    hello = Hello("node", "2" * 32, "n")
    nodes = [RemoteNode(str(n), "n", f"10.0.1.{n}", 1, 1, hello, None, 1) for n in range(11)]
    for node in nodes[:10]:
        given.taken(node.node_id, [1])
        given.lost(node)
    assert set(given._records) == {"n", "7", "8", "9"}
    assert set(given._places.values()) == {"7", "8", "9"}
    given.came(nodes[7])
    given.lost(nodes[10])
    assert "7" in given._records


def test_a_restarted_node_may_tell_what_the_one_before_it_was_given(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """It passes on results that were kept; it gets them off its hands, and nobody counts them."""
    caplog.set_level(logging.WARNING, "dispy")
    lost(world, FOREIGN)
    caplog.clear()
    ended = list(world.owner.told)
    hello = Hello("node", "1" * 32, FOREIGN, python="3.99", implementation="cpython")
    node = RemoteNode("again", FOREIGN, "10.0.0.1", 1, 4, hello, StandIn(), 4)  # type: ignore[arg-type]
    world.nodes["again"] = node
    world.scheduler.nodes.take_in(node)
    world.scheduler._given.came(node)
    world.scheduler._core.node_joined(Node("again", FOREIGN, 4, settled=False))
    world.say("again", Kind.RESULTS, [1, CLUSTER, [4, 5], [0.0] * 2, [1.0] * 2, [b"r"] * 2, []])
    world.say("again", Kind.PROVISIONAL, [2, CLUSTER, 4, b"v"])
    assert (caplog.messages, world.owner.told) == ([], ended)
    assert node.results_seen == 2
    world.say("again", Kind.RESULTS, [3, OTHER, [2], [0.0], [1.0], [b"r"], []])
    (line,) = caplog.messages
    assert "speaks of job 2" in line
