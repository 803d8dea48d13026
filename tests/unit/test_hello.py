"""What a peer may say of itself."""

import pytest

from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import Hello, accept_hello
from dispy.protocol.messages import Kind

IDENTITY = "0123456789abcdef" * 2


def hear(**said: object) -> Hello:
    (body,) = Hello("client", IDENTITY, "a program").body()
    return accept_hello(Frame(int(Kind.HELLO), [{**body, **said}]), "client")


def test_what_programs_and_nodes_say_is_accepted() -> None:
    assert hear().identity == IDENTITY


@pytest.mark.parametrize(
    "identity", ["", "../../x", "store", IDENTITY[:-1], IDENTITY + "0", IDENTITY.upper(), "/" * 32]
)
def test_an_identity_is_nothing_but_digits_because_directories_are_named_after_it(
    identity: str,
) -> None:
    with pytest.raises(FrameRefused, match="not 32 hexadecimal digits"):
        hear(identity=identity)


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "two\nlines", "\x00"])
def test_a_name_that_would_write_to_a_terminal_is_refused(text: str) -> None:
    with pytest.raises(FrameRefused, match="cannot be printed"):
        hear(name=text)
