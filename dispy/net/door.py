"""The door of a service: a listening socket, and the connections that have come through it.

Who comes in is a stranger until it is admitted, and may stay for STRANGER_SECONDS. How many
strangers there may be is for `dispy.protocol.admission` to say.
"""

import errno
import logging
from collections.abc import Callable
from contextlib import closing

import gevent
from gevent import socket

from dispy.model.credentials import Credentials
from dispy.net.secure import NotProven, Transport, accept
from dispy.protocol.admission import STRANGER_SECONDS, Admission, Stranger, bounds
from dispy.system.processes import descriptor_limit

CROWDED_SECONDS = 0.002  # between two newcomers while each has another one dropped
NO_ROOM_SECONDS = 0.1  # before the next attempt, when there is no descriptor left
_NO_MORE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NEXT_TURN = 1e-6  # seconds; a timer, because the loop looks for others' bytes before it


class Guest:
    """One connection at a door."""

    def __init__(self, door: "Door", stranger: Stranger) -> None:
        self._door, self._stranger = door, stranger
        self.address = stranger.address
        self._deadline = gevent.Timeout(
            STRANGER_SECONDS, TimeoutError("it has not proven itself in time")
        )
        self.admitted = False

    def admit(self) -> bool:
        """Count it among the known from now on; False: there are too many. Safe to call again."""
        if not self.admitted and self._door.known < self._door.bounds.known:
            self.admitted = True
            self._door.known += 1
            self._left()
        return self.admitted

    def _left(self) -> None:
        self._deadline.close()
        self._door.leaves(self._stranger)

    def serve(self, sock: socket.socket) -> None:
        """Run in a greenlet of its own, until the connection has ended."""
        self._deadline.start()
        try:
            with closing(sock):
                self._door.prove(sock, self)
        finally:
            self._left()
            if self.admitted:
                self._door.known -= 1


class Door:
    """Owns a listening socket and a greenlet for each connection; used on its hub."""

    def __init__(
        self,
        listening: socket.socket,
        credentials: Credentials,
        receive: Callable[[Transport, Guest], None],
        logger: logging.Logger,
    ) -> None:
        """receive: gets whoever has proven what it must, and serves it until it has gone.

        Where nothing has to be proven it still is a stranger, until `receive` has it admitted.
        """
        self._listening, self._credentials = listening, credentials
        self._receive, self._logger = receive, logger
        self.bounds = bounds(descriptor_limit())
        self.known = 0
        self._admission = Admission(self.bounds)
        self._strangers: dict[Stranger, gevent.Greenlet[..., None]] = {}
        self._accepting = gevent.spawn(self._accept)

    def _accept(self) -> None:
        no_room = False
        while True:
            try:
                sock, address = self._listening.accept()
            except OSError as error:
                if error.errno in _NO_MORE:
                    if not no_room:
                        self._logger.error(
                            "takes no new connections for now: %s; who is connected is served on",
                            error.strerror,
                        )
                    no_room = True
                    self._drop(self._admission.oldest())
                    gevent.sleep(NO_ROOM_SECONDS)
                else:  # that connection has gone already
                    self._logger.debug("a connection was not taken: %s", error)
                    gevent.sleep(_NEXT_TURN)
                continue
            if no_room:
                no_room = False
                self._logger.info("takes new connections again")
            gevent.sleep(CROWDED_SECONDS if self._enter(sock, address[0]) else _NEXT_TURN)

    def _enter(self, sock: socket.socket, address: str) -> bool:
        """Let a connection in; return whether another one had to go for it."""
        stranger, leaving = self._admission.arrived(address)
        self._strangers[stranger] = gevent.spawn(Guest(self, stranger).serve, sock)
        self._drop(leaving)
        return leaving is not None

    def _drop(self, stranger: Stranger | None) -> None:
        if stranger is not None:
            self._strangers[stranger].kill(block=False)
            self.leaves(stranger)

    def leaves(self, stranger: Stranger) -> None:
        """Forget a stranger, which goes or is known now."""
        self._admission.left(stranger)
        self._strangers.pop(stranger, None)

    def prove(self, sock: socket.socket, guest: Guest) -> None:
        """Have a connection prove what it must, and hand it on."""
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = accept(sock, self._credentials)
        except NotProven as error:
            self._logger.warning("refused %s: %s", guest.address, error)
            return
        except OSError as error:
            self._logger.debug("%s has not proven itself: %s", guest.address, error)
            return
        if self._credentials.protected:
            guest.admit()  # where that fails it hears why once it has said who it is
        self._receive(transport, guest)

    def close(self) -> None:
        """Take no more connections; those that are open go on."""
        self._accepting.kill()
        self._listening.close()
