"""A connection that is reset in the midst of getting acquainted ends that attempt, nothing else."""

import errno
from types import SimpleNamespace

from dispy.protocol.handshake import Hello
from dispy.scheduler.keeping import Attempt
from dispy.scheduler.service import Scheduler


class ResetAfterHello:
    """A link whose node has said who it is, and which is then reset."""

    peer_key = None

    def __init__(self) -> None:
        self.closed = False

    def exchange_hello(self, ours: Hello, role: str) -> Hello:
        return Hello("node", "1" * 32, "n")

    def is_of_other_user(self) -> bool:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    def close(self) -> None:
        self.closed = True


def test_a_link_reset_right_after_hello_is_an_end_and_its_address_is_dialled_again() -> None:
    owner = SimpleNamespace(content=None)
    scheduler, link = Scheduler(owner, "0" * 32, "a test"), ResetAfterHello()  # type: ignore[arg-type]
    node, end = scheduler._serve(link, Attempt("127.0.0.1", 51348))  # type: ignore[arg-type]
    assert node is None
    assert link.closed
    assert "not connected" in end.reason
    assert not end.refused
    assert not scheduler.nodes
    scheduler.stop()
