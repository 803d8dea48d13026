"""Signs of life to many nodes: as often as they were told, in parts, and silent ones are cut."""

from itertools import pairwise
from time import monotonic
from typing import Any

import gevent

from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.scheduler.heartbeat import TURN_NODES, Heartbeat
from dispy.scheduler.nodes import SILENT, RemoteNode

DEADLINE = 30.0  # seconds
PULSE = 0.4


class StandIn:
    """A link whose other side says something all the time, or nothing."""

    def __init__(self, speaks: bool) -> None:
        now = monotonic()
        self.spoke, self._heard, self._speaks = now, now, speaks
        self.pulses: list[float] = []
        self.cut_for = ""

    @property
    def heard(self) -> float:
        return monotonic() if self._speaks else self._heard

    def send(self, kind: int, body: Any) -> None:
        assert (kind, body) == (Kind.PULSE, [])
        self.spoke = monotonic()
        self.pulses.append(self.spoke)

    def cut(self, why: str) -> None:
        self.cut_for = why


def node_with(link: StandIn, number: int) -> RemoteNode:
    hello = Hello("node", f"{number:032}", f"n{number}")
    made = RemoteNode(f"n{number}", f"n{number}", "10.0.0.1", 51348, 1, hello, link, 1)  # type: ignore[arg-type]
    made.pulse_seconds = PULSE
    return made


def test_a_node_that_has_nothing_of_ours_is_left_in_peace_for_longer() -> None:
    used, unused = StandIn(speaks=False), StandIn(speaks=False)
    nodes = {"n0": node_with(used, 0), "n1": node_with(unused, 1)}
    nodes["n0"].opened.add(1)
    heartbeat = Heartbeat(nodes)
    heartbeat.want(1, PULSE)
    try:
        with gevent.Timeout(DEADLINE, AssertionError("they have not both been cut")):
            while not unused.cut_for:
                gevent.sleep(0.01)
    finally:
        heartbeat.stop()
    assert used.cut_for == SILENT
    gaps = [after - before for before, after in pairwise(unused.pulses)]
    assert min(gaps) > PULSE


def test_each_of_many_nodes_hears_from_us_and_none_but_silent_ones_are_cut() -> None:
    count = 2 * TURN_NODES + 7
    links = [StandIn(speaks=number != 3) for number in range(count)]
    nodes = {f"n{number}": node_with(link, number) for number, link in enumerate(links)}
    heartbeat = Heartbeat(nodes)
    heartbeat.want(1, PULSE)
    try:
        with gevent.Timeout(DEADLINE, AssertionError("they have not all been told, or cut")):
            while min(len(link.pulses) for link in links if link is not links[3]) < 3:
                gevent.sleep(0.01)
            while not links[3].cut_for:
                gevent.sleep(0.01)
    finally:
        heartbeat.stop()
    assert links[3].cut_for == SILENT
    assert not [link for link in links if link.cut_for and link is not links[3]]
    # Not all in one turn of the loop: what is near in time was sent in one.
    turns = {round(link.pulses[-1], 2) for link in links if link.pulses}
    assert len(turns) > 1
