"""`JobCluster`: a computation, the nodes it may use, and the jobs submitted to it."""

import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import time
from types import TracebackType
from typing import Any, NamedTuple

from dispy.client import arguments
from dispy.client.calling import Calls
from dispy.client.closing import close
from dispy.client.completion import as_completed
from dispy.client.depends import check_files
from dispy.client.ending import interrupted_after
from dispy.client.finding import look_for_nodes
from dispy.client.job import DispyJob
from dispy.client.mapping import map_calls
from dispy.client.nodes import DispyNode, parse_nodes
from dispy.client.patience import why
from dispy.client.putting import PutObject
from dispy.client.report import print_table
from dispy.client.reporting import JobCallback, StatusCallback
from dispy.client.search import Search
from dispy.client.session import Session, get_session
from dispy.client.settings import client_credentials, client_settings
from dispy.client.speaking import set_level
from dispy.client.steering import Steering
from dispy.model.statuses import FINAL, Status
from dispy.worker import inside

logger = logging.getLogger("dispy.client")


class ClusterStatus(NamedTuple):
    """What `JobCluster.status` returns."""

    nodes: list[DispyNode]
    jobs_pending: int


class JobCluster(Steering):
    """A handle on jobs of one computation, a Python function or the path of a program.

    May be used from any thread, callbacks included, of the process that made it.
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
        host: Any = None,
        ip_addr: Any = None,
        ext_host: Any = None,
        ext_ip_addr: Any = None,
        port: int | None = None,
        node_port: int | None = None,
        dispy_port: int | None = None,
        ipv4_udp_multicast: bool = False,
        dest_path: str | None = None,
        loglevel: int | None = None,
        setup: Callable[..., Any] | None = None,
        cleanup: bool | Callable[..., Any] = True,
        ping_interval: float | None = None,
        pulse_interval: float | None = None,
        poll_interval: float | None = None,
        reentrant: bool = False,
        secret: str = "",
        keyfile: str | None = None,
        certfile: str | None = None,
        cafile: str | None = None,
        recover_file: str | bool | None = None,
        insecure: bool | None = None,
        local_node: bool | None = None,
        stream: bool | None = None,
        cpus: int | None = None,
        setup_timeout: float | None = None,
        isolation: str | None = None,
        max_file_size: int | str | None = None,
        max_result_size: int | str | None = None,
        timeout: float | None = None,
        cpu_time: float | None = None,
        memory: int | str | None = None,
        grace: float | None = None,
        env: Mapping[str, Any] | None = None,
        nice: int | None = None,
        jobs_per_worker: int | None = None,
        worker_growth: int | str | None = None,
        retries: int | None = None,
    ) -> None:
        """Open the cluster and look for its nodes.

        computation: a function, or the path of a program (looked for in PATH too).
        nodes: hosts (names, addresses, patterns with `*`), `(host, port)` tuples, NodeAllocate
            objects; without a pattern, exactly those. None: any that answer.
        callback, job_status: called with each job that has a provisional or final result.
        cluster_status: called as (status, node or None, job or None).
        loglevel: of dispy's own messages (INFO, unless the program has set one).
        ping_interval: seconds between searches for nodes (1 to 1000); None: searched for once,
            and nodes that start later announce themselves.
        pulse_interval: seconds between signs of life (0.1 to 1000); a node that misses five
            is lost.
        depends: what all jobs need. Files and directories lie in the directory where jobs run, at
            their path relative to the current directory, or by their base name. Functions and
            classes (also of instances) are globals there, modules can be imported.
        dest_path: where on the nodes jobs run, below a directory of this machine's; clusters may
            share it. None: in a new directory for each cluster.
        cleanup: whether what was brought there, and what jobs have written, is removed in the end.
        reentrant: whether jobs of a lost node may run again elsewhere, and those whose process
            died, three times in all. retries: how often, whichever it was; of a cluster that is
            not reentrant too. A job finds the number of its run in DISPY_ATTEMPT.
        node_port: of nodes whose port is not named (51348); a pattern then means that one
            alone. dispy_port: the number before it.
        secret: one that this program shares with its nodes; better in ~/.config/dispy/secret,
            where both find it by themselves (`dispy secret`). certfile, keyfile: PEM files of a
            certificate; the same on both sides, or any that the authority in cafile has signed.
            The first cluster of a program decides for all. insecure: where there is neither, use
            nodes of other machines all the same (no).
        local_node: start a node of our own if none is found (yes).
        setup: called once on each node before the first job, in the process that jobs are forked
            from: what it leaves in globals is there in every job. With the `setup_args` of the
            node's NodeAllocate. None, 0, 1 and 2 mean success; else the node is not used.
        cleanup: a function called on each node after the last job, with the same arguments. True
            or False: none.
        setup_timeout: seconds that setup may take on a node (0: any).
        stream: show what jobs write to stdout and stderr while they run, each line led by its
            job and node (no). `job.stdout` and `job.stderr` have it all the same.
        max_file_size: bytes of a file that a job may send (0: any). max_result_size: bytes of a
            job's result (1 GiB; 0: any). "10M" means 10 MiB.
        isolation: "worker": processes are used again, and cleaned between jobs; "job": each
            job has a process of its own, with what `setup` left. None: "job" where there is
            a `setup`, else "worker". Programs always run in processes of their own.
        timeout, cpu_time: seconds that a job may run, or compute; it gets JobTimeout then, and
            is killed `grace` seconds later (5).
        memory: bytes, or text such as "2 GB", that a job may take.
        env: environment variables for jobs. nice: steps by which they are less urgent.
        jobs_per_worker, worker_growth: jobs after which, or bytes of growth beyond which, a
            worker process is replaced.

        recover_file: by which `recover_jobs` finds the results of this program, should it die;
            None: `_dispy_` and the time, in the current directory; False: none is written. It is
            there from the first node on that is not the program's own, until the last cluster is
            closed. The first cluster of a program decides for all.
        cpus: processors of one node that each job needs (1; DISPY_JOB_CPUS).

        What has a default of None may also be set by DISPY_LOGLEVEL, DISPY_TIMEOUT and so on,
        and by the table [client] of ~/.config/dispy/config.toml and /etc/dispy/config.toml, as
        docs/settings.rst lists; an argument wins.

        Accepted for programs written for dispy 4 and without effect, because this program dials
        its nodes and they never dial it: host, ip_addr, ext_host, ext_ip_addr, port,
        ipv4_udp_multicast, poll_interval.

        Raises DispyError for arguments that cannot be used.
        """
        inside.refuse_to_open()
        chosen = client_settings(
            loglevel=loglevel, ping_interval=ping_interval, pulse_interval=pulse_interval,
            node_port=arguments.choose_port(node_port, dispy_port), insecure=insecure,
            local_node=local_node, stream=stream, cpus=cpus, isolation=isolation, timeout=timeout,
            cpu_time=cpu_time, memory=memory, grace=grace, env=env, nice=nice,
            jobs_per_worker=jobs_per_worker, worker_growth=worker_growth,
            setup_timeout=setup_timeout, max_file_size=arguments.choose_file_size(max_file_size),
            max_result_size=max_result_size, retries=retries,
            recover_file=arguments.choose_recover_file(recover_file),
        )  # fmt: skip
        credentials = client_credentials(
            secret=secret or None, certfile=certfile, keyfile=keyfile, cafile=cafile,
            insecure=insecure,
        )  # fmt: skip
        set_level(chosen["loglevel"], given=loglevel is not None)
        session = self._find_session()
        super().__init__(session, next(session.cluster_numbers))
        self.allocations = parse_nodes(nodes)
        elements = check_files(depends)
        credentials = session.proof.use(credentials)
        session.recording.choose(chosen["recover_file"])
        arguments.pass_over(
            host=arguments.newer("host", host, "ip_addr", ip_addr), port=port,
            ext_host=arguments.newer("ext_host", ext_host, "ext_ip_addr", ext_ip_addr),
            ipv4_udp_multicast=ipv4_udp_multicast,
            poll_interval=arguments.check_interval(poll_interval, "poll_interval", 5),
        )  # fmt: skip
        self.job_status = arguments.newer(
            "job_status", arguments.check_callback(job_status, "job_status", 1),
            "callback", arguments.check_callback(callback, "callback", 1),
        )  # fmt: skip
        self.cluster_status = arguments.check_callback(cluster_status, "cluster_status", 3)
        self.ping_interval: float | None = chosen["ping_interval"]
        self.pulse_interval: float | None = chosen["pulse_interval"]
        self.reentrant = arguments.check_flag(reentrant, "reentrant")
        self.retries: int | None = chosen["retries"]
        with session.finding:
            self._search = self._look_for_nodes(
                session, self.allocations, chosen["node_port"],
                credentials.protected or credentials.insecure,
                chosen["local_node"], chosen["broadcast"], credentials.secrets,
            )  # fmt: skip
        # Late: a local node starts while this is imported, and packs the computation.
        with interrupted_after():
            from dispy.client.opening import make_opening

            if not isinstance(computation, str):
                import dispy.shipping.code  # noqa: F401  # packing it needs that

        opening = make_opening(computation, elements, setup, cleanup, dest_path, chosen)
        self.name, self._is_program = opening.name, opening.is_program
        self._has_setup, self._cleans_up = opening.has_setup, opening.cleans_up
        self._isolation, self._files = opening.isolation, opening.files
        self._calls = Calls(session, self.name, self._is_program, opening.modules, self._nodes)
        self._terminal = session.open_terminal() if chosen["stream"] else None
        self.max_file_size: int = chosen["max_file_size"]
        self.directory = os.getcwd()  # where files of its jobs go
        self.start_time = time()
        self._fresh: deque[int] = deque()  # submitted, not yet taken by the hub
        self._pinned: deque[tuple[int, str]] = deque()  # the same, for one node each
        self._announced = False  # the hub knows that there are such
        self._put: weakref.WeakSet[PutObject] = weakref.WeakSet()
        self._open: bool = True
        if self.job_status or self.cluster_status:
            session.callbacks.start()
        session.contents.hold_for(self, self._files.contents)
        session.hub.post(
            lambda: session.discovery.begin(self._number, self._search, self.ping_interval)
        )
        # Last: once nodes know of it, callbacks come, which may use what the caller makes of us.
        session.hub.call(session.open, self, opening.settings, opening.content)

    def _find_session(self) -> Session:
        return get_session()

    def _look_for_nodes(self, *arguments: Any) -> Search:
        return look_for_nodes(*arguments)

    # -- submitting

    def submit(self, *args: Any, **kwargs: Any) -> DispyJob | None:
        """Queue a call with these arguments; None where they cannot be sent (it is logged)."""
        job = self._calls.job_of(args, kwargs)  # as `_submit`: one call less for each job
        if job is not None:
            self._queue(job)
        return job

    def submit_job_id(self, job_id: Any, *args: Any, **kwargs: Any) -> DispyJob | None:
        """As `submit`, with the job's `id`."""
        return self._submit(None, args, kwargs, job_id)

    def submit_node(self, node: Any, *args: Any, **kwargs: Any) -> DispyJob | None:
        """As `submit`, for this node alone: a DispyNode, an address or a name; None if unknown."""
        return self.submit_job_id_node(None, node, *args, **kwargs)

    def submit_job_id_node(
        self, job_id: Any, node: Any, *args: Any, **kwargs: Any
    ) -> DispyJob | None:
        """As `submit_node`, with the job's `id`."""
        node_id = self._node_id(node)
        if node_id is None:
            logger.warning("submit_node: no node %r is ready for %s", node, self.name)
            return None
        return self._submit(node_id, args, kwargs, job_id)

    def _submit(
        self,
        node_id: str | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        job_id: Any = None,
    ) -> DispyJob | None:
        job = self._calls.job_of(args, kwargs)
        if job is not None:
            if job_id:
                job.id = job_id  # before callbacks may see it
            self._queue(job, node_id)
        return job

    def _queue(self, job: DispyJob, node_id: str | None = None) -> None:
        """Hand a job to the hub. Costs 1 us, and a wake-up when the hub sleeps.

        Ctrl-C may interrupt this anywhere: once the job counts it is in a queue that the hub
        looks at sooner or later, announced or not.
        """
        job._cluster = self
        if not self._open:
            raise self._too_late(job)
        if self.cluster_status is not None:
            self._notify(Status.Created, None, [job])  # before the hub can say more of it
        with self._guard:
            if not self._open:
                raise self._too_late(job)
            self._pending += 1
            self._session.jobs[job._number] = job
            if node_id is None:
                self._fresh.append(job._number)
            else:
                self._pinned.append((job._number, node_id))
        if not self._announced:
            self._announced = True
            self._session.hub.post(self._take_fresh)

    def _too_late(self, job: DispyJob) -> AttributeError:
        """Drop what was said of a job that came after the end, and return what to raise."""
        error = self._closed_error()
        self._session.forget([job._number])
        return error

    def _closed_error(self) -> AttributeError:
        self._session.check_process()
        return AttributeError(f"cluster {self.name} is closed; it takes no more jobs")

    def _take_fresh(self) -> None:
        """On the hub: queue all that has been submitted since."""
        self._announced = False  # before looking: what comes later announces itself again
        if self._fresh:
            numbers = list(self._fresh)
            for _ in numbers:
                self._fresh.popleft()
            self._session.scheduler.submit(self._number, numbers)
        while self._pinned:
            number, node_id = self._pinned.popleft()
            self._session.scheduler.submit(self._number, [number], node_id)

    def map(self, iterable: Iterable[Any], chunksize: int | None = None) -> Iterator[Any]:
        """Yield the result of one call for each item, in order.

        Chunks grow to about 10 ms of measured work unless `chunksize` says how many items
        each has. An item that failed raises its exception at its place; `next` then goes on
        behind it. Chunks are sent as the results are consumed, and cancelled when the iterator
        is dropped before its end. Where a worker dies, the items of its chunk fail with the
        reason, or are tried again one by one if the cluster is `reentrant`.
        """
        return map_calls(self, iterable, chunksize)

    def as_completed(
        self, jobs: Iterable[DispyJob], timeout: float | None = None
    ) -> Iterator[DispyJob]:
        """Yield jobs as they end, those that have ended first; TimeoutError after `timeout` s."""
        return as_completed(jobs, timeout)

    def put(self, value: object) -> PutObject:
        """Return what stands for an object in the arguments of jobs: each node gets it once.

        The object is copied. Jobs get it as it was then, all jobs of a worker the same one, with
        memory that they cannot write to (NumPy's arrays, say) and share with all workers of
        their node. It is kept until what this returns is not referred to any more, or the
        cluster is closed. Raises DispyError for what cannot be pickled.
        """
        if not self._open:
            raise self._closed_error()
        made = self._session.large.put(value)
        self._put.add(made)
        return made

    # -- waiting and ending

    def cancel(self, job: DispyJob) -> int:
        """Cancel a job: 0, or -1 when that is not possible any more.

        A queued job is Cancelled at once. A running one gets KeyboardInterrupt (a program:
        SIGINT) and ends as it decides, by force after 6 seconds.
        """
        if not isinstance(job, DispyJob) or job._cluster is not self or job.status in FINAL:
            return -1
        self._session.check_process()
        answer: int = self._session.hub.call(self._cancel_now, job._number)
        return answer

    def _cancel_now(self, number: int) -> int:
        """In a greenlet of the hub: cancel a job, and wait until one that waits is Cancelled."""
        answer = self._cancel(number)
        if not answer:
            self._session.settle()
        return answer

    def _cancel(self, number: int) -> int:
        job = self._session.jobs.get(number)
        if job is None or number in self._cancelling:
            return -1
        self._take_fresh()  # the scheduler must know it first
        self._cancelling.add(number)
        self._session.scheduler.cancel(self._number, number)
        return 0

    def _cancel_all(self, jobs: Sequence[DispyJob]) -> None:
        """On the hub: cancel what nobody waits for any more."""
        for job in jobs:
            self._cancel(job._number)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for all jobs and their callbacks; False if `timeout` seconds were not enough.

        Called in a callback it waits for the jobs alone: their callbacks come when the one
        that waits has returned.
        """
        return self._wait(timeout)

    def __call__(self) -> None:
        """Wait for all jobs."""
        self.wait()

    def close(self, timeout: float | None = None, terminate: bool = False) -> bool | None:
        """Wait for all jobs, then end the computation on every node.

        True when closed; False where `timeout` seconds were not enough, unless `terminate`
        ends what still runs: queued jobs are Cancelled then, running ones Terminated. None if
        it was closed before. Called in a callback, it does not wait for other callbacks.
        """
        return close(self, timeout, terminate)

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

    # -- what is going on

    def status(self) -> ClusterStatus:
        """Return the nodes of this cluster and the number of jobs that are not done."""
        return ClusterStatus(list(self._nodes.values()), self._pending)

    def print_status(self, wall_time: float | None = None) -> None:
        """Print a table of the nodes and what each has done."""
        print_table(self, wall_time)

    stats = print_status

    def _why(self, job: DispyJob) -> str:
        return self._session.hub.call(why, self._session, self, job)
