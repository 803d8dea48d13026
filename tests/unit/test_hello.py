"""What a peer may say of itself."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispy.protocol.frames import Frame, FrameRefused
from dispy.protocol.handshake import Hello, accept_hello, proven_identity
from dispy.protocol.messages import Kind
from dispy.scheduler.nodes import Nodes, RemoteNode

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


keys = st.none() | st.binary(min_size=32, max_size=32)


@given(
    said=st.lists(st.sampled_from([IDENTITY, "f" * 32]), min_size=2, max_size=2),
    key=keys,
    other=keys,
)
def test_who_says_an_identity_with_another_key_is_somebody_else(
    said: list[str], key: bytes | None, other: bytes | None
) -> None:
    one, two = proven_identity(said[0], key), proven_identity(said[1], other)
    assert (one == two) == (said[0] == said[1] and key == other)
    assert hear(identity=one).identity == one, "directories are named after it"


def test_a_scheduler_knows_an_identity_as_long_as_any_node_says_it() -> None:
    nodes, link = Nodes(), Any
    made = [
        RemoteNode(proven_identity(IDENTITY, key), "n", "host", 1, 1, hear(), link, 1)  # type: ignore[arg-type]
        for key in (b"k" * 32, b"o" * 32)
    ]
    for node in made:
        nodes.take_in(node)
    assert len(nodes) == 2
    assert [nodes.take_out(node) for node in (made[0], made[0])] == [True, False]
    assert nodes.knows(IDENTITY)
    assert nodes.take_out(made[1])
    assert not nodes.knows(IDENTITY)


def test_who_may_be_a_client_by_its_certificate_may_operate() -> None:
    assert Hello("operator", IDENTITY, "n").certified_role == "client"
    assert Hello("node", IDENTITY, "n").certified_role == "node"
    with pytest.raises(FrameRefused, match="a operator connected where a node was expected"):
        accept_hello(Frame(int(Kind.HELLO), Hello("operator", IDENTITY, "n").body()), "node")
