"""A node's beacon and a client's ears on real sockets of the loopback network."""

import contextlib
import os
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import gevent
import pytest
from gevent.queue import Empty, Queue
from system.hostile import OTHER, SECRET

from dispy.model.credentials import Secret
from dispy.model.ports import CLIENT_PORT, NODE_PORT
from dispy.net.discovery import Beacon, Ears
from dispy.protocol.discovery import (
    ANSWERS_EACH,
    NONCE_BYTES,
    Here,
    Ping,
    decode_packet,
    encode_packet,
)
from dispy.protocol.signing import signed_answer
from dispy.system.network import LOOPBACK, share_port

HOST = "127.9.0.1"
HERE = Here("0123456789abcdef" * 2, "bench", NODE_PORT)


class Heard(Queue):
    """What ears heard, in order."""

    def take(self) -> tuple[object, str]:
        try:
            return self.get(timeout=30)
        except Empty:
            pytest.fail("nothing was heard in 30 s")


@pytest.fixture
def beacon() -> Iterator[Callable[..., Beacon]]:
    made: list[Beacon] = []

    def make(host: str = HOST, here: Here = HERE, secrets: Sequence[Secret] = ()) -> Beacon:
        made.append(Beacon(here, host, [LOOPBACK], lambda: secrets))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def ears() -> Iterator[Callable[..., tuple[Ears, Heard]]]:
    made: list[Ears] = []

    def make(*secrets: Secret) -> tuple[Ears, Heard]:
        heard = Heard()

        def take(packet: object, address: str, proven: bool) -> None:
            heard.put((packet, address) if proven else (packet, address, "not proven"))

        made.append(Ears(take, lambda: secrets))
        return made[-1], heard

    yield make
    for one in made:
        one.close()


def plain() -> socket.socket:
    sock = gevent.socket.socket(type=socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.bind(("127.0.0.1", 0))
    sock.settimeout(30)
    return sock


@pytest.mark.parametrize("address", [HOST, LOOPBACK.broadcast])
def test_a_ping_to_the_node_or_its_network_is_answered_from_the_nodes_address(
    beacon, ears, address: str
) -> None:
    beacon()
    ours, heard = ears()
    assert ours.ask(address, NODE_PORT) is None
    packet, source = heard.take()
    assert (packet.name, packet.port, source) == ("bench", NODE_PORT, HOST)


def test_an_answer_that_does_not_repeat_the_ping_is_not_heard(ears) -> None:
    ours, heard = ears()
    with plain() as forger:
        assert ours.ask("127.0.0.1", forger.getsockname()[1]) is None
        ping, client = forger.recvfrom(2048)
        forged = Here("f" * 32, "forged", NODE_PORT, os.urandom(NONCE_BYTES))
        true = Here("a" * 32, "true", NODE_PORT, decode_packet(ping).nonce)
        for packet in (forged, Here("f" * 32, "unasked", NODE_PORT), true):
            forger.sendto(encode_packet(packet), client)
    assert heard.take()[0].name == "true"


def test_every_program_of_a_machine_hears_an_announcement(beacon, ears) -> None:
    programs = [ears() for _ in range(3)]
    assert [ours.listen() for ours, _ in programs] == [None] * 3
    beacon()
    assert [heard.take() for _, heard in programs] == [(HERE, HOST)] * 3


def test_who_cannot_have_the_clients_port_is_told_why(ears) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("", CLIENT_PORT))
        ours, _ = ears()
        assert "in use" in ours.listen()


def test_junk_is_not_answered_and_harms_nothing(beacon) -> None:
    beacon()
    chance = random.Random(7)
    ping = Ping(bytes(NONCE_BYTES))
    with plain() as sock:
        for _ in range(300):
            wire = bytearray(encode_packet(ping))
            for _ in range(chance.randint(1, 9)):
                wire[chance.randrange(30)] = chance.randrange(256)
            size = chance.choice([0, 5, 40, 511, 512, 2000])
            sock.sendto(bytes(wire[:size]).ljust(size, b"\1"), (HOST, NODE_PORT))
            gevent.sleep(0)
        gevent.sleep(1.1)  # into the next second, in which this address may be answered again
        sock.sendto(encode_packet(Ping(b"\7" * NONCE_BYTES)), (HOST, NODE_PORT))
        answers = [sock.recvfrom(2048)]
        while decode_packet(answers[-1][0]).nonce != b"\7" * NONCE_BYTES:
            answers.append(sock.recvfrom(2048))
        assert {address for _, address in answers} == {(HOST, NODE_PORT)}


def test_a_flood_is_answered_so_often_in_a_second(beacon) -> None:
    beacon()
    ping = encode_packet(Ping(bytes(NONCE_BYTES)))
    count = 40 * ANSWERS_EACH
    with plain() as sock:
        sock.settimeout(0.5)
        seconds = gevent.get_hub().loop.now()
        answers = 0
        for _ in range(count // 50):
            for _ in range(50):
                sock.sendto(ping, (HOST, NODE_PORT))
            gevent.sleep(0)
        with contextlib.suppress(TimeoutError):
            while sock.recv(2048):
                answers += 1
        seconds = gevent.get_hub().loop.now() - seconds
    assert 1 <= answers <= ANSWERS_EACH * (seconds + 2)
    assert answers < count / 2


def test_a_client_that_tries_the_port_does_not_keep_a_node_from_it(beacon, ears) -> None:
    trying = socket.socket(type=socket.SOCK_DGRAM)
    trying.bind((LOOPBACK.broadcast, NODE_PORT))  # as a client that looks whether it is in use
    gevent.spawn_later(0.02, trying.close)
    beacon()
    ours, heard = ears()
    assert ours.ask(LOOPBACK.broadcast, NODE_PORT) is None
    assert heard.take()[1] == HOST


def test_a_node_without_its_udp_port_works_on_and_says_so(beacon, caplog) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind((HOST, NODE_PORT))
        beacon()
    assert f"UDP port {NODE_PORT} of {HOST} cannot be used" in caplog.text
    assert "`dispy doctor`" in caplog.text


# -- with a secret


@pytest.mark.parametrize("host", [HOST, "0.0.0.0"])
def test_a_node_proves_a_secret_that_both_have_while_it_is_changed(beacon, ears, host: str) -> None:
    beacon(host, secrets=[OTHER, SECRET])
    ours, heard = ears(SECRET)
    assert ours.ask(LOOPBACK.broadcast, NODE_PORT) is None
    packet, source = heard.take()
    assert (packet.identity, source) == (HERE.identity, HOST if host == HOST else "127.0.0.1")


@pytest.mark.parametrize("secrets", [(), (OTHER,)])
def test_a_node_without_our_secret_is_heard_as_one_and_its_end_is_not(
    beacon, ears, secrets: tuple[Secret, ...]
) -> None:
    ours, heard = ears(SECRET)
    assert ours.listen() is None
    node = beacon(secrets=secrets)
    assert [len(heard.take()) for _ in range(2)] == [3, 3], "announced twice, not proven"
    assert ours.ask(HOST, NODE_PORT) is None
    assert heard.take()[2] == "not proven"
    node.close()
    with plain() as sock:  # what is sent after its end comes after that
        sock.sendto(encode_packet(replace(HERE, name="later")), ("127.0.0.1", CLIENT_PORT))
    assert heard.take()[0].name == "later"


def test_a_program_without_a_secret_hears_that_a_node_with_one_is_there(beacon, ears) -> None:
    beacon(secrets=[SECRET])
    ours, heard = ears()
    assert ours.ask(HOST, NODE_PORT) is None
    packet, source = heard.take()
    assert (packet.identity, packet.proofs, source) == (HERE.identity, b"", HOST)


def test_what_is_announced_with_our_secret_is_asked_again_and_its_end_is_heard(
    beacon, ears
) -> None:
    ours, heard = ears(SECRET)
    assert ours.listen() is None
    node = beacon(secrets=[SECRET])
    packet, source = heard.take()
    assert packet.nonce, "the answer to a ping"
    assert (packet.identity, source) == (HERE.identity, HOST)
    node.close()
    while isinstance(heard.peek()[0], Here):
        heard.take()  # the second announcement, asked again too
    assert heard.take()[0].identity == HERE.identity


def test_what_is_played_back_leads_nowhere(beacon, ears) -> None:
    """Answers and announcements, from other addresses and from the one that they are true for."""
    with contextlib.ExitStack() as held:
        spy = held.enter_context(gevent.socket.socket(type=socket.SOCK_DGRAM))
        share_port(spy)
        spy.bind(("", CLIENT_PORT))
        spy.settimeout(30)
        node = beacon(secrets=[SECRET])
        announced = spy.recv(2048)
        node.close()
        while isinstance(decode_packet(gone := spy.recv(2048)), Here):
            pass
        there = held.enter_context(_bound(HOST, NODE_PORT))
        elsewhere = held.enter_context(_bound("127.9.0.2", NODE_PORT))
        ours, heard = ears(SECRET)
        assert ours.listen() is None
        elsewhere.sendto(announced, ("127.0.0.1", CLIENT_PORT))
        assert heard.take()[1:] == ("127.9.0.2", "not proven")
        elsewhere.sendto(gone, ("127.0.0.1", CLIENT_PORT))
        there.sendto(announced.rstrip(b"\0"), ("127.0.0.1", CLIENT_PORT))
        there.sendto(announced, ("127.0.0.1", CLIENT_PORT))
        ping, client = there.recvfrom(2048)
        assert len(ping) <= len(announced), "and nothing larger than what caused it"
        assert isinstance(decode_packet(ping), Ping)
        _assert_silent(there)
        # The answer of one who has the secret, as the address where it was overheard would say it.
        true = replace(HERE, nonce=decode_packet(ping).nonce)
        answer = encode_packet(signed_answer(true, decode_packet(ping), [SECRET], HOST))
        elsewhere.sendto(answer, client)
        assert heard.take()[1:] == ("127.9.0.2", "not proven")
        there.sendto(answer, client)
        assert len(heard.take()) == 2
        assert heard.empty(), "neither the end nor the announcement was believed"


def _assert_silent(sock: socket.socket) -> None:
    sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        sock.recv(2048)


def _bound(address: str, port: int) -> socket.socket:
    sock = gevent.socket.socket(type=socket.SOCK_DGRAM)
    sock.bind((address, port))
    sock.settimeout(30)
    return sock
