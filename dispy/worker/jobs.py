"""A worker's life: take a packet of jobs, run each, answer with one frame of results."""

import contextlib
import time
import traceback
from collections.abc import Callable
from typing import Any

from dispy.model.statuses import Status
from dispy.shipping.payloads import pack, unpack
from dispy.worker.channel import JOBS, RESULTS, Channel, EndOfChannel
from dispy.worker.output import Output

Extra = dict[str, Any]


def serve(channel: Channel, function: Callable[..., Any]) -> None:
    """Run jobs until the node closes the channel; runs in the worker's only thread."""
    output = Output()
    while True:
        try:
            frame = channel.receive()
        except EndOfChannel:
            return
        assert frame.kind == JOBS, frame.kind
        numbers, payloads = frame.body
        starts, ends, results, extras = [], [], [], []
        for at, payload in enumerate(payloads):
            starts.append(time.time())
            result, extra = run(function, payload)
            ends.append(time.time())
            extra |= {
                name: text
                for name, text in zip(("stdout", "stderr"), output.take(), strict=True)
                if text
            }
            results.append(result)
            if extra:
                extras.append([at, extra])
        try:
            channel.send(RESULTS, [numbers, starts, ends, results, extras])
        except EndOfChannel:
            return


def run(function: Callable[..., Any], payload: bytes) -> tuple[bytes | None, Extra]:
    """Run one job; return its packed result, and what is not the plain case."""
    try:
        arguments, keywords = unpack(payload)
    except BaseException as error:  # foreign code: the arguments' own classes
        return None, _failed(error, "its arguments could not be rebuilt on the node")
    try:
        result = function(*arguments, **keywords)
    except BaseException as error:  # SystemExit and KeyboardInterrupt end a job, not its worker
        return None, _failed(error, None)
    try:
        return pack(result, "the result"), {}
    except BaseException as error:  # foreign code: the result's own classes
        return None, _failed(error, "its result could not be sent back")


def _failed(error: BaseException, what: str | None) -> Extra:
    # The first frame is `run` above, which is nothing to a user.
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(type(error), error, frames))
    extra: Extra = {
        "status": int(Status.Terminated),
        "exception": f"{what}:\n{text}" if what else text,
    }
    with contextlib.suppress(BaseException):  # foreign code; the text is what remains
        extra["error"] = pack(error, "the exception")
    return extra
