"""When a node is dialled again, when it is lost, and who notices that it slept itself."""

import contextlib
import socket as plain_socket
from collections.abc import Iterator
from random import Random
from time import monotonic

import gevent
import pytest
from gevent import socket
from gevent.event import Event

from dispy.net.dialing import connect, make_ready
from dispy.net.link import LinkEnd
from dispy.net.rhythm import Rhythm
from dispy.scheduler import keeping
from dispy.scheduler.keeping import (
    ATTEMPTS_A_SECOND,
    ATTEMPTS_AT_KNOWN,
    GREETING_SECONDS,
    KNOWN_SECONDS,
    RETRY_SECONDS,
    Attempt,
    Keepers,
    Pauses,
    Served,
)
from dispy.scheduler.nodes import Away


@pytest.fixture
def listening() -> Iterator[plain_socket.socket]:
    with plain_socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_who_slept_counts_the_silence_of_others_from_when_it_woke_up() -> None:
    rhythm = Rhythm(0.0)
    for second in range(1, 11):
        rhythm.beat(float(second), late=5.0)
    assert rhythm.silent_since(3.0, 10.0, late=5.0) == 3.0  # nobody slept
    assert rhythm.silent_since(10.0, 70.0, late=5.0) == 70.0  # asked before the beat itself woke up
    rhythm.beat(71.0, late=5.0)
    assert rhythm.silent_since(10.0, 71.0, late=5.0) == 70.0
    assert rhythm.silent_since(70.5, 71.0, late=5.0) == 70.5


def test_pauses_grow_to_their_bound_and_are_of_random_length() -> None:
    first, second = (Pauses(Random(seed)) for seed in (1, 2))
    paths = [[pauses.next(KNOWN_SECONDS) for _ in range(20)] for pauses in (first, second)]
    again = Pauses(Random(1))
    assert paths[0] == [again.next(KNOWN_SECONDS) for _ in range(20)]
    assert all(abs(a - b) > 1e-6 for a, b in zip(*paths, strict=True)), "two dial in step"
    whole = RETRY_SECONDS[0]
    for pause in paths[0]:
        assert whole / 2 <= pause <= whole
        whole = min(whole * 1.5, KNOWN_SECONDS)
    assert whole == KNOWN_SECONDS
    first.begin()
    assert first.next(KNOWN_SECONDS) <= RETRY_SECONDS[0]


def test_the_kernel_sends_again_every_two_seconds_where_it_can_be_asked(
    listening: plain_socket.socket,
) -> None:
    sock = connect(*listening.getsockname(), 5)
    accepted, _ = listening.accept()
    make_ready(accepted)  # type: ignore[arg-type]
    for end in (sock, accepted):
        try:
            assert end.getsockopt(plain_socket.IPPROTO_TCP, 44) <= 2000  # TCP_RTO_MAX_MS
        except OSError:
            pytest.skip("this kernel cannot be asked; links are dialled anew")
        finally:
            end.close()


class Remote:
    """What keepers look at of a node."""

    def __init__(self) -> None:
        self.node_id = self.name = "n"
        self.ip_addr, self.port = "127.0.0.1", 1
        self.link: object | None = None
        self.away: Away | None = None


class Network:
    """Keepers of one address, whose node is met once and is then gone for good."""

    def __init__(self, until_lost: float) -> None:
        self.node = Remote()
        self.nodes = {"n": self.node}
        self.lost: list[str] = []
        self.over = Event()
        self.attempts: list[Attempt] = []
        self.until_lost = until_lost
        self.keepers = Keepers(
            self.nodes, self.serve, self.take_out,  # type: ignore[arg-type]
            lambda heard: heard + self.until_lost - monotonic(), Random(0),
        )  # fmt: skip

    def serve(self, sock: socket.socket, attempt: Attempt) -> Served:
        sock.close()
        self.attempts.append(attempt)
        if len(self.attempts) == 1:
            self.node.away = Away("it fell silent", monotonic(), monotonic())
            return self.node, LinkEnd("it fell silent")  # type: ignore[return-value]
        return None, LinkEnd("it does not say who it is")

    def take_out(self, node: Remote, reason: str) -> None:
        del self.nodes["n"]
        self.lost.append(reason)
        self.over.set()


def test_a_node_that_is_silent_is_lost_when_its_time_is_over_and_told_of_before(
    listening: plain_socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network(until_lost=1.2)
    network.keepers.keep(*listening.getsockname(), found=False)
    assert network.over.wait(20)
    network.keepers.stop(1)
    said = "it fell silent 1 s ago, and it does not say who it is"
    assert network.lost == [f"{said}; `dispy doctor 127.0.0.1` checks the way to it"]
    (told,) = (r.message for r in caplog.records if "is away" in r.message)
    assert "it fell silent 0 s ago; its jobs go on there" in told
    for attempt in network.attempts[1:]:  # each ends when the node is lost, if not before
        assert attempt.before is network.node
        assert attempt.deadline == pytest.approx(network.node.away.heard + 1.2, abs=0.05)


def test_the_more_do_not_answer_the_less_often_each_is_dialled() -> None:
    network = Network(until_lost=0.0)
    for count in (10, 10_000):
        network.keepers.unreachable = {("127.0.0.1", port): "no answer" for port in range(count)}
        found, known = (network.keepers._spread(s) for s in (RETRY_SECONDS[1], KNOWN_SECONDS))
        if count == 10:
            assert max(found, known) < RETRY_SECONDS[0]
        else:
            assert count / ATTEMPTS_A_SECOND / 2 <= found <= count / ATTEMPTS_A_SECOND
            assert count / ATTEMPTS_AT_KNOWN / 2 <= known <= count / ATTEMPTS_AT_KNOWN


def test_few_nodes_are_greeted_at_once_and_who_says_nothing_holds_up_others_for_a_second(
    listening: plain_socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "DIALS", 2)
    network = Network(until_lost=10.0)
    silent, inside, most = Event(), 0, 0
    greeted: list[int] = []

    def serve(sock: socket.socket, attempt: Attempt) -> Served:
        nonlocal inside, most
        greeted.append(attempt.port)
        inside += 1
        most = max(most, inside)
        if attempt.host == "127.0.0.1":
            silent.wait()
        inside -= 1
        attempt.greeted()
        attempt.greeted()  # twice is once
        silent.wait()
        return None, LinkEnd("it was silent")

    network.keepers = Keepers(
        network.nodes, serve, network.take_out,  # type: ignore[arg-type]
        lambda heard: 10.0, Random(0),
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"):
            server = stack.enter_context(plain_socket.create_server((host, 0)))
            network.keepers.keep(*server.getsockname(), found=False)
        with gevent.Timeout(20, AssertionError("they wait for the one that says nothing")):
            while len(greeted) < 4:
                gevent.sleep(0.01)
        assert most <= 2
        gevent.sleep(GREETING_SECONDS)
        assert network.keepers._dials.counter == 2, "a turn was not given back, or twice"
        silent.set()
        network.keepers.stop(1)


def test_a_node_that_another_address_reaches_is_not_lost(listening: plain_socket.socket) -> None:
    network = Network(until_lost=0.0)
    dialled = Event()
    serve = network.serve

    def serve_first(sock: socket.socket, attempt: Attempt) -> Served:
        served = serve(sock, attempt)
        if len(network.attempts) == 1:
            network.node.link, network.node.away = object(), None  # it has come by the other one
        if len(network.attempts) == 4:
            dialled.set()
        return served

    network.keepers._serve = serve_first  # type: ignore[assignment]
    network.keepers.keep(*listening.getsockname(), found=False)
    assert dialled.wait(20)
    gevent.sleep(0)
    network.keepers.stop(1)
    assert not network.lost
    assert network.attempts[-1].before is None
