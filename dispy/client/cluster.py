"""`JobCluster`: a computation, the nodes it may use, and the jobs submitted to it."""

import logging
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from time import monotonic, time
from types import TracebackType
from typing import Any, NamedTuple

from dispy.client.finding import find_nodes
from dispy.client.job import DispyJob
from dispy.client.mapping import map_calls
from dispy.client.nodes import DispyNode, parse_nodes
from dispy.client.report import print_table
from dispy.client.session import get_session
from dispy.client.settings import client_settings
from dispy.client.speaking import set_level
from dispy.client.waiting import make_event, make_lock
from dispy.model.errors import DispyError
from dispy.model.statuses import FINAL, Status
from dispy.shipping.code import pack_function
from dispy.shipping.payloads import CannotPack, pack_call
from dispy.shipping.sharing import share

logger = logging.getLogger("dispy.client")

JobCallback = Callable[[DispyJob], Any]
StatusCallback = Callable[[int, DispyNode | None, DispyJob | None], Any]


class ClusterStatus(NamedTuple):
    """What `JobCluster.status` returns."""

    nodes: list[DispyNode]
    jobs_pending: int


class JobCluster:
    """A handle on jobs of one computation, a Python function or the path of a program.

    May be used from any thread, callbacks included.
    """

    def __init__(
        self,
        computation: Callable[..., Any] | str,
        nodes: Any = None,
        depends: Sequence[Any] = (),
        callback: JobCallback | None = None,
        cluster_status: StatusCallback | None = None,
        *,
        job_status: JobCallback | None = None,
        loglevel: int | None = None,
        ping_interval: float | None = None,
        pulse_interval: float | None = None,
        reentrant: bool = False,
        node_port: int | None = None,
        insecure: bool | None = None,
        local_node: bool | None = None,
    ) -> None:
        """Open the cluster and look for its nodes.

        computation: a function, or the path of a program (looked for in PATH too).
        nodes: hosts (names, addresses, patterns with `*`), `(host, port)` tuples, NodeAllocate
            objects; without a pattern, exactly those. None: any that answer.
        callback, job_status: called with each job that has a provisional or final result.
        cluster_status: called as (status, node or None, job or None).
        loglevel: of dispy's own messages (INFO).
        ping_interval: seconds between searches for nodes (1 to 1000); None: searched for once,
            and nodes that start later announce themselves.
        pulse_interval: seconds between signs of life (0.1 to 1000); a node that misses five
            is lost.
        reentrant: whether jobs of a lost node may run again elsewhere.
        node_port: of nodes whose port is not named (51348); a pattern then means that one alone.
        insecure: use nodes of other machines without a secret (no).
        local_node: start a node of our own if none is found (yes).

        loglevel, the intervals, node_port, insecure and local_node may also be set by
        DISPY_LOGLEVEL, DISPY_PING_INTERVAL and so on, and by the table [client] of
        ~/.config/dispy/config.toml and /etc/dispy/config.toml; an argument wins.

        Raises DispyError for arguments that cannot be used.
        """
        chosen = client_settings(
            loglevel=loglevel, ping_interval=ping_interval, pulse_interval=pulse_interval,
            node_port=node_port, insecure=insecure, local_node=local_node,
        )  # fmt: skip
        set_level(chosen["loglevel"])
        self._session = get_session()
        self._number = next(self._session.cluster_numbers)
        self.name, settings, content = _prepare(computation)
        if depends:
            raise DispyError("depends: files and modules cannot be shipped yet by this version")
        self._is_program = bool(settings["program"])
        self.callback = self.job_status = _check_callback(job_status or callback, 1)
        self.cluster_status = _check_callback(cluster_status, 3)
        self.ping_interval: float | None = chosen["ping_interval"]
        self.pulse_interval: float | None = chosen["pulse_interval"]
        self.reentrant = bool(reentrant)
        self.allocations = parse_nodes(nodes)
        self.start_time, self.end_time = time(), 0.0
        self._nodes: dict[str, DispyNode] = {}
        self._guard = make_lock()
        self._pending = 0
        self._waiters: list[Any] = []  # events of threads that wait for `_pending` to be 0
        self._fresh: deque[int] = deque()  # submitted, not yet taken by the hub
        self._announced = False  # the hub knows that `_fresh` has something
        self._listeners: list[Callable[[Sequence[DispyJob]], None]] = []
        self._cancelling: set[int] = set()
        self._open = True
        if self.job_status or self.cluster_status:
            self._session.callbacks.start()
        self._search = find_nodes(
            self._session, self._number, self.allocations, chosen["node_port"],
            chosen["insecure"], chosen["local_node"], chosen["broadcast"], self.ping_interval,
        )  # fmt: skip
        self._session.hub.call(self._session.open, self, settings, content)

    # -- submitting

    def submit(self, *args: Any, **kwargs: Any) -> DispyJob | None:
        """Queue a call with these arguments; None where they cannot be sent (it is logged)."""
        return self._submit(None, args, kwargs)

    def submit_job_id(self, job_id: Any, *args: Any, **kwargs: Any) -> DispyJob | None:
        """As `submit`, with the job's `id`."""
        job = self._submit(None, args, kwargs)
        if job is not None and job_id:
            job.id = job_id
        return job

    def submit_node(self, node: Any, *args: Any, **kwargs: Any) -> DispyJob | None:
        """As `submit`, for this node alone: a DispyNode, an address or a name; None if unknown."""
        node_id = self._node_id(node)
        if node_id is None:
            logger.warning("submit_node: no node %r is ready for %s", node, self.name)
            return None
        return self._submit(node_id, args, kwargs)

    def submit_job_id_node(
        self, job_id: Any, node: Any, *args: Any, **kwargs: Any
    ) -> DispyJob | None:
        """As `submit_node`, with the job's `id`."""
        job = self.submit_node(node, *args, **kwargs)
        if job is not None and job_id:
            job.id = job_id
        return job

    def _submit(
        self, node_id: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> DispyJob | None:
        if self._is_program:
            if kwargs:
                logger.warning("a program takes no keyword arguments: %s", ", ".join(kwargs))
                return None
            args = tuple(map(str, args))
        try:
            payload = pack_call(self.name, args, kwargs)
            if type(payload) is not bytes and self._session.local_node is not None:
                payload = share(payload, self._session.segments)
        except CannotPack as error:
            logger.error("%s", error)
            return None
        job = DispyJob(args, kwargs, next(self._session.numbers))
        job._payload = payload
        self._queue(job, node_id)
        return job

    def _queue(self, job: DispyJob, node_id: str | None = None) -> None:
        """Hand a job to the hub. Costs 1 us, and a wake-up when the hub sleeps."""
        job._cluster = self
        with self._guard:
            if not self._open:
                raise AttributeError(f"cluster {self.name} is closed; it takes no more jobs")
            self._pending += 1
        self._session.jobs[job._number] = job
        if self.cluster_status is not None and type(job) is DispyJob:
            self._notify(Status.Created, None, [job])
        if node_id is not None:
            self._session.hub.post(partial(self._take_pinned, job._number, node_id))
            return
        self._fresh.append(job._number)
        if not self._announced:
            self._announced = True
            self._session.hub.post(self._take_fresh)

    def _take_fresh(self) -> None:
        """On the hub: queue all that has been submitted since."""
        self._announced = False  # before looking: what comes later announces itself again
        numbers = list(self._fresh)
        for _ in numbers:
            self._fresh.popleft()
        self._session.scheduler.submit(self._number, numbers)

    def _take_pinned(self, number: int, node_id: str) -> None:
        self._session.scheduler.submit(self._number, [number], node_id)

    def map(self, iterable: Iterable[Any], chunksize: int | None = None) -> Iterator[Any]:
        """Yield the result of one call for each item, in order.

        Chunks grow to about 10 ms of measured work unless `chunksize` says how many items
        each has. An item that failed raises its exception at its place; `next` then goes on
        behind it. Chunks are sent as the results are consumed.
        """
        return map_calls(self, iterable, chunksize)

    def as_completed(
        self, jobs: Iterable[DispyJob], timeout: float | None = None
    ) -> Iterator[DispyJob]:
        """Yield jobs as they end, those that have ended first; TimeoutError after `timeout` s."""
        return as_completed(jobs, timeout)

    # -- waiting and ending

    def cancel(self, job: DispyJob) -> int:
        """Cancel a job: 0, or -1 when that is not possible any more.

        A queued job is Cancelled at once. A running one gets KeyboardInterrupt (a program:
        SIGINT) and ends as it decides, by force after 6 seconds.
        """
        if job._cluster is not self or job.status in FINAL:
            return -1
        answer: int = self._session.hub.call(self._cancel, job)
        return answer

    def _cancel(self, job: DispyJob) -> int:
        number = job._number
        if number not in self._session.jobs or number in self._cancelling:
            return -1
        self._cancelling.add(number)
        self._session.scheduler.cancel(self._number, number)
        return 0

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for all jobs and their callbacks; False if `timeout` seconds were not enough."""
        with self._guard:
            if not self._pending:
                return True
            event = make_event()
            self._waiters.append(event)
        return event.wait(timeout)

    def __call__(self) -> None:
        """Wait for all jobs."""
        self.wait()

    def close(self, timeout: float | None = None, terminate: bool = False) -> bool | None:
        """Wait for all jobs, then end the computation on every node.

        True when closed; False where `timeout` seconds were not enough, unless `terminate`
        ends what still runs; None if it was closed before.
        """
        if not self._open:
            return None
        if not self.wait(timeout) and not terminate:
            return False
        with self._guard:
            if not self._open:
                return None
            self._open = False
        self._session.hub.call(self._close)
        self.wait()
        return True

    def _close(self) -> None:
        left = [job for job in self._session.jobs.values() if job._cluster is self]
        by_status: dict[Status, list[DispyJob]] = {Status.Cancelled: [], Status.Terminated: []}
        for job in left:
            del self._session.jobs[job._number]
            begun = job.status != Status.Created
            by_status[Status.Terminated if begun else Status.Cancelled].append(job)
        for status, jobs in by_status.items():
            self._end(jobs, status, "its cluster was closed", None)
        self._session.close(self)

    def shutdown(self) -> None:
        """Wait for all jobs and close; what the program's end does too."""
        self.close()

    def __enter__(self) -> "JobCluster":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; after an exception in the block without waiting for what still runs."""
        if error is None:
            self.close()
        else:
            self.close(timeout=0, terminate=True)

    def discover_nodes(self, nodes: Any = None) -> int:
        """Search at once for these hosts and patterns; None: any. Returns 0.

        Which nodes the cluster may use stays as its `nodes` say. Nodes that answer join it
        soon after. Raises DispyError as the constructor does.
        """
        allocations = parse_nodes(nodes)
        self._session.hub.post(lambda: self._session.discovery.ask_now(self._number, allocations))
        return 0

    # -- what is going on

    def status(self) -> ClusterStatus:
        """Return the nodes of this cluster and the number of jobs that are not done."""
        return ClusterStatus(list(self._nodes.values()), self._pending)

    def print_status(self, wall_time: float | None = None) -> None:
        """Print a table of the nodes and what each has done."""
        print_table(self, wall_time)

    stats = print_status

    def _why(self, job: DispyJob) -> str:
        return self._session.hub.call(self._session.why, self, job)

    # -- on the hub

    def _allocate(self, node: Any) -> int:
        """Ask the allocations, in order, how many processors of a node to use."""
        if not self._search.wanted.trusts(node.ip_addr):
            return 0  # it was found for another cluster, which was told that this is fine
        for allocation in self.allocations:
            if not self._search.wanted.fits(allocation, node.ip_addr, node.port):
                continue
            try:
                cpus = allocation.allocate(
                    self, node.ip_addr, node.name, node.cpus, None, node.hello.platform
                )
            except Exception:  # the user's own method
                logger.exception("allocate of %r failed; node %s is not used", allocation, node)
                return 0
            if cpus and cpus > 0:
                return int(cpus)
        return 0

    def _node(self, node: Any) -> DispyNode:
        view = self._nodes.get(node.node_id)
        if view is None:
            view = self._nodes[node.node_id] = DispyNode(node.ip_addr, node.name, node.cpus)
        return view

    def _node_id(self, node: Any) -> str | None:
        wanted = {node.ip_addr, node.name} if isinstance(node, DispyNode) else {node}
        for node_id, view in list(self._nodes.items()):
            if view is node or (view.cpus and wanted & {view.ip_addr, view.name}):
                return node_id
        return None

    def _node_changed(self, node: Any, status: Status) -> None:
        view = self._node(node)
        view.update_time = time()
        if status == Status.Closed:
            view.cpus = view.busy = 0
        if self.cluster_status is not None:
            self._session.callbacks.put(self.cluster_status, status, view, None)

    def _notify(self, status: Status, node: DispyNode | None, jobs: Sequence[DispyJob]) -> None:
        for job in jobs:
            if type(job) is DispyJob:
                self._session.callbacks.put(self.cluster_status, status, node, job)

    def _end(
        self, jobs: Sequence[DispyJob], status: Status, reason: str, node: DispyNode | None
    ) -> None:
        """Make jobs final that no node answers for."""
        now = time()
        for job in jobs:
            job._payload = job._packed = job._value = None
            job.exception, job.end_time = reason, now
            job.status = status
            if job._finish is not None:
                job._finish.set()
        self._done(jobs, node)

    def _done(self, jobs: Sequence[DispyJob], node: DispyNode | None) -> None:
        """Tell everybody who wants to know that jobs are final."""
        for listener in list(self._listeners):
            listener(jobs)
        if self._cancelling:
            self._cancelling.difference_update(job._number for job in jobs)
        if self.job_status is None and self.cluster_status is None:
            self._settle(len(jobs))
        else:
            self._session.callbacks.put(self._call_back, jobs, node)

    def _call_back(self, jobs: Sequence[DispyJob], node: DispyNode | None) -> None:
        """On the callbacks' thread: one final call for each job, then they count as done."""
        for job in jobs:
            if type(job) is DispyJob:
                _call_safely(self.job_status, job)
                _call_safely(self.cluster_status, job.status, node, job)
        self._settle(len(jobs))

    def _report_interim(self, job: DispyJob, node: DispyNode) -> None:
        if self.job_status is not None:
            self._session.callbacks.put(self.job_status, job)
        if self.cluster_status is not None:
            self._session.callbacks.put(self.cluster_status, job.status, node, job)

    def _settle(self, count: int) -> None:
        """Count jobs as done and wake who waits for the last."""
        with self._guard:
            self._pending -= count
            if self._pending:
                return
            waiters, self._waiters = self._waiters, []
        self.end_time = time()
        for event in waiters:
            event.set()


def as_completed(jobs: Iterable[DispyJob], timeout: float | None = None) -> Iterator[DispyJob]:
    """Yield jobs of any clusters as they end, those that have ended first.

    Raises TimeoutError when the next does not end within `timeout` seconds of the call.
    """
    left = {job._number: job for job in jobs}
    deadline = None if timeout is None else monotonic() + timeout
    arrived: deque[DispyJob] = deque()
    more = make_event()

    def listen(done: Sequence[DispyJob]) -> None:
        arrived.extend(done)
        more.set()

    clusters = {job._cluster for job in left.values()}
    for cluster in clusters:
        cluster._listeners.append(listen)
    try:
        arrived.extend(job for job in left.values() if job.done)
        while left:
            more.clear()
            while arrived:
                job = arrived.popleft()
                if left.pop(job._number, None) is not None:
                    yield job
            if left and not arrived:
                pause = None if deadline is None else max(0.0, deadline - monotonic())
                if not more.wait(pause) and not arrived:
                    raise TimeoutError(f"{len(left)} jobs are not done after {timeout} seconds")
    finally:
        for cluster in clusters:
            cluster._listeners.remove(listen)


def _call_safely(callback: Callable[..., Any] | None, *arguments: Any) -> None:
    if callback is None:
        return
    try:
        callback(*arguments)
    except BaseException:  # the user's own code
        logger.exception("callback %r failed", getattr(callback, "__name__", callback))


def _prepare(computation: Callable[..., Any] | str) -> tuple[str, dict[str, Any], bytes]:
    """Return a computation's name, settings for its nodes, and content."""
    settings = {
        "program": isinstance(computation, str),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "implementation": sys.implementation.name,
    }
    if isinstance(computation, str):
        path = computation if os.path.isfile(computation) else shutil.which(computation)
        if path is None:
            raise DispyError(f"no program {computation!r}: neither a file here nor in PATH")
        with open(path, "rb") as file:
            return computation, {**settings, "file": os.path.basename(path)}, file.read()
    if not callable(computation):
        raise DispyError(
            f"invalid computation type: a function or the path of a program, not {computation!r}"
        )
    name = getattr(computation, "__name__", type(computation).__name__)
    return name, settings, pack_function(computation, name)


def _check_callback(callback: Any, count: int) -> Any:
    if callback is not None and not callable(callback):
        raise DispyError(f"a callback is a function of {count} arguments, not {callback!r}")
    return callback
