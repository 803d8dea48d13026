"""One peer of a link can neither keep others from their turn nor fill this side's memory."""

import os
import socket as plain_socket
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import gevent
import pytest
from gevent.socket import socketpair

from dispy.net.link import DESCRIPTORS_KEPT, FRAMES_A_TURN, UNREAD, Link, LinkEnd
from dispy.node.offers import ASKED_LIMIT, PIECE_BYTES, Offers, _Offer
from dispy.node.offers import _state as offers_state
from dispy.node.owners import Owner
from dispy.protocol.frames import CHUNK, HEADER, SIZE, FrameRefused, encode_head
from dispy.protocol.messages import Kind
from dispy.system.segments import Descriptor

DEADLINE = 30.0  # seconds
QUESTION = encode_head(Kind.LIST, [1, 1])


class Ends:
    """A link, and the socket of its peer."""

    def __init__(
        self, answer: list[object] | None = None, reads_always: bool = True, gathers: bool = False
    ) -> None:
        self.peer, ours = socketpair()
        self.link = Link(ours, reads_always=reads_always, gathers=gathers)
        self.handled, self._answer = 0, answer
        self.turns: list[int] = []  # how many had been handled after each
        self.reading = gevent.spawn(self.link.read, self._handle, self._turn_over)

    def _handle(self, frame: object) -> None:
        self.handled += 1
        if self._answer is not None:
            self.link.send(Kind.PIECE, self._answer, [b""])

    def _turn_over(self) -> None:
        self.turns.append(self.handled)

    def close(self) -> LinkEnd:
        self.peer.close()
        end: LinkEnd = self.reading.get(timeout=DEADLINE)
        return end


def wait_until(holds: Callable[[], bool], what: str) -> None:
    with gevent.Timeout(DEADLINE, AssertionError(what)):
        while not holds():
            gevent.sleep(0.001)


def test_many_frames_of_one_read_are_handled_in_turns_and_all_of_them() -> None:
    ends, count = Ends(), 20 * FRAMES_A_TURN + 7
    writing = gevent.spawn(ends.peer.sendall, QUESTION * count)
    wait_until(lambda: ends.handled == count, "not all were handled")
    writing.get(timeout=DEADLINE)
    ends.close()
    steps = [after - before for before, after in pairwise([0, *ends.turns])]
    assert max(steps) == FRAMES_A_TURN
    assert sum(steps) == count


def test_a_peer_that_reads_no_answers_is_not_read_from_until_it_does() -> None:
    ends = Ends([b"a" * 100, 0, "not here"], reads_always=False)
    asking = gevent.spawn(ends.peer.sendall, QUESTION * (20 * UNREAD))
    wait_until(lambda: ends.link._waits_for_reader, "it goes on reading")
    assert len(ends.link._unsent) + len(ends.link._behind) <= UNREAD + 3 * FRAMES_A_TURN
    silent_since = ends.link.last_sign

    def read_a_bit() -> bool:
        """Read less than lets the link read again."""
        ends.peer.recv(1 << 16)
        return ends.link.last_sign > silent_since

    heard = ends.link.heard
    wait_until(read_a_bit, "a peer that reads is taken for silent")
    assert ends.link.heard == heard, "it was read from meanwhile"

    def read_all() -> None:
        while ends.peer.recv(1 << 20):
            pass

    reading = gevent.spawn(read_all)
    wait_until(lambda: ends.handled == 20 * UNREAD, "not all were answered in the end")
    asking.get(timeout=DEADLINE)
    reading.kill()
    ends.close()


def test_a_second_buffer_for_which_there_is_no_memory_ends_the_link_with_a_word() -> None:
    ends = Ends()
    sizes = []

    def one_only(size: int, readonly: bool) -> tuple[bytearray, memoryview]:
        if sizes:
            raise MemoryError
        sizes.append(size)
        buffer = bytearray(size)
        return buffer, memoryview(buffer)

    ends.link._decoder._memory = one_only
    body = b"\x93\x01\xa1n\x80"
    head = HEADER.pack(len(body), Kind.OPEN, 2) + SIZE.pack(1000) + SIZE.pack(1000) + body
    ends.peer.sendall(head + HEADER.pack(2000, CHUNK, 0))
    gevent.sleep(0.01)  # so that the rest is received where it belongs
    ends.peer.sendall(bytes(2000))
    end = ends.reading.get(timeout=DEADLINE)
    assert end.refused
    assert "there is no memory for it here" in end.reason
    assert b"there is no memory" in ends.peer.recv(1000)
    ends.close()


def test_pieces_of_a_file_are_read_one_after_the_other_as_they_leave(tmp_path: Path) -> None:
    """A FETCH of 30 bytes asks for 4 MiB; a peer that sends many holds no more than one here."""
    (tmp_path / "file").write_bytes(bytes(PIECE_BYTES))
    file = Descriptor(os.open(tmp_path / "file", os.O_RDONLY))
    ends, worker = Ends(), Ends()
    owner, offers = Owner("owner", "owner"), Offers(0)
    owner.link = ends.link
    state = offers_state(os.fstat(file.descriptor))
    offers._offers[b"key"] = _Offer(owner, 1, 1, {}, file, state, worker.link)
    for _ in range(ASKED_LIMIT):
        offers.fetch(owner, b"key", 0, PIECE_BYTES)
    with pytest.raises(FrameRefused, match="FETCHes at once"):
        offers.fetch(owner, b"key", 0, PIECE_BYTES)
    wait_until(lambda: ends.link.unsent, "nothing is sent")
    assert not ends.link._behind
    received = 0
    while received < 10 * PIECE_BYTES:
        received += len(ends.peer.recv(1 << 20))
        assert len(ends.link._behind) <= 1
    for each in (ends, worker):
        each.close()
    wait_until(lambda: not offers._asked, "what nobody reads any more is kept")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has memory files")
def test_a_peer_that_sends_descriptors_for_nothing_leaves_us_ours() -> None:
    theirs, ours = socketpair()
    link = Link(ours, shares_memory=True)
    reading = gevent.spawn(link.read, lambda frame: None)
    nothing = os.open(os.devnull, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd"))
    pulse = encode_head(Kind.PULSE, [])
    for _ in range(2 * DESCRIPTORS_KEPT // 128):
        plain_socket.send_fds(theirs, [pulse], [nothing] * 128)
        received = link.received_bytes + len(pulse)
        wait_until(lambda enough=received: link.received_bytes >= enough, "it was not read")
    assert len(os.listdir("/proc/self/fd")) <= before + DESCRIPTORS_KEPT
    theirs.close()
    assert not reading.get(timeout=DEADLINE).refused
    link.close()
    os.close(nothing)


def test_a_link_that_was_closed_before_it_is_read_has_ended() -> None:
    """In a process of its own: libev ends one that watches a closed descriptor."""
    program = """
import gevent
from gevent.socket import socketpair
from dispy.net.link import Link
from dispy.protocol.handshake import NoHello

for _ in range(2):
    ours, theirs = socketpair()
    link = Link(ours)
    reading = gevent.spawn(link.read, lambda frame: None)
    link.close()  # as when an answer comes before its reader has begun
    print(reading.get(timeout=30).reason)
    try:
        link.hear_hello("node")
    except NoHello as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("closed here") == 2


def test_who_waits_for_what_is_gathered_goes_on_when_it_has_left() -> None:
    peer, ours = socketpair()
    link = Link(ours, gathers=True)
    link.send(Kind.PIECE, [b"k", 0, None], [b"a piece"])
    with gevent.Timeout(DEADLINE):
        link.wait_sent()
    assert b"a piece" in peer.recv(1000)
    link.close()
    peer.close()
