"""Logs for programs: one JSON object a line, whatever is logged."""

import json
import logging
import sys

import gevent
import pytest

from dispy.cli.json_log import JsonFormatter
from dispy.model.events import event
from dispy.model.statuses import Status
from dispy.scheduler.counting import Counts, CountsLog


def line_of(message: str, *arguments: object, extra: dict | None = None, **more: object) -> dict:
    record = logging.getLogger("dispy.test").makeRecord(
        "dispy.test", logging.WARNING, "file", 1, message, arguments, None, extra=extra, **more
    )
    record.created = 1795910400.25
    if more:
        record.exc_info = sys.exc_info()
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)


def test_a_line_has_the_sentence_and_the_fields_of_its_event() -> None:
    told = event("node_found", node="a\nb", processors=3, level="hidden", name="n")
    assert line_of("node %s found", "a\nb", extra=told) == {
        "time": "2026-11-29T00:00:00.250Z", "level": "warning", "logger": "dispy.test",
        "message": "node a\nb found", "event": "node_found", "node": "a\nb", "processors": 3,
        "name": "n",
    }  # fmt: skip


def test_a_line_without_an_event_and_one_with_an_exception() -> None:
    assert set(line_of("plain")) == {"time", "level", "logger", "message"}
    assert line_of("odd", extra=event("odd", value=object()))["value"].startswith("<object")
    try:
        raise ValueError("as it should")
    except ValueError:
        found = line_of("failed", func=None)
    assert found["exception"].endswith("ValueError: as it should")


def test_jobs_are_counted_by_how_they_ended_and_told_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts = Counts()
    log = CountsLog(counts, seconds=3600)
    counts.submitted(10)
    counts.ended(6, [{"status": Status.Terminated}, {"stdout": "x"}, {"status": 8}])
    counts.given_up(2, Status.Cancelled)
    counts.given_up(1, Status.Abandoned)
    counts.requeued(3)
    assert counts.all() == {
        "submitted": 10, "finished": 4, "terminated": 1, "cancelled": 3, "abandoned": 1,
        "requeued": 3,
    }  # fmt: skip
    with caplog.at_level(logging.INFO, "dispy.scheduler"):
        log._tell()
        log._tell()
        counts.submitted(1)
        log.stop()
    gevent.sleep(0)
    first, second = caplog.messages
    assert first.startswith("jobs: 10 submitted, ")
    assert second == "jobs: 1 submitted"
