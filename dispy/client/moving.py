"""Named hosts whose address has changed while nobody answered at the old one.

Owned by the search, on the hub, whose resolver waits in a thread.
"""

from collections.abc import Callable, Iterable, Mapping

import gevent
from gevent import socket

from dispy.client.nodes import NodeAllocate, addresses_in
from dispy.client.search import Address, Search

LOOK_SECONDS = 3.0  # between looks at names whose hosts do not answer


class Moving:
    """Looks up again the names of hosts that are `unreachable`, for all searches.

    moved: gets the search, and the address that a name had and has; None: it had none.
    """

    def __init__(
        self,
        searches: Callable[[], Iterable[Search]],
        unreachable: Callable[[], Mapping[Address, str]],
        moved: Callable[[Search, Address | None, Address], None],
    ) -> None:
        self._searches, self._unreachable, self._moved = searches, unreachable, moved
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def begin(self, search: Search) -> None:
        """Look at a search's hosts from now on, if any is named by a name."""
        if self._greenlet is None and any(a.is_name for a in search.wanted.allocations):
            self._greenlet = gevent.spawn(self._look)

    def close(self) -> None:
        """Look no more."""
        if self._greenlet is not None:
            self._greenlet.kill(block=False)

    def _look(self) -> None:
        while True:
            gevent.sleep(LOOK_SECONDS)
            for search in list(self._searches()):
                for allocation in search.wanted.allocations:
                    if allocation.is_name:
                        self._look_up(search, allocation)

    def _look_up(self, search: Search, allocation: NodeAllocate) -> None:
        before, port = allocation.ip_addr, search.wanted.port_of(allocation)
        if before is not None and (before, port) not in self._unreachable():
            return
        try:
            found = addresses_in(socket.getaddrinfo(allocation.host, None, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            return  # whoever answers for names may be as unreachable as the host
        if found and before not in found:
            allocation.move(found[0])
            self._moved(search, None if before is None else (before, port), (found[0], port))
