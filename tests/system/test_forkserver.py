"""The process that forks a node's nurseries: what they are, and what if one of them dies."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import psutil
import pytest
from gevent import socket, subprocess
from system.conftest import DEADLINE, RunningNode

from dispy import DispyJob, JobCluster
from dispy.node import forkserver, nurseries
from dispy.node.confinement import Confinement
from dispy.node.forkserver import AdoptedProcess, ForkServer, NoForkServer
from dispy.node.nursery import NurseryProcess
from dispy.protocol.messages import Kind
from dispy.shipping.bundle import make_bundle
from dispy.system.processes import ADOPTS_ORPHANS

pytestmark = pytest.mark.skipif(not ADOPTS_ORPHANS, reason="this system has none")
Open = Callable[..., JobCluster]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave this process as one that adopts nobody, and whose children its own code reaps."""
    yield
    ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER, linux/prctl.h
    gevent.get_hub().loop.reset_sigchld()


@pytest.fixture
def server() -> Iterator[ForkServer]:
    made = ForkServer(Confinement(), None)
    yield made
    made.end()


def fork(server: ForkServer) -> tuple[socket.socket, AdoptedProcess]:
    """Return a new nursery, and our end of its socket pair."""
    ours, theirs = socket.socketpair()
    with theirs:
        return ours, server.fork(theirs.fileno())


def test_a_nursery_is_our_own_child_and_leads_a_session(server: ForkServer) -> None:
    sock, nursery = fork(server)
    process = psutil.Process(nursery.pid)
    assert process.ppid() == os.getpid()
    assert os.getsid(nursery.pid) == nursery.pid
    assert nursery.poll() is None
    sock.close()  # it ends with its socket
    assert nursery.wait(DEADLINE) == nursery.poll() == 0
    assert not process.is_running()


def test_how_a_nursery_ended_is_known(server: ForkServer) -> None:
    for end in (lambda nursery: nursery.kill(), lambda nursery: os.kill(nursery.pid, 9)):
        sock, nursery = fork(server)
        with pytest.raises(subprocess.TimeoutExpired):
            nursery.wait(0.01)
        end(nursery)
        assert nursery.wait(DEADLINE) == -signal.SIGKILL
        nursery.kill()  # which says nothing to others that may have its number by now
        sock.close()


def test_a_process_that_was_reaped_before_has_ended() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert AdoptedProcess(gone.pid).poll() is not None


def test_it_ends_without_a_word_when_its_node_is_killed_before_it_has_read_a_reply() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = Confinement().server(theirs.fileno())
        server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
        socket.send_fds(ours, [forkserver.FORK], [theirs.fileno()])
        socket.wait_read(ours.fileno(), timeout=DEADLINE)
    _, said = server.communicate(timeout=DEADLINE)
    assert (server.returncode, said) == (0, b"")


def test_nurseries_outlive_what_forked_them(server: ForkServer) -> None:
    sock, nursery = fork(server)
    server.end()
    assert server.ended
    with pytest.raises(NoForkServer):
        fork(server)
    assert nursery.poll() is None
    sock.close()
    assert nursery.wait(DEADLINE) == 0


def test_many_ask_at_once_and_each_gets_its_own(server: ForkServer) -> None:
    asked = [gevent.spawn(fork, server) for _ in range(20)]
    forked = [each.get(timeout=DEADLINE) for each in asked]
    assert len({nursery.pid for _, nursery in forked}) == 20
    for sock, nursery in forked:
        sock.close()
        assert nursery.wait(DEADLINE) == 0


def test_a_refused_process_is_an_error_and_the_next_one_comes(server: ForkServer) -> None:
    sock, first = fork(server)
    (own,) = [
        child.pid for child in psutil.Process().children() if "--forkserver" in child.cmdline()
        and child.pid != first.pid
    ]  # fmt: skip
    sock.close()
    first.wait(DEADLINE)
    before = psutil.Process(own).rlimit(psutil.RLIMIT_NOFILE)
    psutil.Process(own).rlimit(psutil.RLIMIT_NOFILE, (3, before[1]))
    with pytest.raises(OSError, match="Too many open files"):
        fork(server)
    psutil.Process(own).rlimit(psutil.RLIMIT_NOFILE, before)
    sock, nursery = fork(server)
    sock.close()
    assert nursery.wait(DEADLINE) == 0


def test_where_nobody_adopts_orphans_each_nursery_is_a_python_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nurseries, "ADOPTS_ORPHANS", False)
    source = nurseries.Nurseries(Confinement())
    nursery = source.take(tmp_path)
    assert loads(nursery, tmp_path)
    assert isinstance(nursery._process, subprocess.Popen)
    source.end(nursery)
    source.stop()


def loads(nursery: NurseryProcess, directory: Path) -> bool:
    """Say whether it can load a computation."""
    loaded: list[object] = []

    def take(frame: object) -> None:
        loaded.append(frame)
        nursery.busy = False
        nursery.link.close()

    content = make_bundle("compute", {"computation": len})[0].packed()
    nursery.load("compute", {"directory": str(directory), "names": {}}, content)
    nursery.link.read(take)
    return [frame.kind for frame in loaded] == [Kind.LOADED]


def the_server(node: RunningNode) -> psutil.Process:
    """Return what forks a node's nurseries: the oldest of its children."""
    found = psutil.Process(node.process.pid).children()
    return min(found, key=lambda process: (process.create_time(), process.pid))


def hold_and_tell(path: str) -> int:
    """Write our id, and wait until somebody writes more."""
    import os
    import time

    with open(path, "w") as file:
        file.write(f"{os.getpid()}")
    while not os.path.exists(f"{path}.go"):
        time.sleep(0.01)
    return os.getppid()


def test_jobs_go_on_and_clusters_are_opened_when_it_was_killed(
    open_cluster: Open, start_node: Callable, tmp_path: Path
) -> None:
    node = start_node("--cpus=1")
    cluster = open_cluster(hold_and_tell, nodes=[node.host])
    path = tmp_path / "begun"
    job = cluster.submit(str(path))
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed = the_server(node)
    killed.kill()
    psutil.wait_procs([killed], timeout=DEADLINE)
    Path(f"{path}.go").touch()
    nursery = job.get(DEADLINE)
    assert job.status == DispyJob.Finished
    assert psutil.Process(nursery).ppid() == node.process.pid
    for number in range(2):  # the first of them may have to start it anew
        later = open_cluster(hold_and_tell, nodes=[node.host])
        Path(f"{path}{number}.go").touch()
        assert later.submit(f"{path}{number}").get(DEADLINE)
    assert the_server(node).pid != killed.pid


def test_one_that_is_stopped_for_long_is_given_up(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock, first = fork(server)
    (own,) = {child.pid for child in psutil.Process().children()} - {first.pid}
    os.kill(own, signal.SIGSTOP)
    monkeypatch.setattr(forkserver, "REPLY_SECONDS", 0.2)
    with pytest.raises(NoForkServer):
        fork(server)
    sock.close()
    assert first.wait(DEADLINE) == 0
