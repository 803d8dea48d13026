"""A real nursery and its workers: each way a job may end gives it a clear word."""

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator

import psutil
import pytest

from dispy.model.statuses import Status
from dispy.protocol.messages import Kind
from dispy.shipping.bundle import make_bundle
from dispy.shipping.payloads import pack_call, unpack
from dispy.system.interpreter import own_command
from dispy.worker.channel import Channel
from dispy.worker.journal import make_journal
from dispy.worker.output import make_outputs


class Nursery:
    """Plays the node to one nursery process."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(30)
        self.process = subprocess.Popen(
            own_command("worker", str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.channel = Channel(ours)
        self.journals: dict[int, int] = {}  # worker -> descriptor
        ours.settimeout(30)

    def load(self, function: Callable) -> str | None:
        settings = {"directory": tempfile.gettempdir(), "names": {}}
        content = make_bundle("compute", {"computation": function})[0].packed()
        self.channel.send(Kind.LOAD, ["compute", settings], [content])
        frame = self.channel.receive()
        assert frame.kind == Kind.LOADED
        return frame.body[0]

    def fork(self, worker_id: int) -> tuple[Channel, int]:
        ours, theirs = socket.socketpair()
        # The frame carries its descriptor with its own first byte.
        from dispy.protocol.frames import encode_frame

        (wire,) = encode_frame(Kind.FORK, [worker_id])
        self.journals[worker_id] = make_journal()
        outputs = make_outputs()
        passed = [theirs.fileno(), self.journals[worker_id], *outputs]
        socket.send_fds(self.channel.sock, [wire], passed)
        for descriptor in outputs:
            os.close(descriptor)
        theirs.close()
        frame = self.channel.receive()
        assert (frame.kind, frame.body[0]) == (Kind.FORKED, worker_id)
        channel = Channel(ours)
        ours.settimeout(30)
        return channel, frame.body[1]

    def close(self) -> None:
        for descriptor in self.journals.values():
            os.close(descriptor)
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.channel.sock.close()
        try:
            assert self.process.wait(timeout=10) == 0
            _, alive = psutil.wait_procs(children, timeout=10)
            assert not alive, "processes were left behind"
        finally:
            self.process.kill()


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


def run(worker: Channel, *calls: bytes) -> list:
    worker.send(Kind.JOBS, [list(range(len(calls))), list(calls), []])
    frame = worker.receive()
    assert frame.kind == Kind.DONE
    return frame.body


def call(*arguments: object) -> bytes:
    return pack_call("compute", arguments, {})


def extras_of(body: list, at: int = 0) -> dict:
    return dict(body[4])[at]


def test_results_come_back_in_order(nursery: Nursery) -> None:
    assert nursery.load(lambda n: n * n) is None
    worker, _ = nursery.fork(1)
    numbers, starts, ends, results, extras = run(worker, *map(call, range(100)))
    assert [unpack(result) for result in results] == [n * n for n in range(100)]
    assert numbers == list(range(100))
    assert extras == []
    assert all(start <= end for start, end in zip(starts, ends, strict=True))


def test_output_is_captured_below_python_and_for_the_job_that_wrote_it(nursery: Nursery) -> None:
    def compute(text: str) -> None:
        import os

        print(text)
        os.write(1, b"descriptor\n")
        os.system("echo child >&2")

    nursery.load(compute)
    worker, _ = nursery.fork(1)
    body = run(worker, call("one"), call("two"))
    for at, text in enumerate(("one", "two")):
        extra = extras_of(body, at)
        assert sorted(extra["stdout"].split()) == sorted(["descriptor", text])
        assert extra["stderr"] == "child\n"


def test_an_exception_comes_with_its_traceback(nursery: Nursery) -> None:
    def compute() -> float:
        return 1 / 0

    nursery.load(compute)
    worker, _ = nursery.fork(1)
    extra = extras_of(run(worker, call()))
    assert extra["status"] == Status.Terminated
    assert "ZeroDivisionError" in extra["exception"]
    assert "in compute" in extra["exception"]
    assert isinstance(unpack(extra["error"]), ZeroDivisionError)


def test_exit_bad_arguments_and_bad_results_end_the_job_and_not_the_worker(
    nursery: Nursery,
) -> None:
    def compute(how: str) -> object:
        import sys
        import threading

        if how == "exit":
            sys.exit(3)
        return threading.Lock() if how == "lock" else how

    nursery.load(compute)
    worker, _ = nursery.fork(1)
    body = run(worker, call("exit"), call("lock"), b"no pickle", call("fine"))
    assert "SystemExit: 3" in extras_of(body, 0)["exception"]
    assert "result could not be sent" in extras_of(body, 1)["exception"]
    assert "arguments could not be rebuilt" in extras_of(body, 2)["exception"]
    assert unpack(body[3][3]) == "fine"


@pytest.mark.parametrize(
    ("deed", "word"),
    [("os._exit(7)", "exited with status 7"), ("os.kill(os.getpid(), 11)", "killed by SIGSEGV")],
)
def test_a_worker_that_dies_is_told_and_replaced(nursery: Nursery, deed: str, word: str) -> None:
    def compute(deed: str) -> str:
        exec("import os; " + deed)
        return "lived"

    nursery.load(compute)
    worker, _ = nursery.fork(1)
    worker.send(Kind.JOBS, [[0], [call(deed)], []])
    died = nursery.channel.receive()
    assert (died.kind, died.body[0]) == (Kind.DIED, 1)
    assert word in died.body[1]
    replacement, _ = nursery.fork(2)
    assert unpack(run(replacement, call("pass"))[3][0]) == "lived"


def test_a_computation_that_cannot_be_loaded_says_why(nursery: Nursery) -> None:
    class Missing:
        def __reduce__(self) -> tuple:
            return (__import__, ("no_such_module",))

    assert "No module named 'no_such_module'" in str(nursery.load(Missing()))


def test_workers_die_with_a_killed_nursery(nursery: Nursery) -> None:
    nursery.load(os.getpid)
    _, pid = nursery.fork(1)
    worker = psutil.Process(pid)
    nursery.process.kill()
    psutil.wait_procs([worker], timeout=10)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
    nursery.process.wait()
    nursery.close = nursery.channel.sock.close  # type: ignore[method-assign]
