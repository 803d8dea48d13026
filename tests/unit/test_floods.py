"""However much a node says, a program whose terminal or callback is slow keeps little of it."""

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from dispy.client import streaming
from dispy.client.reporting import Reporting
from dispy.client.streaming import LINE_BYTES, QUEUED_BYTES, Terminal
from dispy.model.statuses import Status


class Calls:
    """A queue whose calls are made when the test says so."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[Any, tuple[Any, ...]]] = deque()

    def put(self, function: Any, *arguments: Any) -> None:
        self.waiting.append((function, arguments))

    def make_all(self) -> None:
        while self.waiting:
            function, arguments = self.waiting.popleft()
            function(*arguments)


def test_output_for_a_terminal_that_blocks_is_passed_over_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []
    monkeypatch.setattr(streaming, "_write", lambda descriptor, text: written.append(text))
    terminal, calls = Terminal(), Calls()
    terminal._queue = calls  # type: ignore[assignment]
    job: Any = SimpleNamespace(_number=1, id=1, stdout="", stderr="")
    text, sent = b"x" * (LINE_BYTES - 1) + b"\n", 0
    while sent < 3 * QUEUED_BYTES:
        terminal.show(job, "n", 1, sent, text)
        sent += len(text)
    assert sum(len(arguments[4]) for _, arguments in calls.waiting) <= QUEUED_BYTES
    calls.make_all()
    terminal.show(job, "n", 1, sent, b"the end\n")
    terminal._allowance = 1e9
    calls.make_all()
    assert "bytes are not shown here" in written[-2]
    assert written[-1].endswith("the end\n"), "it goes on when the terminal does"


def test_a_line_without_an_end_is_written_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_write", lambda descriptor, text: None)
    terminal, calls = Terminal(), Calls()
    terminal._queue = calls  # type: ignore[assignment]
    job: Any = SimpleNamespace(_number=1, id=1, stdout="", stderr="")
    for number in range(100):
        terminal._allowance = 1e9
        terminal.show(job, "n", 1, number * 10_000, b"x" * 10_000)
        calls.make_all()
        assert len(terminal._shown[1, 1].rest) <= LINE_BYTES


def test_a_slow_callback_gets_the_newest_news_of_a_node_once() -> None:
    calls, told = Calls(), list[tuple[Any, Any]]()
    session: Any = SimpleNamespace(callbacks=calls)
    cluster: Any = Reporting(session, 1)
    cluster.cluster_status = lambda status, node, job: told.append((status, node.avail_info.cpu))
    node: Any = SimpleNamespace(
        node_id="n", ip_addr="10.0.0.1", name="n", cpus=1, exposed=False, traffic=None
    )
    for number in range(1000):
        node.available = float(number), 1, 1, 1.0
        cluster._node_available(node)
    assert len(calls.waiting) == 1
    calls.make_all()
    cluster._node_available(node)
    calls.make_all()
    assert told == [(Status.AvailInfo, 999.0)] * 2
