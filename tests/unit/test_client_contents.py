"""Clients of a shared scheduler get what they have shown to have, and no more than their part.

A real service with real links over socket pairs; clients and the node are what the test makes them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from fuzz.loop import Wire, turn
from gevent import socket

from dispy.model.statuses import Status
from dispy.net.link import Link
from dispy.protocol.frames import Frame
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.scheduler.client_contents import ClientContents, Wanted
from dispy.scheduler.keeping import Attempt
from dispy.scheduler.serving import Keeping, SchedulerService
from dispy.shipping.contents import PIECE_SIZE, digest_of
from dispy.shipping.possession import new_proof

DEADLINE = 30.0  # seconds
SMALL, LARGE = b"small", b"large" * 100_000  # the second is worth a challenge
SETTINGS = {"implementation": Hello("", "", "").implementation, "python": Hello("", "", "").python}


class Patient(Wire):
    """A connection of who waits until all that he says fits in."""

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._ours.send(rest) :]
            except BlockingIOError:
                turn()


class Peer:
    """A client or the node, at the other end of a link."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self.heard, self._number = wire, list[Frame](), 0

    def say(self, kind: int, body: list[Any], *buffers: bytes) -> None:
        self._number += 1
        self.wire.tell(Kind.SAID, [self._number, int(kind), body], buffers)

    def wait_for(self, kind: int, within: float = DEADLINE) -> list[Any]:
        """Return the body of the next frame of this kind, in a SAID or not."""
        with gevent.Timeout(within, AssertionError(f"no {Kind(kind).name} came")):
            while True:
                for at, frame in enumerate(self.heard):
                    found, body = frame.kind, frame.body
                    if found == Kind.SAID:
                        _, found, body = body
                    if found == kind:
                        del self.heard[: at + 1]
                        return body  # type: ignore[no-any-return]
                turn()
                self.heard += self.wire.frames()

    def never_hears(self, kind: int) -> None:
        for _ in range(20):
            turn()
        self.heard += self.wire.frames()
        assert kind not in [frame.kind for frame in self.heard]

    def bring(self, content: bytes) -> None:
        """Answer FETCHes until all of a content was sent."""
        sent = 0
        while sent < len(content):
            digest, offset, length = self.wait_for(Kind.FETCH)
            piece = content[offset : offset + length]
            self.wire.tell(Kind.PIECE, [digest, offset, None], [piece])
            sent += length


class World:
    """A service, a node, and as many clients as come."""

    def __init__(self, keeping: Keeping) -> None:
        self.service = SchedulerService("s", "127.0.0.1", 0, keeping=keeping)
        self._greenlets: list[Any] = []
        ours, theirs = socket.socketpair()
        attempt, link = Attempt("127.0.0.1", 51348), Link(theirs)
        self._greenlets.append(gevent.spawn(self.service.scheduler._serve, link, attempt))
        self.node = Peer(Patient(ours))
        self.node.wire.tell(Kind.HELLO, Hello("node", "d" * 32, "n", details={"cpus": 8}).body())
        self.node.wait_for(Kind.HELLO)
        self.node.wire.tell(Kind.HELD, [[], []])
        self.node.wire.tell(Kind.SHARE, [8, 1])
        turn()

    def client(self, letter: str, settings: dict[str, Any] | None = None) -> Peer:
        """Return a client with a cluster 1 that may use the node."""
        ours, theirs = socket.socketpair()
        peer = Peer(Patient(ours))
        peer.wire.tell(Kind.HELLO, Hello("client", letter * 32, letter).body())
        self._greenlets.append(gevent.spawn(self._serve, theirs))
        peer.wait_for(Kind.HELLO)
        table = {"settings": {**SETTINGS, **(settings or {})}}
        peer.say(Kind.CLUSTER, [1, "c", table], b"code")
        (node_id,) = self.service.scheduler.nodes
        peer.say(Kind.ALLOT, [1, node_id, 8, {}])
        return peer

    def _serve(self, sock: Any) -> None:
        link = Link(sock, reads_always=False)
        self.service.serve(link, link.hear_hello("client"))

    def submit(self, client: Peer, job: int, content: bytes) -> None:
        needs = [[digest_of(content), len(content)]]
        client.say(Kind.SUBMIT, [1, None, [job], [b"call"], [[0, {"needs": needs}]]])

    def set_up(self) -> None:
        """Have the node run what comes."""
        cluster = self.node.wait_for(Kind.OPEN)[0]
        self.node.wire.tell(Kind.READY, [cluster, None, {}])

    def end(self) -> None:
        self.service.stop()
        gevent.killall(self._greenlets)


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(getattr(request, "param", Keeping(client_disk=1_000_000)))
    yield made
    made.end()


def test_a_node_gets_what_it_was_told_of_and_nothing_else(world: World) -> None:
    client = world.client("a")
    world.set_up()
    world.submit(client, 1, SMALL)
    client.bring(SMALL)
    assert world.node.wait_for(Kind.RUN)[3] == [[0, {"needs": [[digest_of(SMALL), len(SMALL)]]}]]
    world.node.wire.tell(Kind.FETCH, [digest_of(SMALL), 0, len(SMALL)])
    assert world.node.wait_for(Kind.PIECE) == [digest_of(SMALL), 0, None]
    world.submit(client, 2, LARGE)
    world.node.wire.tell(Kind.FETCH, [digest_of(LARGE), 0, 5])
    assert world.node.wait_for(Kind.PIECE)[2] == "it is not wanted any more"


def test_another_client_s_content_counts_for_who_sends_or_proves_it(world: World) -> None:
    owner, thief, other = (world.client(letter) for letter in "abc")
    for _ in range(3):
        world.set_up()
    world.submit(owner, 1, LARGE)
    owner.bring(LARGE)
    world.node.wait_for(Kind.RUN)
    world.submit(thief, 1, LARGE)
    digest, _ = thief.wait_for(Kind.PROVE)
    thief.wire.tell(Kind.PROVEN, [digest, _, b"x" * 32])
    asked, offset, length = thief.wait_for(Kind.FETCH)
    thief.wire.tell(Kind.PIECE, [asked, offset, None], [b"y" * length])
    given_up = thief.wait_for(Kind.GIVEN_UP)
    assert "changed while it was being sent" in given_up[4]
    world.node.never_hears(Kind.RUN)
    world.submit(other, 1, LARGE)
    digest, nonce = other.wait_for(Kind.PROVE)
    proof = new_proof(nonce)
    proof.update(LARGE)
    other.wire.tell(Kind.PROVEN, [digest, nonce, proof.digest()])
    world.node.wait_for(Kind.RUN)
    other.never_hears(Kind.FETCH)


def test_files_for_one_node_and_files_that_are_placed_have_to_be_shown_too(world: World) -> None:
    owner = world.client("a")
    world.set_up()
    world.submit(owner, 1, SMALL)
    owner.bring(SMALL)
    world.node.wait_for(Kind.RUN)
    thief = world.client("b")
    world.set_up()
    (node_id,) = world.service.scheduler.nodes
    files = [["f", digest_of(SMALL), len(SMALL), 0o600, 0]]
    thief.wire.tell(Kind.PLACE, [1, 7, {"files": files, "node": node_id}])
    digest = thief.wait_for(Kind.FETCH)[0]
    thief.wire.tell(Kind.PIECE, [digest, 0, "it is not here"], [b""])
    assert thief.wait_for(Kind.PLACED) == [1, 7, "it is not here"]
    world.node.never_hears(Kind.PLACE)
    thief.say(Kind.CLUSTER, [2, "c", {"settings": SETTINGS}], b"code")
    thief.say(Kind.ALLOT, [2, node_id, 8, {"own": {"files": files, "cpus": 100}}])
    digest = thief.wait_for(Kind.FETCH)[0]
    thief.wire.tell(Kind.PIECE, [digest, 0, "it is not here"], [b""])
    assert "it is not here" in thief.wait_for(Kind.CHANGED)[3]
    world.node.never_hears(Kind.OPEN)


def test_operators_see_and_cancel_jobs_that_wait_for_what_they_need(world: World) -> None:
    client = world.client("a")
    world.submit(client, 1, SMALL)
    world.submit(client, 2, SMALL)
    client.wait_for(Kind.FETCH)
    operators = world.service.operators
    rows = [row for part in operators._status({}, "ann") for row in part.get("clusters", ())]
    assert [row["waiting"] for row in rows] == [2]
    (told,) = operators._explain({"job": "1.1:1"}, "ann")
    assert "from its program" in told["lines"][0]
    for _ in operators._cancel({"what": "1.1:1"}, "ann"):
        pass
    assert client.wait_for(Kind.GIVEN_UP)[2:] == [[1], Status.Cancelled, "cancelled by ann"]
    for _ in operators._cancel({"what": "1.1"}, "ann"):
        pass
    assert client.wait_for(Kind.GIVEN_UP)[2] == [2]


def test_a_cluster_whose_files_do_not_come_is_opened_nowhere(world: World) -> None:
    files = [["f", digest_of(SMALL), len(SMALL), 0o600, 0]]
    client = world.client("a", {"files": files})
    client.say(Kind.SUBMIT, [1, None, [1], [b"call"], []])
    digest = client.wait_for(Kind.FETCH)[0]
    client.wire.tell(Kind.PIECE, [digest, 0, "it has gone"], [b""])
    assert "it has gone" in client.wait_for(Kind.GIVEN_UP)[4]
    client.say(Kind.SUBMIT, [1, None, [2], [b"call"], []])
    assert "it has gone" in client.wait_for(Kind.GIVEN_UP)[4]
    world.node.never_hears(Kind.OPEN)


def test_what_is_over_a_client_s_part_ends_its_job_and_nobody_else_s(world: World) -> None:
    client, other = world.client("a"), world.client("b")
    world.set_up()
    world.set_up()
    for job in range(2):
        content = bytes([job]) * 500_000
        world.submit(client, job, content)
        client.bring(content)
        world.node.wait_for(Kind.RUN)
    world.submit(client, 2, LARGE)
    assert "scheduler.client_disk" in client.wait_for(Kind.GIVEN_UP)[4]
    world.submit(other, 1, LARGE)
    other.bring(LARGE)
    world.node.wait_for(Kind.RUN)


@pytest.mark.parametrize("length", [0, -1, PIECE_SIZE + 1])
def test_who_asks_as_no_program_of_ours_does_is_refused(world: World, length: int) -> None:
    client = world.client("a")
    client.wire.tell(Kind.FETCH, [b"key", 0, length])
    assert "a piece has" in client.wait_for(Kind.REFUSE)[0]


def test_files_of_jobs_go_to_whose_the_jobs_are_and_are_dropped_with_them(world: World) -> None:
    owner, other = world.client("a"), world.client("b")
    world.set_up()
    world.set_up()
    owner.say(Kind.SUBMIT, [1, None, [5], [b"call"], []])
    cluster, (job,), *_ = world.node.wait_for(Kind.RUN)
    file = {"name": b"f", "size": 9, "mode": 0o600, "modified": 0, "other": "not passed on"}
    world.node.wire.tell(Kind.OFFER, [cluster, job, b"key", file])
    number, its_job, key, table = owner.wait_for(Kind.OFFER)
    assert (number, its_job) == (1, 5)
    assert "other" not in table
    other.wire.tell(Kind.FETCH, [key, 0, 9])
    assert other.wait_for(Kind.PIECE)[2] == "it is not offered any more"
    other.wire.tell(Kind.TOOK, [key, None])
    world.node.never_hears(Kind.TOOK)
    owner.wire.tell(Kind.FETCH, [key, 0, 9])
    assert world.node.wait_for(Kind.FETCH) == [b"key", 0, 9]
    world.node.wire.tell(Kind.PIECE, [b"key", 0, None], [b"in a file"])
    assert owner.wait_for(Kind.PIECE) == [key, 0, None]
    times = [0.0]
    world.node.wire.tell(Kind.RESULTS, [1, cluster, [job], times, times, [b"result"], []])
    owner.wait_for(Kind.ENDED)
    owner.wire.tell(Kind.FETCH, [key, 0, 9])
    assert owner.wait_for(Kind.PIECE)[2] == "it is not offered any more"


class Alone:
    """A client that is away, and so brings nothing."""

    name, link = "a", None

    def __init__(self, slot: int) -> None:
        self.slot = slot

    def tell(self, kind: int, body: list[Any]) -> None: ...


def test_after_a_restart_what_is_needed_again_is_there_for_whose_it_was(tmp_path: Path) -> None:
    before = ClientContents(tmp_path / "contents", outlive_power=True)
    brought = {}
    for slot, content in ((1, SMALL), (2, LARGE), (1, b"not needed"), (1, b"cut short")):
        brought[content] = Wanted([(digest_of(content), len(content))], {})
        own, done = before._of(Alone(slot)), list[Any]()
        arriving = before._store.begin(digest_of(content), len(content), "it")
        arriving.write(content)
        before._store.keep(arriving)
        arriving.close_and_clear()
        own.fetching.trust(digest_of(content))
        assert before.need(Alone(slot), content, brought[content], done.append)
    before._store.close()  # as if it was killed
    store = tmp_path / "contents" / "store"
    os.truncate(store / digest_of(b"cut short").hex(), 3)
    after = ClientContents(tmp_path / "contents")
    never: list[Any] = []
    assert after.need(Alone(1), "a", brought[SMALL], never.append)
    assert after.need(Alone(2), "b", brought[LARGE], never.append)
    assert not after.need(Alone(1), "c", brought[LARGE], never.append)  # it was another's
    assert not after.need(Alone(1), "d", brought[b"cut short"], never.append)
    after.settle()
    assert {path.name for path in store.iterdir()} == {
        digest_of(SMALL).hex(), digest_of(LARGE).hex(),
    }  # fmt: skip
    marks = {path.name for path in (tmp_path / "contents" / "marks").iterdir()}
    assert marks == {  # the last is of what client 1 has shown to have, and will send again
        f"1-{digest_of(SMALL).hex()}", f"2-{digest_of(LARGE).hex()}",
        f"1-{digest_of(b'cut short').hex()}",
    }  # fmt: skip
    for user in "abcd":
        after.release(user)
    after.close()
    assert not (tmp_path / "contents").exists()
