"""What every system test may use, and what each must leave behind: nothing."""

import atexit
import contextlib
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import cloudpickle
import psutil
import pytest
from system import shared_run

import dispy
from dispy import JobCluster
from dispy.system.interpreter import own_command

DEADLINE = 30.0  # seconds; for machines that are busy with something else


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Send what tests define by value: else each node would import pytest before its first job."""
    modules = {item.module for item in items if isinstance(item, pytest.Function)}
    shared = (sys.modules.get(name) for name in ("conftest", "system", "system.conftest"))
    for module in {*modules, *shared} - {None}:
        cloudpickle.register_pickle_by_value(module)
    if which := config.getoption("--shared"):
        left_out = [item for item in items if shared_run.why_left_out(item.nodeid, which)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="module", autouse=True)
def module_scheduler(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """With `--shared`, a scheduler for all tests of a module, and a node to begin with."""
    if not request.config.getoption("--shared"):
        yield
        return
    request.getfixturevalue("shared_node")  # first, so that it outlives the scheduler
    with shared_run.scheduler_for_a_module(tmp_path_factory.mktemp("scheduler")):
        yield


MARK = "DISPY_TEST_RUN"  # inherited by every process that a test starts, however indirectly
os.environ[MARK] = f"{os.getpid()}-{time.time_ns()}"
os.environ["DISPY_PASS_ENV"] = MARK  # through nodes to workers and jobs


def is_ours(pid: int) -> bool:
    """Say whether this process lives, and this test run has started it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return f"{MARK}={os.environ[MARK]}".encode() in file.read().split(b"\0")
    except OSError:
        return False


def ours() -> set[int]:
    """Return the ids of all processes that this test run has started and that still live."""
    return {pid for pid in psutil.pids() if is_ours(pid)} - {os.getpid()}


def left_since(before: set[int]) -> set[int]:
    """Return our processes that have come since, except those of processes from before.

    A node that outlives the test may start what forks its nurseries in the midst of it.
    """
    left = set()
    for pid in ours() - before:
        with contextlib.suppress(psutil.Error):
            if not any(parent.pid in before for parent in psutil.Process(pid).parents()):
                left.add(pid)
    return left


def left_in_the_end(find: Callable[[], set[int]]) -> set[int]:
    """Wait until none of the processes that `find` finds is left; return what is, too late.

    `find` looks at all there are, and so is asked only when those that it found have ended.
    """
    deadline = time.monotonic() + DEADLINE
    while left := find():
        while any(map(is_ours, left)):
            if time.monotonic() > deadline:
                return left
            time.sleep(0.02)
    return left


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail unless every dispy process that the test started has ended."""
    before = ours()
    yield
    lines = []
    for pid in left_in_the_end(lambda: left_since(before)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            lines.append(" ".join(process.cmdline()))
            process.kill()
    assert not lines, f"processes were left behind: {lines}"


class Program:
    """A user's program in a process of its own; `output` has both its streams."""

    def __init__(
        self, path: Path, *arguments: str, python: str = sys.executable, **environment: str
    ) -> None:
        self.process = subprocess.Popen(
            [python, str(path), *arguments],
            cwd=path.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        self.output = ""
        self._reading: threading.Thread | None = None

    def read_on(self) -> None:
        """Take from now on what it says, in a thread: who says much never waits for a reader."""
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        while self.line():
            pass

    def line(self) -> str:
        """Return the next line of its output; blocks until there is one."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.output += line
        return line

    def say(self, line: str) -> None:
        """Give it a line to read."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self, within: float = DEADLINE) -> int:
        """Return its exit status once it has ended by itself."""
        try:
            self._wait(within)
        except subprocess.TimeoutExpired:
            self.close()
            pytest.fail(f"the program did not end: {self.output}")
        return self.process.returncode

    def close(self) -> None:
        """End it by force, if it has not ended."""
        self.process.kill()
        self._wait(None)

    def _wait(self, within: float | None) -> None:
        assert self.process.stdout is not None
        if self._reading is not None:
            self.process.wait(within)
            self._reading.join(within)
        elif not self.process.stdout.closed:
            self.output += self.process.communicate(timeout=within)[0]


@pytest.fixture
def run_program(
    tmp_path: Path, nothing_left: None, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Program]]:
    """Run source text as a program of its own, as a user would."""
    started: list[Program] = []
    shares = request.config.getoption("--shared")

    def run(source: str, *arguments: str, **environment: str) -> Program:
        path = tmp_path / f"program{len(started)}.py"
        path.write_text(shared_run.shared_program(source) if shares else source)
        started.append(Program(path, *arguments, **environment))
        return started[-1]

    yield run
    for program in started:
        program.close()


class RunningNode:
    """A `dispy node` process, run by this or another `python`."""

    def __init__(
        self,
        directory: Path,
        host: str,
        port: int,
        *options: str,
        python: str = sys.executable,
        under: Sequence[str] = (),
        **environment: str,
    ) -> None:
        """under: a command that runs what follows it, in other circumstances."""
        self.host, self.port, self.directory = host, port, directory
        _, *command = own_command(
            "node", f"--host={host}", f"--port={port}", f"--dest_path_prefix={directory}", *options
        )
        self.process = subprocess.Popen(
            [*under, python, *command],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        assert self.process.stderr is not None
        self.said = ""
        while "serves" not in self.said:
            line = self.process.stderr.readline()
            if not line:
                pytest.fail(f"the node did not start: {self.said}")
            self.said += line

    def end(self) -> int:
        """End it as an operator would; return its exit status."""
        self.process.terminate()
        _, rest = self.process.communicate(timeout=DEADLINE)
        self.said += rest
        return self.process.returncode


@pytest.fixture
def start_node(
    tmp_path: Path, nothing_left: None, request: pytest.FixtureRequest
) -> Iterator[Callable[..., RunningNode]]:
    """Start nodes on this machine, each at its own address of the loopback network."""
    started: list[RunningNode] = []
    # A scheduler of all tests of a module may still wait for those of the last one to come back.
    numbers = shared_run.numbers if request.config.getoption("--shared") else itertools.count(2)

    def start(
        *options: str,
        host: str = "",
        port: int = 0,
        directory: Path = tmp_path,
        python: str = sys.executable,
        under: Sequence[str] = (),
        **environment: str,
    ) -> RunningNode:
        host = host or f"127.0.{os.getpid() % 250}.{next(numbers)}"
        started.append(
            RunningNode(
                directory, host, port or 51348, *options, python=python, under=under, **environment
            )
        )
        return started[-1]

    yield start
    for node in started:
        if node.process.poll() is None:
            node.process.kill()
            node.said += node.process.communicate()[1]
        print(f"node at {node.host} said:\n{node.said}")  # shown where the test has failed


@pytest.fixture
def start_scheduler(nothing_left: None, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start schedulers, each at its own address of the loopback network."""
    from system.schedulers import RunningScheduler

    started: list[Any] = []

    def start(*nodes: RunningNode, host: str = "", data: str = "", **more: Any) -> Any:
        host = host or f"127.2.{os.getpid() % 250}.{len(started) + 2}"
        hosts = [node.host for node in nodes]
        data = data or str(tmp_path / f"scheduler-{len(started)}")
        started.append(RunningScheduler(host, data, *hosts, **more))
        return started[-1]

    yield start
    for scheduler in started:
        if scheduler.process.poll() is None:
            scheduler.process.kill()
            scheduler.said += scheduler.process.communicate()[1]
        print(f"scheduler at {scheduler.host} said:\n{scheduler.said}")


@pytest.fixture
def open_shared(own_session: None, start_scheduler: Any) -> Iterator[Callable[..., Any]]:
    """Open clusters at a running scheduler; they are closed, by force, when the test has ended.

    Before the schedulers end: a session would wait for one that is gone.
    """
    from dispy.client import shared

    opened: list[Any] = []

    def open_one(scheduler: Any, *arguments: Any, **options: Any) -> Any:
        options = {"scheduler_host": scheduler.host, **options}
        opened.append(shared.SharedJobCluster(*arguments, **options))
        return opened[-1]

    yield open_one
    for cluster in opened:
        cluster.close(timeout=0, terminate=True)
    for address in list(shared._sessions):
        shared._sessions.pop(address).end()


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """One node of two processors for all tests of a module; it must end without a trace."""
    with node_without_a_trace(tmp_path_factory.mktemp("node")) as node:
        yield node


@contextlib.contextmanager
def node_without_a_trace(
    directory: Path, *options: str, cpus: int = 2, **environment: str
) -> Iterator[RunningNode]:
    """Give a node, which must leave nothing behind."""
    before = ours()
    host = f"127.1.{os.getpid() % 250}.{os.getpid() // 250 % 250 + 1}"
    node = RunningNode(directory, host, 51348, f"--cpus={cpus}", *options, **environment)
    yield node
    assert node.end() == 0, node.said
    assert "Traceback" not in node.said
    assert not left_in_the_end(lambda: ours() - before), "processes were left behind"
    # But for results of programs that tests have killed, and that nobody took.
    left = [path for top in node.directory.iterdir() if top.is_dir() for path in top.iterdir()]
    assert not [path for path in left if not path.name.startswith("owed.sqlite")]


@pytest.fixture(scope="module")
def own_session() -> Iterator[None]:
    """Let the tests of a module open clusters in this very process, on a local node of its own."""
    from dispy.client import session

    before = ours()
    yield
    made, session._session = session._session, None
    if made is not None:
        made.end()
        atexit.unregister(made._at_exit)
    left = left_in_the_end(lambda: ours() - before)
    assert not left, f"the session left processes behind: {left}"


@pytest.fixture
def open_cluster(own_session: None) -> Iterator[Callable[..., JobCluster]]:
    """Open clusters that are closed, by force, when the test has ended."""
    opened: list[JobCluster] = []

    def open_one(*arguments: object, **options: object) -> JobCluster:
        opened.append(dispy.JobCluster(*arguments, **options))
        return opened[-1]

    yield open_one
    for cluster in opened:
        cluster.close(timeout=0, terminate=True)


class Gate:
    """Holds jobs that call `hold(str(gate))` until it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._both_ends = os.open(path, os.O_RDWR)

    def __str__(self) -> str:
        return str(self.path)

    def open(self, jobs: int = 1) -> None:
        """Let so many jobs go on."""
        os.write(self._both_ends, b"x" * jobs)

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self._both_ends)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Return a gate, closed at first; what it still holds at the end goes on."""
    made = Gate(tmp_path / "gate")
    yield made
    made.open(1000)
    made.close()


def hold(gate: str, value: object = None) -> object:
    """Wait at a gate, as a job; return `value`."""
    import os

    descriptor = os.open(gate, os.O_RDONLY)
    try:
        os.read(descriptor, 1)
    finally:
        os.close(descriptor)
    return value


def expect(
    events: "Queue[object]", what: str, matches: Callable[..., bool], within: float = DEADLINE
) -> object:
    """Return the first event that matches; after `within` seconds fail, showing all others."""
    others: list[object] = []
    deadline = time.monotonic() + within
    while True:
        try:
            event = events.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            pytest.fail(f"waited {within:g} s for {what}; came instead: {others}")
        if matches(event):
            return event
        others.append(event)
