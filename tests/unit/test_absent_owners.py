"""What a node keeps of an owner whose link is broken, and for how long."""

import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import Greenlet, socket

from dispy.net.link import Link
from dispy.node.service import Node
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind

DEADLINE = 10.0


class Client:
    """One whose computation waits for a file that never comes, so that no process is needed."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.connect()
        files = [["x", b"d" * 32, 5, 0o600, 1]]
        self.link.send(Kind.OPEN, [1, "n", {"program": True, "files": files}], [b"nothing"])
        wait_until(lambda: bool(node._table))

    def connect(self) -> None:
        theirs, ours = socket.socketpair()
        self.link = Link(ours)
        self.reader = gevent.spawn(self.link.read, lambda frame: None)
        hello = Hello("client", "c" * 32, "client")
        self.served = gevent.spawn(self.node.serve, Link(theirs), hello)
        gevent.sleep(0)

    def leave(self) -> None:
        self.link.close()
        gevent.joinall([self.served, self.reader], timeout=DEADLINE, raise_error=True)


def wait_until(holds: Callable[[], bool]) -> None:
    with gevent.Timeout(DEADLINE):
        while not holds():
            gevent.sleep(0.001)


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(**options: Any) -> Node:
        directory = tmp_path / "node"
        directory.mkdir()
        made.append(Node("n", 2, directory, store_size=1000, **options))
        return made[-1]

    yield make
    for node in made:
        node.stop("the test is over")


def sleeping() -> int:
    gc.collect()
    return sum(isinstance(it, Greenlet) and not it.dead for it in gc.get_objects())


def test_a_client_that_does_not_come_back_is_forgotten_in_time(
    make_node: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(zombie_seconds=0.06)
    client = Client(node)
    client.leave()
    assert node._owners
    with caplog.at_level(logging.WARNING, "dispy.node"):
        wait_until(lambda: not node._owners and not node._table)
    assert "did not come back in 0.001 minutes (zombie_interval)" in caplog.text


def test_a_link_that_breaks_ever_again_leaves_nothing_behind(
    make_node: Callable[..., Node],
) -> None:
    node = make_node(zombie_seconds=3600)
    client = Client(node)
    client.leave()
    before = sleeping()
    for _ in range(200):
        client.connect()
        client.leave()
    assert sleeping() <= before + 5
    assert node._owners


@pytest.mark.parametrize("seconds", [0, 3600])
def test_a_client_that_may_stay_away_is_waited_for(
    make_node: Callable[..., Node], seconds: float
) -> None:
    node = make_node(zombie_seconds=seconds)
    client = Client(node)
    client.leave()
    (owner,) = node._owners.values()
    assert (owner.waited_for is not None) == bool(seconds)
    client.connect()
    assert owner.waited_for is None
    assert list(node._owners.values()) == [owner]
    client.leave()
