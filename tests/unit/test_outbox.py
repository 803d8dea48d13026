"""Whatever befalls links, memory and the scheduler, a client is told each thing that lasts once."""

import os
import tempfile
from typing import Any
from unittest import mock

import gevent
from gevent.event import Event
from hypothesis import given, settings
from hypothesis import strategies as st

from dispy.protocol.messages import Kind
from dispy.scheduler import outbox
from dispy.scheduler.budget import Budget
from dispy.scheduler.durable import Durable
from dispy.scheduler.journal import SqliteJournal
from dispy.scheduler.outbox import LIFE_BITS, Outbox

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # no waiting for a disk
SMALL = {"PASSING_LIMIT": 350, "WINDOW_COUNT": 4, "WINDOW_BYTES": 400, "READ_COUNT": 2}
STEPS = ["tell", "tell", "say", "turn", "take", "heard", "break", "connect", "kill"]


class Wire:
    """A link to the client: what is sent lies here until it is taken."""

    def __init__(self) -> None:
        self.sent: list[list[Any]] = []

    def send(self, kind: int, body: list[Any], buffers: Any = ()) -> None:
        assert kind == Kind.SAID
        self.sent.append([*body, list(map(bytes, buffers))])


class Story:
    """A scheduler, of one client, that may be killed; and the client."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.life = 0
        self.told = 0  # things that last
        self.received: list[int] = []
        self.heard = 0  # the number that the client stands at
        self.state = self.known_state = 0
        self.wire: Wire | None = None
        self.begin()

    def begin(self) -> None:
        self.life += 1
        self.journal = SqliteJournal(self.directory, self.failed)
        known = self.journal.load()
        self.durable = Durable(self.journal)
        self.budget = Budget(150)
        self.outbox = Outbox(
            1, self.durable, self.budget, self.resync, self.life, known.finals.get(1, ())
        )
        # What was not safe is as if it had not happened; nobody has seen it.
        left = [each.jobs[0] for each in known.finals.get(1, ())]
        assert self.received == sorted(set(self.received))
        self.told = max([*left, *self.received], default=0)

    def failed(self, why: str) -> None:
        raise AssertionError(why)

    def resync(self) -> None:
        self.outbox.say(Kind.RESYNC, [])
        self.outbox.say(Kind.NODE, [self.state])
        self.outbox.say(Kind.RESYNCED, [])

    def tell(self) -> None:
        self.told += 1
        size = 10 * (self.told % 5)
        self.outbox.tell(Kind.ENDED, [self.told], [bytes(size)], 1, [self.told], size)

    def say(self) -> None:
        self.state += 1
        self.outbox.say(Kind.NODE, [self.state])

    def turn(self) -> None:
        """Let all be written and read that can be."""
        for _ in range(2):
            done = Event()
            self.durable.when_safe(done.set)
            assert done.wait(30)
            with gevent.Timeout(30):
                while self.outbox._reading:
                    gevent.sleep(0.001)

    def take(self) -> None:
        """The client reads the next thing."""
        if self.wire is not None and self.wire.sent:
            number, kind, body, buffers = self.wire.sent.pop(0)
            assert number > self.heard
            self.heard = number
            if kind == Kind.ENDED:
                self.received.append(body[0])
                assert list(map(len, buffers)) == [10 * (body[0] % 5)]
            elif kind == Kind.NODE:
                self.known_state = body[0]

    def hear(self) -> None:
        if self.wire is not None:
            self.outbox.taken(self.heard)

    def break_link(self) -> None:
        if self.wire is not None:
            self.outbox.gone()
            self.wire = None

    def connect(self) -> None:
        self.wire = Wire()
        self.outbox.came(self.wire, self.heard)  # type: ignore[arg-type]

    def kill(self) -> None:
        """End the process in the middle: what was not committed is not there any more."""
        self.outbox.gone()
        self.wire = None
        self.durable.record = lambda entry: None  # type: ignore[method-assign]
        self.durable._waiting.clear()
        self.durable._recorded = False
        self.durable._committed = lambda: None  # type: ignore[method-assign]
        self.journal.close()
        self.begin()

    def drain(self) -> None:
        self.connect()
        for _ in range(3 * (self.told + 10)):
            self.turn()
            while self.wire is not None and self.wire.sent:
                self.take()
            self.hear()
            if not len(self.outbox) and not self.outbox.missed:
                return
        raise AssertionError(f"{len(self.outbox)} things are never told")


@settings(max_examples=int(os.environ.get("DISPY_EXAMPLES", "60")), deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_what_lasts_is_told_once_and_in_order_whatever_happens(steps: list[str]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory, mock.patch.multiple(outbox, **SMALL):
        story = Story(directory)
        does = {
            "tell": story.tell, "say": story.say, "turn": story.turn, "take": story.take,
            "heard": story.hear, "break": story.break_link, "connect": story.connect,
            "kill": story.kill,
        }  # fmt: skip
        for step in steps:
            does[step]()
        story.drain()
        assert story.received == list(range(1, story.told + 1))
        assert story.known_state == story.state
        assert story.budget.used == 0
        story.journal.close()


def test_what_running_jobs_write_is_not_kept_without_bound_for_who_does_not_take_it() -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        story = Story(directory)
        story.connect()
        for _ in range(1000):
            story.outbox.say(Kind.WROTE, [1, "n", 2, 1, 0, bytes(50_000)])
        assert len(story.outbox) < 100
        assert story.outbox.missed
        story.drain()
        assert story.known_state == story.state
        story.journal.close()


def test_a_client_that_is_away_takes_no_memory_beyond_the_limit() -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        story = Story(directory)
        story.connect()
        story.break_link()
        for _ in range(100):
            story.tell()
            story.turn()
        assert story.budget.used <= 150 + 150  # the limit, and what came before it was looked at
        assert len(story.outbox) >= 100
        story.drain()
        assert story.received == list(range(1, 101))
        assert story.heard >> LIFE_BITS == 1
        story.journal.close()
