"""The door of a service: a listening socket, and the connections that have come through it.

Who comes in is a stranger until it is admitted, and may stay for STRANGER_SECONDS. How many
strangers there may be is for `dispy.protocol.admission` to say, when their handshakes begin for
`dispy.protocol.turns`.
"""

import errno
import logging
from collections.abc import Callable
from contextlib import closing
from time import monotonic, thread_time

import gevent
from gevent import socket
from gevent.event import Event

from dispy.model.credentials import Credentials
from dispy.net.dialing import make_ready
from dispy.net.secure import NotProven, Transport, accept
from dispy.protocol.admission import (
    STRANGER_SECONDS,
    Admission,
    Bounds,
    Stranger,
    bounds,
    network_of,
)
from dispy.protocol.refusals import MINUTE, Refusals
from dispy.protocol.turns import Turns
from dispy.system.descriptors import descriptor_limit

BATCH = 16  # connections that are taken at once
CROWDED_SECONDS = 0.01  # between two batches while there are too many strangers, at least
CROWDED_RESTS = 30.0  # for each second of processor that a batch took
NO_ROOM_SECONDS = 0.1  # before the next attempt, when there is no descriptor left
NO_ROOM_TOLD_SECONDS = 60.0  # between two words of it
_NO_MORE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CROWD = "more connections come from there than may be without a proof; the oldest go"
_NEXT_TURN = 1e-6  # seconds; a timer, because the loop looks for others' bytes before it


class Guest:
    """One connection at a door, with a greenlet of its own."""

    def __init__(self, door: "Door", address: str) -> None:
        self._door, self.address = door, address
        self.place: Stranger | None = None  # in a room of strangers
        self.greenlet: gevent.Greenlet[..., None] | None = None
        self.turn = Event()
        self._deadline: gevent.Timeout | None = None
        self.admitted = False

    def admit(self, more: int = 0) -> bool:
        """Count it among the known from now on; False: there are too many. Safe to call again.

        more: of them than there may be otherwise.
        """
        if not self.admitted and self._door.known < self._door.bounds.known + more:
            self.admitted = True
            self._door.known += 1
            self._end_deadline()
            self._door.leaves(self)
        return self.admitted

    def refuse(self, reason: object) -> None:
        """Log why it is refused, unless that has been said lately."""
        self._door.refused(self.address, str(reason))

    def serve(self, sock: socket.socket) -> None:
        """Run in its greenlet, until the connection has ended."""
        self._deadline = gevent.Timeout.start_new(
            STRANGER_SECONDS, TimeoutError("it has not proven itself in time")
        )
        try:
            with closing(sock):
                self._door.prove(sock, self)
        finally:
            self._end_deadline()
            self._door.leaves(self)
            if self.admitted:
                self._door.known -= 1

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.close()
            self._deadline = None


class Door:
    """Owns a listening socket and a greenlet for each connection; used on its hub."""

    def __init__(
        self,
        listening: socket.socket,
        credentials: Credentials,
        receive: Callable[[Transport, Guest], None],
        logger: logging.Logger,
        limits: Bounds | None = None,
    ) -> None:
        """receive: gets whoever has proven what it must, and serves it until it has gone.

        limits: None: as the limit of descriptors has it.
        Where nothing has to be proven it still is a stranger, until `receive` has it admitted.
        """
        self._listening, self._credentials = listening, credentials
        self._receive, self._logger = receive, logger
        self.bounds = limits or bounds(descriptor_limit())
        self.known = 0
        self._silent, self._proving = Admission(self.bounds), Admission(self.bounds)
        self._guests: dict[Stranger, Guest] = {}
        self._turns: Turns[Guest] = Turns(monotonic())
        self._turns_changed = Event()
        self._refusals = Refusals()
        self._no_room = False  # and that was said
        self._no_room_told = -NO_ROOM_TOLD_SECONDS
        self._telling: gevent.Greenlet[..., None] | None = None
        self._tasks = [gevent.spawn(self._accept), gevent.spawn(self._give_turns)]

    # -- coming in

    def _accept(self) -> None:
        """Take connections, a batch in a turn of the loop.

        On a machine under load each rest of a millisecond takes several, and a flood one by one
        would take as long.
        """
        self._listening.settimeout(0)
        while True:
            socket.wait_read(self._listening.fileno())
            began = thread_time()
            try:
                crowded = self._accept_some()
            except OSError as error:
                self._tell_no_room(error)
                self._drop(self._silent.oldest() or self._proving.oldest())
                gevent.sleep(NO_ROOM_SECONDS)
            else:
                rest = max(CROWDED_SECONDS, CROWDED_RESTS * (thread_time() - began))
                gevent.sleep(rest if crowded else _NEXT_TURN)

    def _accept_some(self) -> bool:
        """Take those who wait; return whether there were too many. Raises OSError: no room."""
        crowded = False
        for _ in range(BATCH):
            try:
                sock, address = self._listening.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _NO_MORE:
                    raise
                self._logger.debug("a connection was not taken: %s", error)  # it has gone already
                continue
            if self._no_room:
                self._no_room = False
                self._logger.info("takes new connections again")
            guest = Guest(self, address[0])
            crowded = self._enter(self._silent, guest) or crowded
            if guest.place is None:
                sock.close()
            else:
                guest.greenlet = gevent.spawn(guest.serve, sock)
        return crowded

    def _tell_no_room(self, error: OSError) -> None:
        now = monotonic()
        if now - self._no_room_told >= NO_ROOM_TOLD_SECONDS:
            self._no_room, self._no_room_told = True, now
            self._logger.error(
                "takes no new connections for now: %s; who is connected is served on",
                error.strerror,
            )

    def _enter(self, room: Admission, guest: Guest) -> bool:
        """Let a stranger into a room, if it may; return whether that is crowded."""
        guest.place, leaving = room.arrived(guest.address, monotonic())
        if guest.place is None:
            self.refused(guest.address, _CROWD)
            return True
        self._guests[guest.place] = guest
        self._drop(leaving)
        return leaving is not None

    def _drop(self, stranger: Stranger | None) -> None:
        if stranger is not None:
            self.refused(stranger.address, _CROWD)
            guest = self._guests[stranger]
            self.leaves(guest)
            if guest.greenlet is not None:
                guest.greenlet.kill(block=False)

    def leaves(self, guest: Guest) -> None:
        """Forget a stranger, which goes or is known now; safe to call again."""
        if guest.place is not None:
            self._silent.left(guest.place)
            self._proving.left(guest.place)
            del self._guests[guest.place]
            guest.place = None

    # -- telling

    def refused(self, address: str, reason: str) -> None:
        """Log a refusal, or count it where such have been said lately."""
        if not self._refusals.counts:
            self._telling = gevent.spawn_later(MINUTE, self._say_sums)
        if self._refusals.refused(network_of(address), reason):
            self._logger.warning("refused %s: %s", address, reason)

    def _say_sums(self) -> None:
        for line in self._refusals.sums():
            self._logger.warning("%s", line)

    # -- proving

    def prove(self, sock: socket.socket, guest: Guest) -> None:
        """Have a connection prove what it must, and hand it on."""
        proven = False
        try:
            make_ready(sock)
            transport = accept(sock, self._credentials, lambda: self._take_turn(guest))
            proven = True
        except NotProven as error:
            guest.refuse(error)
            return
        except OSError as error:
            self._logger.debug("%s has not proven itself: %s", guest.address, error)
            return
        finally:
            if guest.turn.is_set():
                self._tell_turns(guest, proven)
        if self._credentials.protected:
            guest.admit()  # where that fails it hears why once it has said who it is
        self._receive(transport, guest)

    def _take_turn(self, guest: Guest) -> None:
        """Wait, in the guest's greenlet, until its handshake may begin."""
        self.leaves(guest)
        self._enter(self._proving, guest)
        if guest.place is None:
            raise ConnectionAbortedError("too many of its address prove themselves")
        network = network_of(guest.address)
        self._turns.enter(guest, network, monotonic())
        self._turns_changed.set()
        try:
            guest.turn.wait()
        finally:
            self._turns.leave(guest, network)

    def _tell_turns(self, guest: Guest, proven: bool) -> None:
        if proven:
            self._turns.proven(network_of(guest.address))
            self._turns_changed.set()
        else:
            self._turns.failed(network_of(guest.address), monotonic())

    def _give_turns(self) -> None:
        """Let one handshake begin in a turn of the loop, so that others are served between."""
        while True:
            seconds = self._turns.due(monotonic())
            if seconds is None or seconds > 0:
                self._turns_changed.clear()
                self._turns_changed.wait(seconds)
                continue
            guest = self._turns.next(monotonic())
            if guest is not None:
                guest.turn.set()
                gevent.sleep(_NEXT_TURN)

    def close(self) -> None:
        """Take no more connections; those that are open go on."""
        gevent.killall(self._tasks)
        if self._telling is not None:
            self._telling.kill()
            self._say_sums()
        self._listening.close()
