"""What a shared scheduler says to a client that connects: nothing that a kill could take back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from dispy.model.credentials import NOTHING
from dispy.net.dialing import connect
from dispy.net.link import Link
from dispy.net.secure import dial
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.scheduler.serving import Keeping, SchedulerService

SECONDS = 10.0  # for what takes none, on a machine that is busy with something else
TABLE = {"settings": {}, "reentrant": True, "pulse": None, "retries": None, "exclusive": False}


class Disk:
    """Holds back what a journal is to commit."""

    def __init__(self, service: SchedulerService) -> None:
        self._journal: Any = service._durable.journal
        self._commit = self._journal.commit
        self._held: list[Callable[[], None]] = []
        self._journal.commit = self._held.append

    @property
    def held(self) -> int:
        return len(self._held)

    def write_one(self) -> None:
        self._commit(self._held.pop(0))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[SchedulerService]:
    made = SchedulerService("s", "127.0.0.1", 0, keeping=Keeping(str(tmp_path / "data")))
    yield made
    made.stop()


def wait_for(condition: Callable[[], object]) -> None:
    with gevent.Timeout(SECONDS):
        while not condition():
            gevent.sleep(0.001)


def greet(service: SchedulerService, conversation: str = "") -> "gevent.Greenlet[..., Any]":
    """Connect as a client; return what gets the link and the scheduler's hello."""

    def connect_and_say() -> tuple[Link, Hello]:
        link = Link(dial(connect("127.0.0.1", service.port, SECONDS), NOTHING, "127.0.0.1"))
        details = {"heard": 0, "conversation": conversation}
        return link, link.exchange_hello(
            Hello("client", "0" * 32, "me", details=details), "scheduler"
        )

    return gevent.spawn(connect_and_say)


def test_a_client_is_told_that_it_is_known_only_when_that_is_written(
    service: SchedulerService,
) -> None:
    disk = Disk(service)
    greeting = greet(service)
    wait_for(lambda: disk.held)
    greeting.join(timeout=0.1)
    assert not greeting.ready(), "it was greeted, and would be forgotten by a kill"
    disk.write_one()
    link, hello = greeting.get(timeout=SECONDS)
    assert hello.details["conversation"]
    link.close()


def test_a_client_that_connects_anew_is_not_told_of_what_is_not_written_yet(
    service: SchedulerService,
) -> None:
    link, hello = greet(service).get(timeout=SECONDS)
    (client,) = service.clients
    disk = Disk(service)

    def say(number: int) -> None:
        link.send(Kind.SAID, [number, Kind.CLUSTER, [number, "c", dict(TABLE)]], [b"code"])
        wait_for(lambda: client.hearing.arrived == number and disk.held == number)

    say(1)
    greeting = greet(service, hello.details["conversation"])
    wait_for(lambda: service._door.known == 2)
    say(2)
    disk.write_one()
    again, second = greeting.get(timeout=SECONDS)
    assert second.details["conversation"] == hello.details["conversation"]
    assert second.details["heard"] < 2, "the client would not say it again after a kill"
    disk.write_one()
    again.close()
