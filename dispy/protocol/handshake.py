"""The first message of each side: who speaks, which version, and may we go on.

Sans-I/O. Both sides send HELLO at once and read the other's; whoever cannot go on answers
REFUSE with a sentence that says what to do, and ends the link. Before the other's HELLO is
accepted nothing but HELLO and REFUSE is read, under the small limits below.
"""

import os
import platform
import re
import sys
from dataclasses import dataclass, field
from typing import Any

from dispy import __version__
from dispy.model.texts import one_line
from dispy.protocol.frames import Frame, FrameDecoder, FrameRefused, TakeMemory, zeroed
from dispy.protocol.messages import Kind, check

PROTOCOL = 1  # raised when a message changes its meaning
HELLO_LIMIT = 8 * 1024  # bytes that an unknown peer may send; the longest texts need 7,300
HELLO_SECONDS = 10.0  # that it may take
KNOCK = b"\0"  # the first byte of a frame: what whoever only looks sends, so that a node speaks
# Between signs of life, times what was asked for, where an owner has no computation at a node:
# either side loses nothing by it, and a scheduler may have ten thousand of these.
UNUSED_PULSES = 2
NAME_LIMIT = 255  # characters of each text: a DNS name's length
# Random, so that nobody guesses it. Nodes name directories after it: it is nothing but digits.
_IDENTITY = re.compile("[0-9a-f]{32}")


def platform_name() -> str:
    """Return what `platform.platform()` does, without the child process that it starts.

    A program patched by gevent cannot start one from the thread of a hub of its own.
    """
    if sys.platform != "linux":
        return f"{platform.system()}-{platform.release()}"
    system = os.uname()
    library = (os.confstr("CS_GNU_LIBC_VERSION") or "libc").replace(" ", "")
    return f"{system.sysname}-{system.release}-{system.machine}-with-{library}"


@dataclass(frozen=True, slots=True)
class Hello:
    """What one side says of itself. `identity` outlives the link, not the process; it is believed
    together with a key alone, see `proven_identity`."""

    role: str  # "client", "node", "scheduler" or "operator"
    identity: str
    name: str  # as people know it
    protocol: int = PROTOCOL
    version: str = __version__
    python: str = f"{sys.version_info[0]}.{sys.version_info[1]}"
    implementation: str = sys.implementation.name
    platform: str = field(default_factory=platform_name)
    details: dict[str, Any] = field(default_factory=dict)  # by role: cpus, pulse_interval, ...

    @property
    def certified_role(self) -> str:
        """The role that a certificate has to be for: an operator has that of a client."""
        return "client" if self.role == "operator" else self.role

    def body(self) -> list[dict[str, Any]]:
        """Return the body of its frame."""
        return [{name: getattr(self, name) for name in self.__slots__}]


class NoHello(FrameRefused):
    """The peer went before it had said who it is: it broke no rule, and may soon be there again."""


def hello_decoder(memory: TakeMemory = zeroed) -> FrameDecoder:
    """Return the decoder for a peer that has not said who it is."""
    return FrameDecoder(body_limit=HELLO_LIMIT, bulk_limit=0, memory=memory)


def proven_identity(said: str, key: bytes | None) -> str:
    """Return who a peer is that says this identity: one that has proven another key is another.

    key: what its links have proven (`Link.peer_key`); None: they are not encrypted, and 128 random
    bits, which were told to nobody else, are all that there is. 32 digits in either case.
    """
    if key is None:
        return said
    import hashlib  # which encryption has imported already

    return hashlib.blake2b(said.encode(), key=key[:64], digest_size=16).hexdigest()


def accept_hello(frame: Frame, *roles: str) -> Hello:
    """Return the peer's hello; it must have one of these roles, the first of which is usual.

    Raises FrameRefused with a sentence for the person at the other end, or with the
    peer's own sentence where it refused us.
    """
    body = check(frame).body
    if frame.kind == Kind.REFUSE:
        raise FrameRefused(one_line(body[0]))
    if frame.kind != Kind.HELLO:
        raise FrameRefused(f"{Kind(frame.kind).name} came before HELLO")
    said = body[0]
    protocol = said.get("protocol")
    if protocol != PROTOCOL:
        raise FrameRefused(
            f"{said.get('name', 'the peer')!s:.80} runs dispy {said.get('version')!s:.40} "
            f"(protocol {protocol!s:.10}), this side dispy {__version__} (protocol {PROTOCOL}). "
            f"Install the same version on both: pip install dispy=={__version__}"
        )
    texts = ("role", "identity", "name", "version", "python", "implementation", "platform")
    for name in texts:
        if not isinstance(said.get(name), str) or len(said[name]) > NAME_LIMIT:
            raise FrameRefused(f"{name!r} of HELLO is not a text of at most {NAME_LIMIT} letters")
        if not said[name].isprintable():  # it goes into logs and onto terminals
            raise FrameRefused(f"{name!r} of HELLO has letters that cannot be printed")
    if not _IDENTITY.fullmatch(said["identity"]):
        raise FrameRefused("'identity' of HELLO is not 32 hexadecimal digits")
    if said["role"] not in roles:
        raise FrameRefused(f"a {said['role']} connected where a {roles[0]} was expected")
    details = said.get("details")
    if not isinstance(details, dict):
        raise FrameRefused("'details' of HELLO is not a table")
    return Hello(protocol=protocol, details=details, **{name: said[name] for name in texts})
