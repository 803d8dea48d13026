"""Frames of all sizes arrive whole and in order through TLS, however little the kernel takes."""

import random
import socket as plain_socket

import gevent
import pytest
from gevent.socket import socketpair

from dispy.net import tls
from dispy.net.link import Link
from dispy.net.tls import JOINED_BYTES, RECORD_BYTES, WRITTEN_BYTES, handshake, own_context
from dispy.protocol.frames import CHUNK_SIZE, Frame
from dispy.protocol.messages import Kind

DEADLINE = 30.0  # seconds
KERNEL_BYTES = 32 * 1024  # less than one write of ours, so that each is interrupted
SIZES = [
    around + by
    for around in (0, RECORD_BYTES, JOINED_BYTES, WRITTEN_BYTES, CHUNK_SIZE, 3 * WRITTEN_BYTES)
    for by in (-8, -7, -1, 0, 1, 7)
    if around + by >= 0
]


@pytest.fixture(params=["in place", "by pyOpenSSL alone"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Link, Link]:
    if request.param == "by pyOpenSSL alone":
        monkeypatch.setattr(tls, "_reader", lambda connection: connection.recv_into)
    ours, theirs = socketpair()
    for sock in (ours, theirs):
        sock.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_SNDBUF, KERNEL_BYTES)
        sock.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_RCVBUF, KERNEL_BYTES)
    context = own_context()
    accepting = gevent.spawn(handshake, theirs, context, False)
    dialled = handshake(ours, context, True)
    return Link(dialled), Link(accepting.get(timeout=DEADLINE))


@pytest.mark.parametrize("seed", range(3))
def test_frames_of_all_sizes_arrive_whole_while_both_sides_send(
    links: tuple[Link, Link], seed: int
) -> None:
    rng = random.Random(seed)
    heard: list[list[tuple[int, int]]] = [[], []]
    done = [gevent.event.Event(), gevent.event.Event()]
    sizes = [rng.sample(SIZES, len(SIZES)) for _ in links]

    def handle(side: int, frame: Frame) -> None:
        if frame.kind == Kind.PIECE:
            piece = memoryview(frame.buffers[0])
            assert bytes(piece) == bytes([len(heard[side])]) * len(piece)
            heard[side].append((frame.body[1], len(piece)))
            if len(heard[side]) == len(SIZES):
                done[side].set()

    readers = [
        gevent.spawn(link.read, lambda frame, side=side: handle(side, frame))
        for side, link in enumerate(links)
    ]
    for number in range(len(SIZES)):
        for side, link in enumerate(links):
            size = sizes[side][number]
            link.send(Kind.PIECE, [b"key", number, None], [bytes([number]) * size])
            if rng.random() < 0.5:
                link.send(Kind.CANCEL, [0, [number]])  # goes between two chunks
        if rng.random() < 0.3:
            gevent.sleep(0)  # what is sent next finds a write that waits for the kernel
    with gevent.Timeout(DEADLINE, AssertionError("not all has arrived")):
        for event in done:
            event.wait()
    assert heard == [list(enumerate(sizes[1])), list(enumerate(sizes[0]))]
    for link in links:
        link.close()
    assert not any(reader.get(timeout=DEADLINE).refused for reader in readers)
