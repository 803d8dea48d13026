"""Whose process is at the other end of a TCP connection inside this machine.

Linux knows the user of each socket, and is asked for exactly the one at the other end: by netlink
(sock_diag(7)), or, where a container forbids that, by a look through /proc/net/tcp. Other systems
do not say.

The user of a socket is the one who made it, or accepted the connection: a process that has handed
it on speaks for itself. In a container it is the user as the container numbers them; one that has
no number there is nobody's friend.
"""

import os
import socket
import struct
import sys
from collections.abc import Callable
from functools import cache
from time import monotonic
from typing import Any, NamedTuple

CAN_TELL = sys.platform == "linux"  # whether this system says it at all
PAUSES = 0.0005, 0.02  # seconds between looks at a connection not accepted yet: first, longest
ROOT = 0
_NETLINK_SECONDS = 1.0  # the kernel answers within the call; never waited for
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20  # linux/netlink.h, linux/sock_diag.h
_REQUEST = 1
_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBBBI")  # family, protocol, extensions, padding, states
_IDENTITY = struct.Struct("!HH16s16s")  # ports and addresses, its own first
_ANY_INTERFACE_AND_COOKIE = struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
_ANSWER = struct.Struct("=BBBB48sIIIII")  # ..., state, ..., identity, ..., user, inode
_ESTABLISHED, _LISTENS = 1, 10
_ALL_USERS = 4294967295  # in a user's map: every number there is
_MAPPED = b"\0" * 10 + b"\xff\xff"  # leads an IPv4 address that is written as an IPv6 one


class _End(NamedTuple):
    """One end of a connection, as the kernel knows it."""

    address: bytes  # 4 bytes or 16
    port: int


def user_of(sock: Any) -> int | None:
    """Return the user who holds the other end of a connected TCP socket.

    None: nobody in sight does. It is closed, or not accepted yet, or not in this machine; or the
    system does not say. Raises OSError where the socket is connected no more. Costs the same
    however many connections there are, but for the way by /proc.
    """
    if sys.platform != "linux":
        return None
    ours, theirs = _end(sock.getsockname()), _end(sock.getpeername())
    try:
        found = _ask_kernel(theirs, ours)
        if found is None and _ask_kernel(ours, theirs) is None:
            raise OSError("the kernel does not know our own end either: it cannot say")
    except OSError:
        found = _look_through(lambda end, other, _: (end, other) == (theirs, ours))
    return _held_by(found)


def _user_listening(sock: Any) -> int | None:
    """Return the user who listens at the address of the other end now; None: nobody in sight."""
    if sys.platform != "linux":
        return None
    theirs = _end(sock.getpeername())
    nobody = _End(bytes(len(theirs.address)), 0)
    try:
        found = _ask_kernel(theirs, nobody)
    except OSError:
        places = theirs.address, bytes(4), bytes(16)
        found = _look_through(
            lambda end, _, state: (
                state == _LISTENS and end.port == theirs.port and end.address in places
            )
        )
    return _held_by(found)


def _held_by(found: tuple[int, int] | None) -> int | None:
    """Return the user of an end; one that nobody holds has no inode, and is said to be of root."""
    return found[0] if found is not None and found[1] else None


def wait_for_user(sock: Any, seconds: float, sleep: Callable[[float], object]) -> int | None:
    """Return the user who holds the other end, as soon as the connection has been accepted there.

    Where somebody listens there who is no friend it is that user, at once: he may close what he
    has accepted before it is looked at. None: that is not known after so many seconds. Raises
    OSError where the other end is closed.
    """
    listening = _user_listening(sock)
    if listening is not None and not is_friend(listening):
        return listening
    deadline, (pause, longest) = monotonic() + seconds, PAUSES
    while (user := user_of(sock)) is None:
        if is_closed(sock):
            raise ConnectionResetError("it closed the connection")
        if monotonic() > deadline:
            break
        sleep(pause)
        pause = min(2 * pause, longest)
    return user


def is_closed(sock: Any) -> bool:
    """Say whether the other end of a connection has been closed, or is not to be read any more."""
    if sys.platform != "linux":
        return False
    state: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    return state[0] != _ESTABLISHED


def is_friend(user: int) -> bool:
    """Say whether what a user's processes ask and answer may be trusted: ours, and root's."""
    if user == _unknown_user() and not _knows_all_users():
        return False
    return user in (ROOT, own_user())


def own_user() -> int:
    """Return the user of the sockets that this process makes."""
    return os.geteuid() if hasattr(os, "geteuid") else -1


def user_name(user: int) -> str:
    """Return how people know a user; it may take a look into a directory service."""
    try:
        import pwd

        return f"{pwd.getpwuid(user).pw_name} (uid {user})"
    except (ImportError, KeyError):
        return f"uid {user}"


# -- users of a container


@cache
def _unknown_user() -> int:
    """Return the number that stands for every user who has none here."""
    try:
        with open("/proc/sys/kernel/overflowuid") as file:
            return int(file.read())
    except OSError:
        return 65534


@cache
def _knows_all_users() -> bool:
    try:
        with open("/proc/self/uid_map") as file:
            return sum(int(line.split()[2]) for line in file) >= _ALL_USERS
    except OSError:
        return False


# -- what the kernel says: each returns user and inode of an end, or None


def _end(name: Any) -> _End:
    host, port = name[:2]
    if ":" not in host:
        return _End(socket.inet_pton(socket.AF_INET, host), port)
    packed = socket.inet_pton(socket.AF_INET6, host.split("%")[0])
    return _End(packed.removeprefix(_MAPPED), port)


def _ask_kernel(end: _End, other: _End) -> tuple[int, int] | None:
    """Raises OSError where that is forbidden, or not built in. Port 0 of the other: who listens."""
    if sys.platform != "linux":
        return None
    family = socket.AF_INET if len(end.address) == 4 else socket.AF_INET6
    wanted = _IDENTITY.pack(
        end.port, other.port, end.address.ljust(16, b"\0"), other.address.ljust(16, b"\0")
    )
    question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF)
    body = question + wanted + _ANY_INTERFACE_AND_COOKIE
    head = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_NETLINK_SECONDS)
        kernel.sendto(head + body, (0, 0))
        answer = kernel.recv(4096)
    kind = _HEADER.unpack_from(answer)[1]
    if kind == _ERROR or len(answer) < _HEADER.size + _ANSWER.size:
        return None
    _, _, _, _, found, _, _, _, user, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    # Where there is no such connection the kernel names who listens at that port.
    return (user, inode) if _IDENTITY.unpack_from(found)[:2] == (end.port, other.port) else None


def _look_through(is_wanted: Callable[[_End, _End, int], bool]) -> tuple[int, int] | None:
    """Return the first for whose ends and state this holds."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as lines:
                next(lines, None)
                for line in lines:
                    words = line.split()
                    end, other, state = _read_end(words[1]), _read_end(words[2]), int(words[3], 16)
                    if is_wanted(end, other, state):
                        return int(words[7]), int(words[9])
        except OSError:
            continue  # no IPv6 here, or nothing may be read
    return None


def _read_end(text: str) -> _End:
    """Return an end as /proc/net/tcp writes it: words of 32 bits in the machine's own order."""
    address, port = text.split(":")
    words = [int(address[at : at + 8], 16) for at in range(0, len(address), 8)]
    return _End(struct.pack(f"={len(words)}I", *words).removeprefix(_MAPPED), int(port, 16))
