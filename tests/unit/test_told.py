"""What a program makes of what a shared scheduler tells it."""

from types import SimpleNamespace
from typing import Any

from dispy.client.told import Told
from dispy.model.statuses import Status
from dispy.protocol.messages import Kind, split_payloads
from dispy.scheduler.nodes import Nodes

TABLE = {"name": "n", "ip_addr": "10.0.0.1", "port": 51348, "cpus": 1, "python": "3.11"}


class Session:
    """Writes down what a session would be told."""

    def __init__(self) -> None:
        self.jobs = {1: None}
        self.told: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *what: self.told.append((name, *what))

    def names(self) -> list[str]:
        return [each[0] for each in self.told]


def met() -> SimpleNamespace:
    """A program that has met a node of its scheduler, where cluster 7 is ready."""
    session, nodes = Session(), Nodes()
    told = Told(session, nodes, {7}, {})  # type: ignore[arg-type]
    told.take(Kind.NODE, ["n", TABLE], ())
    told.take(Kind.CHANGED, [7, "n", int(Status.Initialized), None], ())
    session.told.clear()
    return SimpleNamespace(session=session, nodes=nodes, told=told)


def test_a_job_whose_start_was_not_told_has_begun_when_it_sends_a_value() -> None:
    program = met()
    (value,), buffers = split_payloads([b"value"])
    for _ in range(2):
        program.told.take(Kind.VALUE, [7, "n", 1, value], buffers)
    assert program.session.names() == ["started", "provisional", "provisional"]


def test_a_lost_node_is_closed_once_whether_or_not_the_scheduler_says_so() -> None:
    program = met()
    program.told.take(Kind.LOST, ["n", "it was cut off"], ())
    program.told.take(Kind.CHANGED, [7, "n", int(Status.Closed), None], ())
    assert program.session.names() == ["node_changed", "node_lost"]
    assert not program.nodes


def test_a_restarted_scheduler_that_has_yet_to_meet_a_node_says_nothing_of_it() -> None:
    program = met()
    program.told.take(Kind.NODE, ["n", {**TABLE, "python": "", "cpus": 4}], ())
    assert program.nodes["n"].hello.python == "3.11"
    assert program.nodes["n"].cpus == 1


def test_what_ended_on_a_node_that_has_yet_to_be_told_of_is_not_lost() -> None:
    program = met()
    (value,), buffers = split_payloads([b"value"])
    for node_id in ("other", "gone"):
        program.told.take(Kind.VALUE, [7, node_id, 1, value], buffers)
        program.told.take(Kind.ENDED, [7, node_id, [1], [1.0], [2.0], [value], []], buffers)
    assert not program.session.told
    program.told.take(Kind.RESYNC, [], ())
    program.told.take(Kind.NODE, ["n", TABLE], ())
    program.told.take(Kind.NODE, ["other", {**TABLE, "name": "other"}], ())
    program.told.take(Kind.RESYNCED, [], ())
    names = [name for name in program.session.names() if not name.startswith("node")]
    assert names == ["started", "provisional", "finished"] * 2
    nodes = [each[2].name for each in program.session.told if each[0] == "finished"]
    assert nodes == ["other", "a node that is gone"]
