"""Operators of a scheduler with thousands of nodes hold nobody up, by asking or by not reading."""

import os
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.socket import socketpair

from dispy.net.link import Link, LinkEnd
from dispy.protocol.frames import Frame
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.scheduler.nodes import RemoteNode
from dispy.scheduler.operators import PART
from dispy.scheduler.serving import SchedulerService
from dispy.scheduling.records import Node

DEADLINE = 30.0  # seconds
NODES = 5000


@pytest.fixture
def service() -> Iterator[SchedulerService]:
    """A scheduler with nodes that nobody has dialled."""
    made = SchedulerService("s", "127.0.0.1", 0)
    for number in range(NODES):
        node_id, name = f"{number:032x}", f"node{number}"
        hello = Hello("node", node_id, name)
        made.scheduler.nodes.take_in(RemoteNode(node_id, name, "10.0.0.1", number, 2, hello, None))
        made.scheduler._core.node_joined(Node(node_id, name, 2, settled=False))
    yield made
    made.scheduler.nodes.clear()  # nobody is to be told of the end
    made.stop()


class Operator:
    """One end of a link that the service serves as an operator's."""

    def __init__(self, service: SchedulerService) -> None:
        ours, theirs = socketpair()
        self.link, self.server = Link(ours), Link(theirs, reads_always=False)
        hello = Hello("operator", os.urandom(16).hex(), "o", details={"owner": "ann@head"})
        self.link.send(Kind.HELLO, hello.body())
        self.serving = gevent.spawn(self._serve, service)
        self.link.hear_hello("scheduler")
        self.parts: list[Frame] = []

    def _serve(self, service: SchedulerService) -> None:
        service.serve(self.server, self.server.hear_hello("client", "operator"))
        self.server.close()

    def ask(self, what: str, of: dict[str, Any] | None = None) -> None:
        self.link.send(Kind.REQUEST, [1, what, of or {}])

    def read(self) -> LinkEnd:
        """Read until the answer is whole, or the link ends."""

        def take(frame: Frame) -> None:
            self.parts.append(frame)
            if frame.kind != Kind.RESPONSE or not frame.body[1]:
                self.link.close()

        with gevent.Timeout(DEADLINE, AssertionError("the answer does not end")):
            return self.link.read(take)

    def end(self) -> None:
        self.link.close()
        self.serving.join(DEADLINE)


def test_others_are_served_between_the_parts_of_an_answer(service: SchedulerService) -> None:
    turns: list[int] = []
    operator = Operator(service)

    def others() -> None:
        while True:
            turns.append(operator.server.sent_bytes)
            gevent.sleep(1e-6)  # as bytes of others come

    beside = gevent.spawn(others)
    operator.ask("nodes")
    operator.read()
    beside.kill()
    rows = [row for part in operator.parts for row in part.body[2].get("nodes", [])]
    assert [row["name"] for row in rows] == [f"node{number}" for number in range(NODES)]
    assert {row["state"] for row in rows} == {"away"}
    assert max(len(part.body[2].get("nodes", [])) for part in operator.parts) <= PART
    assert len(set(turns)) > NODES // PART // 2, "others had no turn while it was answered"
    operator.end()


def test_an_operator_that_does_not_read_costs_no_more_than_a_part(
    service: SchedulerService,
) -> None:
    operator = Operator(service)
    operator.ask("status", {"nodes": True})
    with gevent.Timeout(DEADLINE, AssertionError("the kernel takes everything")):
        while not operator.server.unsent:
            gevent.sleep(0.001)
    for _ in range(100):
        gevent.sleep(1e-6)  # in which it might go on
    kept = sum(len(piece) for piece in operator.server._unsent)
    assert 0 < kept < 200 * 1024, "the answer waits in our memory"
    operator.read()
    last = [part.body[2] for part in operator.parts if "totals" in part.body[2]]
    assert last[0]["totals"]["nodes_away"] == NODES
    operator.end()


@pytest.mark.parametrize(
    ("what", "of", "why"),
    [
        ("dance", {}, "does not know the request 'dance'"), ("explain", {}, "nothing was named"),
        ("drain", {"node": 7}, "nothing was named"), ("cancel", {"what": " "}, "nothing was named"),
        ("cancel", {"what": "work"}, "no cluster 'work'; there are none"),
        ("drain", {"node": "nobody"}, "no node 'nobody'; "),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_and_the_link_goes_on(
    service: SchedulerService, what: str, of: dict[str, Any], why: str
) -> None:
    operator = Operator(service)
    operator.ask(what, of)
    operator.read()
    assert why in operator.parts[0].body[2]["error"]
    operator.end()


def test_a_second_request_before_the_answer_ends_the_link(service: SchedulerService) -> None:
    operator = Operator(service)
    operator.ask("nodes")
    operator.ask("nodes")
    operator.ask("nodes")
    assert "before the first was answered" in operator.read().reason
    operator.end()
