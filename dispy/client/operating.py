"""Asking a shared scheduler what there is, and steering it, as an operator: over a link of its own.

One request a link; the answer's parts are joined.
"""

import os
import socket
from typing import Any

import gevent

from dispy.client.owner import owner_here
from dispy.model.credentials import Credentials
from dispy.model.errors import DispyError
from dispy.net.dialing import connect
from dispy.net.link import Link, LinkEnd
from dispy.net.pulses import Pulses
from dispy.net.secure import NotProven, dial
from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import Hello
from dispy.protocol.messages import Kind
from dispy.system.network import is_loopback

CONNECT_SECONDS = 5.0


class SchedulerRefused(DispyError):
    """The scheduler has understood what it was asked, and says why it does not do it."""


def ask(
    host: str, port: int, credentials: Credentials, what: str, of: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Return a scheduler's answer to one request; waits for it in the calling greenlet.

    seconds: after which it is not waited for any more.
    Raises SchedulerRefused with its reason, and DispyError where there is no answer.
    """
    place = f"the scheduler at {host}, port {port}"
    try:
        with gevent.Timeout(seconds, TimeoutError(f"no answer within {seconds:g} s")):
            answer, end = _exchange(host, port, credentials, what, of)
    except (NotProven, FrameRefused) as error:
        raise DispyError(f"{place}: {error}") from None
    except OSError as error:
        why = error.strerror or error
        raise DispyError(
            f"{place} does not answer: {why}. Is `dispy scheduler` running there? --host and "
            f"DISPY_SCHEDULER name another machine"
        ) from None
    if answer is None:
        raise DispyError(f"{place}: {end.reason}")
    if isinstance(answer.get("error"), str):
        raise SchedulerRefused(answer["error"])
    return answer


def _exchange(
    host: str, port: int, credentials: Credentials, what: str, of: dict[str, Any]
) -> tuple[dict[str, Any] | None, LinkEnd]:
    """Return the answer, None: the link has ended before, and how that was."""
    sock = connect(host, port, CONNECT_SECONDS)
    if not (credentials.protected or credentials.insecure or is_loopback(sock.getpeername()[0])):
        sock.close()
        raise DispyError(
            f"the scheduler at {host} is on another machine, and there is no secret: put that of "
            f"the scheduler into ~/.config/dispy/secret, or type --insecure"
        )
    link = Link(dial(sock, credentials, host))
    pulses = Pulses(lambda: [link])
    answer: dict[str, Any] = {}
    whole = False

    def read(frame: Frame) -> None:
        nonlocal whole
        if frame.kind == Kind.REFUSE:
            raise FrameRefused(frame.body[0])
        if frame.kind != Kind.RESPONSE:
            raise FrameRefused(f"{Kind(frame.kind).name} is not for an operator to receive")
        _, more, part = frame.body
        _join(answer, part)
        if not more:
            whole = True
            link.close()

    try:
        details = {"owner": owner_here()}
        name = f"{socket.gethostname()}, process {os.getpid()}"
        ours = Hello("operator", os.urandom(16).hex(), name, details=details)
        link.exchange_hello(ours, "scheduler")
        link.send(Kind.REQUEST, [1, what, of])
        end = link.read(read)
        return (answer if whole else None), end
    finally:
        pulses.stop()
        link.close()


def _join(answer: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        if isinstance(value, list) and isinstance(answer.get(name), list):
            answer[name] += value
        else:
            answer[name] = value
