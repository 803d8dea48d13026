"""`SharedJobCluster`: a cluster whose scheduler is a service that many programs share."""

import atexit
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from dispy.client import arguments
from dispy.client.cluster import JobCluster
from dispy.client.nodes import NodeAllocate, addresses_in
from dispy.client.options import check_priority
from dispy.client.owner import owner_here
from dispy.client.reporting import JobCallback, StatusCallback
from dispy.client.search import Search, Wanted
from dispy.client.session import Session, forget_after_fork
from dispy.client.settings import resolve_here
from dispy.client.waiting import make_lock
from dispy.model.errors import DispyError
from dispy.worker import inside

if TYPE_CHECKING:
    from dispy.client.attachable import AttachableSession, AttachedCluster
    from dispy.client.discovery import Discovery
    from dispy.client.remote import RemoteScheduler
    from dispy.scheduler.nodes import RemoteNode
    from dispy.scheduler.service import Scheduler


KEEP_MOST = 10 * 365 * 86400.0  # seconds


class SharedJobCluster(JobCluster):
    """As `JobCluster`, with the nodes of a `dispy scheduler`, which it shares with others."""

    _own: "AttachableSession | None" = None  # for a cluster that others may attach to

    def __init__(
        self,
        computation: Callable[..., Any] | str,
        nodes: Any = None,
        depends: Sequence[Any] = (),
        callback: JobCallback | None = None,
        cluster_status: StatusCallback | None = None,
        *,
        scheduler_node: str | None = None,
        scheduler_host: str | None = None,
        scheduler_port: int | None = None,
        dispy_port: int | None = None,
        client_port: int | None = None,
        exclusive: bool = False,
        priority: int = 0,
        weight: float = 1.0,
        name: str | None = None,
        key: str | bool | None = None,
        **options: Any,
    ) -> None:
        """Open the cluster at a scheduler; the other arguments are those of `JobCluster`.

        scheduler_node, scheduler_host: name or address of the scheduler's machine (this one).
        scheduler_port: its port (51349). dispy_port: two less than that; ports of nodes are the
            scheduler's affair.
        exclusive: begin when no other cluster runs, and let none run meanwhile. This returns at
            once, and jobs wait until then.
        priority: its jobs go before those of all clusters with less (-1000 to 1000), unless the
            scheduler's policy is "load". weight: how many times the part of a cluster of weight 1
            it has (0.001 to 1000), where the policy is "fair", as it is by default.
        name: what the cluster is called; None: as its computation.
        key: who knows it, and the name, may attach to the cluster when this program has ended, or
            has left it (`detach`). True: a random one is made; it is the cluster's `key`.
        Without effect, as this program dials the scheduler, which has the nodes and keeps what
        is given to it: client_port, recover_file, local_node.

        Raises DispyError.
        """
        host = arguments.newer("scheduler_host", scheduler_host, "scheduler_node", scheduler_node)
        port = arguments.choose_scheduler_port(scheduler_port, dispy_port)
        self.scheduler_ip_addr, self.scheduler_port = address_of(host, port)
        self.exclusive = arguments.check_flag(exclusive, "exclusive")
        self.priority = check_priority(priority, "priority")
        self.weight = arguments.check_weight(weight)
        arguments.pass_over(
            client_port=client_port, recover_file=options.pop("recover_file", None),
            local_node=options.pop("local_node", None),
        )  # fmt: skip
        self.key = _check_key(name, key)
        if self.key:
            from dispy.client.attachable import AttachableSession  # most clusters have no key

            inside.refuse_to_open()
            address = self.scheduler_ip_addr, self.scheduler_port
            self._own = AttachableSession(address, str(name), self.key)
        try:
            super().__init__(
                computation, nodes, depends, callback, cluster_status,
                recover_file=False, local_node=False, **options,
            )  # fmt: skip
        except BaseException:
            self._end_own()
            raise
        if self._own is not None:
            self._calls.kind = self._own.kind
        if name:
            self.name = name

    @classmethod
    def attach(
        cls,
        name: str,
        key: str,
        nodes: Any = None,
        callback: JobCallback | None = None,
        cluster_status: StatusCallback | None = None,
        *,
        scheduler_host: str | None = None,
        scheduler_port: int | None = None,
        **options: Any,
    ) -> "AttachedCluster":
        """Return a cluster that another program has opened with this name and key.

        Its `jobs` are those whose results no program has asked for, in the order in which they
        were submitted: they wait, run, or have ended. A job has the `id` that it was given, else
        its number; its arguments are not known. The cluster is this program's from now on: another
        one that still has it is told so, and its part of the cluster closes.
        nodes: those that the cluster may use besides the ones it has; None: as it was opened.
        options: secret, certfile, keyfile, cafile, insecure and loglevel, as for `JobCluster`.
        Raises DispyError where the scheduler does not answer, or has no such cluster.
        """
        from dispy.client.attachable import AttachedCluster

        if not (isinstance(name, str) and name and isinstance(key, str) and key):
            raise DispyError("attach wants the name and the key of a cluster, as texts")
        more = {"callback": callback, "cluster_status": cluster_status, **options}
        return AttachedCluster(name, key, nodes, scheduler_host, scheduler_port, more)

    def detach(self, timeout: float | None = None, keep: float | None = None) -> bool:
        """Leave the cluster to the scheduler, with its jobs and results, for others to attach to.

        True when the scheduler has all that was submitted; jobs that are not done are Abandoned
        in this program then, without callbacks. False where `timeout` seconds were not enough,
        or the cluster is closed. keep: seconds for which the scheduler keeps it, if these are more
        than its zombie_interval. The program's end does the same. Raises DispyError for a cluster
        without a key.
        """
        if self._own is None:
            raise DispyError(f"cluster {self.name} has no key, so nobody could attach to it")
        keep = arguments.check_interval(keep, "keep", 0, KEEP_MOST)
        self._own.check_process()
        if not self._open or not self._own.hub.call(self._own.leave, self, keep, timeout):
            return False
        self._end_own()
        return True

    def close(self, timeout: float | None = None, terminate: bool = False) -> bool | None:
        """As `JobCluster.close`; nobody can attach to it any more."""
        is_closed = super().close(timeout, terminate)
        if is_closed:
            self._end_own()
        return is_closed

    def _end_own(self) -> None:
        """End the session that is this cluster's alone."""
        if self._own is not None:
            self._own.end()
            atexit.unregister(self._own._at_exit)
            _sessions.pop(self._own.place, None)

    def _place_among_others(self) -> dict[str, Any]:
        """Return how it stands among the clusters of others, as the scheduler is told."""
        return {
            "exclusive": self.exclusive, "priority": self.priority, "weight": self.weight,
            "owner": owner_here(),
        }  # fmt: skip

    def _find_session(self) -> Session:
        if self._own is not None:
            _sessions[self._own.place] = self._own
            return self._own
        return get_shared_session((self.scheduler_ip_addr, self.scheduler_port))

    def _look_for_nodes(
        self,
        session: Session,
        allocations: Sequence[NodeAllocate],
        node_port: int | None,
        *_: Any,
    ) -> Search:
        """Return the record of no search: the scheduler has the nodes, and trusts them."""
        return Search(Wanted(allocations, node_port, True, False, False, ()))


def _check_key(name: str | None, key: str | bool | None) -> str:
    """Return a cluster's key, "": it has none; raises DispyError."""
    if name is not None and not (isinstance(name, str) and name and name.isprintable()):
        raise DispyError(f"name: {name!r} is no name of a cluster")
    if key is None or key is False:
        return ""
    if not name:
        raise DispyError("a cluster with a key has a name too, by which others attach to it")
    if key is True:
        from dispy.protocol.claims import random_key

        return random_key()
    if not isinstance(key, str) or not key:
        raise DispyError("key: a text that others cannot guess, or True for a random one")
    return key


def address_of(host: str | None, port: int | None) -> tuple[str, int]:
    """Return a scheduler's address; None: as this program's settings say. Raises DispyError."""
    host = host or str(resolve_here("client", {})["scheduler"].value)
    port = arguments.choose_scheduler_port(port, None)
    try:
        return addresses_in(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))[0], port
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise DispyError(f"scheduler_host: {host!r} has no address: {why}") from None


class SharedSession(Session):
    """The session of a process at one shared scheduler."""

    def __init__(self, address: tuple[str, int]) -> None:
        # Dialling takes threads of gevent's pool, and a program that ends at once cannot import
        # these any more.
        import concurrent.futures.thread  # noqa: F401

        self.address = address
        super().__init__()

    def _make_scheduler(self, identity: str, name: str) -> "Scheduler":
        from dispy.client.remote import RemoteScheduler
        from dispy.client.shared_offering import SharedOffering

        made = RemoteScheduler(self, self.address, identity, name, self.proof.credentials)
        self.offering = SharedOffering(self, made)
        return cast("Scheduler", made)  # it has what a session asks of one

    def search_lines(self, cluster: JobCluster) -> list[str]:
        """Return nothing: the search is the scheduler's, and so is what to do about it."""
        return []

    def node_free(self, cluster_id: int, node: "RemoteNode") -> None:
        """Have a cluster set up anew on a node, as its rules or itself has it."""
        self.scheduler.closing.forgive(node, cluster_id)
        super().node_free(cluster_id, node)

    def explaining(self, call: Callable[..., None], *arguments: Any) -> None:
        """Run it in a greenlet, as it waits for the scheduler's answer."""
        import gevent

        gevent.spawn(call, *arguments)

    def settle(self) -> None:
        """Wait until the scheduler has done what it was told."""
        cast("RemoteScheduler", self.scheduler).settle()

    def _make_discovery(self) -> "Discovery":
        return cast("Discovery", NoDiscovery())


_sessions: dict[tuple[Any, ...], SharedSession] = {}  # by address; those of one cluster by more
_making = make_lock()


def get_shared_session(address: tuple[str, int]) -> SharedSession:
    """Return this process's session for a shared scheduler, made when first asked for."""
    with _making:  # nothing waits in here
        if address not in _sessions:
            _sessions[address] = SharedSession(address)
        return _sessions[address]


def _forget_all_after_fork() -> None:
    global _making
    _making = make_lock()
    before = list(_sessions.values())
    _sessions.clear()
    for session in before:
        forget_after_fork(session)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all_after_fork)


class NoDiscovery:
    """The scheduler searches for nodes, not its clients."""

    def begin(self, number: int, search: Search, interval: float | None) -> None:
        """Search for nothing."""

    def widen(self, number: int, allocations: Sequence[NodeAllocate]) -> None:
        """Search for nothing."""

    def ask_now(self, number: int, allocations: Sequence[NodeAllocate]) -> None:
        """Search for nothing."""

    def end(self, number: int) -> None:
        """Nothing has begun."""

    def close(self) -> None:
        """Nothing has begun."""
